#include "proto/yaml/definitions_yaml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/message_differencer.h"

namespace sluice {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::HasSubstr;

std::string Problem(const std::string& yaml) {
  const auto parsed = DefinitionsFromYaml(yaml);
  return parsed.ok() ? "" : std::string(parsed.status().message());
}

TEST(DefinitionsYamlTest, ReadsEveryKindOfField) {
  const auto parsed = DefinitionsFromYaml(R"(
queues:
  - name: orders
    lease: 30s
    retry: {maxAttempts: 5, minBackoff: 0.250s, discardWhenExhausted: false}
    deadLetterQueue: orders.dead
    maxLength: 1000000
    maxBytes: "9007199254740993"
    overflow: OVERFLOW_DROP_HEAD
    delivery_rate: {per_second: 0.5, burst: 2}
    singleActiveConsumer: true
    labels: {version: 1.10, on: yes, empty: ''}
  - name: orders.dead
exchanges:
  - {name: events, type: EXCHANGE_TYPE_TOPIC, alternateExchange: rest}
bindings:
  - {exchange: events, queue: orders, bindingKey: 'order.#'}
  - exchange: events
    toExchange: rest
    headers: {a: b}
    headerMatch: HEADER_MATCH_ANY
)");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->queues_size(), 2);
  const v1::QueueConfig& orders = parsed->queues(0);
  EXPECT_EQ(orders.lease().seconds(), 30);
  EXPECT_EQ(orders.retry().max_attempts(), 5);
  EXPECT_EQ(orders.retry().min_backoff().nanos(), 250'000'000);
  EXPECT_EQ(orders.max_length(), 1'000'000);
  EXPECT_EQ(orders.max_bytes(), 9007199254740993);
  EXPECT_EQ(orders.overflow(), v1::OVERFLOW_DROP_HEAD);
  EXPECT_EQ(orders.delivery_rate().per_second(), 0.5);
  EXPECT_EQ(orders.delivery_rate().burst(), 2);
  EXPECT_TRUE(orders.single_active_consumer());
  EXPECT_EQ(orders.labels().at("version"), "1.10");
  EXPECT_EQ(orders.labels().at("on"), "yes");
  EXPECT_EQ(orders.labels().at("empty"), "");
  EXPECT_EQ(parsed->exchanges(0).type(), v1::EXCHANGE_TYPE_TOPIC);
  EXPECT_EQ(parsed->bindings(0).binding_key(), "order.#");
  EXPECT_EQ(parsed->bindings(1).to_exchange(), "rest");
  EXPECT_EQ(parsed->bindings(1).header_match(), v1::HEADER_MATCH_ANY);
}

TEST(DefinitionsYamlTest, NothingDefinesNothing) {
  for (const char* yaml : {"", "\n", "# only a comment\n", "---\n", "{}", "queues:\n"}) {
    const auto parsed = DefinitionsFromYaml(yaml);
    ASSERT_TRUE(parsed.ok()) << yaml << parsed.status();
    EXPECT_EQ(parsed->ByteSizeLong(), 0u) << yaml;
  }
}

TEST(DefinitionsYamlTest, WritesWhatItReadsBack) {
  v1::Definitions definitions;
  v1::QueueConfig& queue = *definitions.add_queues();
  queue.set_name("1.10");
  queue.mutable_lease()->set_seconds(30);
  queue.mutable_dedup_window();  // zero, and set
  queue.set_max_length(0);       // likewise
  queue.mutable_retry()->set_max_attempts(3);
  queue.mutable_retry()->mutable_min_backoff()->set_nanos(5'000'000);
  queue.mutable_delivery_rate()->set_per_second(0.1);
  queue.set_overflow(v1::OVERFLOW_REJECT);
  for (const char* odd : {"", "~", "null", "true", "No", "1e3", "- x", "a: b", "#c", "'q'", "\"",
                          "back\\slash", "line\nbreak", " spaces ", "\xC3\xBC", "*a", "&a", "!t"}) {
    (*queue.mutable_labels())[absl::StrCat("k", odd)] = odd;
    if (*odd != 0) (*queue.mutable_labels())[odd] = "v";
  }
  v1::Binding& binding = *definitions.add_bindings();
  binding.set_exchange("e");
  binding.set_queue("1.10");
  binding.set_binding_key("#");
  const std::string yaml = DefinitionsToYaml(definitions);
  const auto parsed = DefinitionsFromYaml(yaml);
  ASSERT_TRUE(parsed.ok()) << parsed.status() << "\n" << yaml;
  EXPECT_TRUE(MessageDifferencer::Equals(definitions, *parsed)) << yaml;
}

TEST(DefinitionsYamlTest, IsWrittenForPeople) {
  v1::Definitions definitions;
  v1::QueueConfig& queue = *definitions.add_queues();
  queue.set_name("orders");
  queue.mutable_lease()->set_seconds(90);
  queue.set_dead_letter_queue("orders.dead");
  (*queue.mutable_labels())["version"] = "1.10";
  EXPECT_EQ(DefinitionsToYaml(definitions),
            "queues:\n"
            "  - name: orders\n"
            "    lease: 90s\n"
            "    deadLetterQueue: orders.dead\n"
            "    labels:\n"
            "      version: \"1.10\"\n");
}

TEST(DefinitionsYamlTest, SaysWhatIsWrong) {
  EXPECT_THAT(Problem("queues: [\n"), HasSubstr("line"));
  EXPECT_THAT(Problem("queues:\n- name: a\n  lese: 3s\n"), HasSubstr("lese"));
  EXPECT_THAT(Problem("queues:\n- name: a\n  name: b\n"), HasSubstr("line 3: 'name' is there twice"));
  EXPECT_THAT(Problem("queues:\n- name: a\n  lease: 5 minutes\n"), HasSubstr("lease"));
  EXPECT_THAT(Problem("queues:\n- name: a\n  maxLength: many\n"), HasSubstr("many"));
  EXPECT_THAT(Problem("queues:\n- name: a\n  overflow: SPILL\n"), HasSubstr("SPILL"));
  EXPECT_THAT(Problem("- name: a\n"), HasSubstr("map"));
  EXPECT_THAT(Problem("just text"), HasSubstr("map"));
  EXPECT_THAT(Problem("queues: []\n---\nqueues: []\n"), HasSubstr("more than one"));
  EXPECT_THAT(Problem("? [a]\n: b\n"), HasSubstr("key"));
}

TEST(DefinitionsYamlTest, RefusesDocumentsThatGrowWithoutEnd) {
  EXPECT_THAT(Problem("queues: &a [*a]\n"), testing::AnyOf(HasSubstr("deep"), HasSubstr("line")));
  std::string bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
  for (int i = 1; i < 10; ++i) {
    absl::StrAppend(&bomb, "a", i, ": &a", i, " [");
    for (int j = 0; j < 10; ++j) absl::StrAppend(&bomb, j > 0 ? "," : "", "*a", i - 1);
    absl::StrAppend(&bomb, "]\n");
  }
  EXPECT_THAT(Problem(bomb), HasSubstr("too large"));
}

TEST(DefinitionsYamlTest, FileErrorsNameTheFile) {
  const std::string path = testing::TempDir() + "/definitions_yaml_test.yaml";
  EXPECT_TRUE(absl::IsNotFound(DefinitionsFromYamlFile(path + ".missing").status()));
  std::ofstream(path) << "queues: 3\n";
  EXPECT_THAT(std::string(DefinitionsFromYamlFile(path).status().message()), HasSubstr(path));
  std::remove(path.c_str());
}

}  // namespace
}  // namespace sluice
