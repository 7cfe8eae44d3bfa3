// What command lines become, without a server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/cli/definitions_diff.h"
#include "client/cli/message_filter_options.h"
#include "client/cli/message_options.h"
#include "client/cli/queue_config_options.h"

namespace sluice::cli {
namespace {

using testing::ElementsAre;

// Whether the words are a right command line.
bool Parse(CLI::App& app, std::vector<std::string> words) {
  std::reverse(words.begin(), words.end());  // as CLI11 takes them
  try {
    app.parse(words);
  } catch (const CLI::ParseError&) {
    return false;
  }
  return true;
}

TEST(QueueConfigOptionsTest, EachFieldIsSetAndNamed) {
  CLI::App app;
  v1::QueueConfig config;
  google::protobuf::FieldMask mask;
  AddQueueConfigOptions(app, &config, &mask);
  ASSERT_TRUE(Parse(
      app, {"--lease", "1m", "--ttl", "2d", "--dedup-window", "0", "--idle-expiry", "1h",
            "--priority-aging", "5s", "--min-backoff", "250ms", "--max-backoff", "1m",
            "--max-attempts", "5", "--discard-when-exhausted", "--dead-letter-queue", "dead",
            "--max-length", "10", "--max-bytes", "1KiB", "--overflow", "drop-head",
            "--delivery-rate", "600/m", "--delivery-burst", "3", "--single-active-consumer", "true",
            "--label", "a=b", "--label", "c=d"}));
  EXPECT_EQ(config.lease().seconds(), 60);
  EXPECT_EQ(config.ttl().seconds(), 172'800);
  EXPECT_TRUE(config.has_dedup_window());
  EXPECT_EQ(config.idle_expiry().seconds(), 3600);
  EXPECT_EQ(config.priority_aging().seconds(), 5);
  EXPECT_EQ(config.retry().min_backoff().nanos(), 250'000'000);
  EXPECT_EQ(config.retry().max_backoff().seconds(), 60);
  EXPECT_EQ(config.retry().max_attempts(), 5);
  EXPECT_TRUE(config.retry().discard_when_exhausted());
  EXPECT_EQ(config.dead_letter_queue(), "dead");
  EXPECT_EQ(config.max_length(), 10);
  EXPECT_EQ(config.max_bytes(), 1024);
  EXPECT_EQ(config.overflow(), v1::OVERFLOW_DROP_HEAD);
  EXPECT_EQ(config.delivery_rate().per_second(), 10);
  EXPECT_EQ(config.delivery_rate().burst(), 3);
  EXPECT_TRUE(config.single_active_consumer());
  EXPECT_EQ(config.labels_size(), 2);
  EXPECT_THAT(mask.paths(),
              testing::UnorderedElementsAre(
                  "lease", "ttl", "dedup_window", "idle_expiry", "priority_aging",
                  "retry.min_backoff", "retry.max_backoff", "retry.max_attempts",
                  "retry.discard_when_exhausted", "dead_letter_queue", "max_length", "max_bytes",
                  "overflow", "delivery_rate", "single_active_consumer", "labels"));
}

TEST(QueueConfigOptionsTest, TheRateCanBeTakenAway) {
  CLI::App app;
  v1::QueueConfig config;
  google::protobuf::FieldMask mask;
  AddQueueConfigOptions(app, &config, &mask);
  ASSERT_TRUE(Parse(app, {"--no-delivery-rate"}));
  EXPECT_FALSE(config.has_delivery_rate());
  EXPECT_THAT(mask.paths(), ElementsAre("delivery_rate"));
}

TEST(MessageFilterOptionsTest, EachFieldIsSet) {
  CLI::App app;
  v1::MessageFilter filter;
  AddMessageFilterOptions(app, &filter);
  EXPECT_FALSE(IsSet(filter));
  ASSERT_TRUE(Parse(app, {"--id", "i1", "--id", "i2", "--state", "ready", "--state", "blocked",
                          "--group", "g", "-a", "k=v", "--attribute", "k2=", "--min-age", "1h",
                          "--max-age", "7d", "--death-reason", "attempts", "--death-queue", "q"}));
  EXPECT_TRUE(IsSet(filter));
  EXPECT_THAT(filter.ids(), ElementsAre("i1", "i2"));
  EXPECT_THAT(filter.states(), ElementsAre(v1::MESSAGE_STATE_READY, v1::MESSAGE_STATE_BLOCKED));
  EXPECT_THAT(filter.groups(), ElementsAre("g"));
  EXPECT_EQ(filter.attributes().at("k"), "v");
  EXPECT_EQ(filter.attributes().at("k2"), "");
  EXPECT_EQ(filter.min_age().seconds(), 3600);
  EXPECT_EQ(filter.max_age().seconds(), 604'800);
  EXPECT_THAT(filter.death_reasons(), ElementsAre(v1::DEATH_REASON_ATTEMPTS));
  EXPECT_EQ(filter.death_queue(), "q");
}

TEST(MessageFilterOptionsTest, WrongWordsAreRefused) {
  for (const auto& words : std::vector<std::vector<std::string>>{
           {"--state", "asleep"}, {"--death-reason", "age"}, {"--min-age", "-1s"}, {"-a", "k"}}) {
    CLI::App app;
    v1::MessageFilter filter;
    AddMessageFilterOptions(app, &filter);
    EXPECT_FALSE(Parse(app, words)) << words[0];
  }
}

TEST(MessageOptionsTest, OneScheduleOnly) {
  for (const auto& [words, right] : std::vector<std::pair<std::vector<std::string>, bool>>{
           {{"--delay", "5s"}, true},
           {{"--deliver-at", "2026-03-01T08:30:00Z"}, true},
           {{"--delay", "5s", "--deliver-at", "2026-03-01T08:30:00Z"}, false},
           {{"--deliver-at", "soon"}, false}}) {
    CLI::App app;
    v1::Message message;
    AddMessageOptions(app, &message);
    EXPECT_EQ(Parse(app, words), right) << words[0] << words[1];
    if (right && words[0] == "--deliver-at") {
      EXPECT_EQ(message.deliver_at().seconds(), 1'772'353'800);
    }
  }
}

TEST(DefinitionsDiffTest, ShowsWhatChangesAndCountsTheRest) {
  v1::ApplyDefinitionsResponse response;
  const auto add = [&](const char* resource, v1::ChangeAction action) {
    v1::DefinitionChange* change = response.add_changes();
    change->set_resource(resource);
    change->set_action(action);
    return change;
  };
  EXPECT_EQ(DefinitionsDiff(response, false), "created 0, changed 0, deleted 0; unchanged 0\n");
  add("queue a", v1::CHANGE_ACTION_CREATE);
  add("queue b", v1::CHANGE_ACTION_UPDATE)->add_differences("lease: 30s -> 60s");
  add("queue c", v1::CHANGE_ACTION_NONE);
  add("binding e -> a", v1::CHANGE_ACTION_DELETE);
  EXPECT_EQ(DefinitionsDiff(response, true),
            "+ queue a\n"
            "~ queue b\n"
            "    lease: 30s -> 60s\n"
            "- binding e -> a\n"
            "would be created 1, changed 1, deleted 1; unchanged 1\n");
}

}  // namespace
}  // namespace sluice::cli
