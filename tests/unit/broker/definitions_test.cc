// Applying definitions: the difference first, then all of it or nothing.
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/model/error.h"
#include "server/storage/rows.h"
#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

QueueConfigChange QueueOf(const std::string& name) {
  QueueConfigChange change;
  change.name = name;
  return change;
}
QueueConfigChange DyingInto(const std::string& name, const std::string& dead_letter_queue) {
  QueueConfigChange change = QueueOf(name);
  change.dead_letter_queue = dead_letter_queue;
  return change;
}
ExchangeChange ExchangeOf(const std::string& name, ExchangeType type,
                          const std::string& alternate = "") {
  ExchangeChange change;
  change.name = name;
  change.type = type;
  if (!alternate.empty()) change.alternate_exchange = alternate;
  return change;
}
Binding ToQueue(const std::string& exchange, const std::string& queue,
                const std::string& key = "") {
  return {exchange, queue, "", key, {}, HeaderMatch::kAll};
}
Binding ToExchange(const std::string& exchange, const std::string& to) {
  return {exchange, "", to, "", {}, HeaderMatch::kAll};
}

struct Options {
  bool dry_run = false;
  bool prune = false;
};

class DefinitionsTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::vector<DefinitionChange>> ApplyRaw(const Definitions& definitions,
                                                         Options options) {
    testing::Reply<absl::StatusOr<std::vector<DefinitionChange>>> reply;
    shard_.Run(ApplyDefinitionsCommand{definitions, options.dry_run, options.prune, reply.Done()});
    EXPECT_EQ(reply.calls(), 1);
    return *reply;
  }
  // "+queue a", "=exchange e", "~queue b lease: 30s -> 1m", "-binding e -> q"
  std::vector<std::string> Apply(const Definitions& definitions, Options options = {}) {
    const auto changes = ApplyRaw(definitions, options);
    EXPECT_TRUE(changes.ok()) << changes.status();
    std::vector<std::string> lines;
    if (!changes.ok()) return lines;
    for (const DefinitionChange& change : *changes) {
      std::string line(1, "?=+~-"[static_cast<int>(change.action)]);
      absl::StrAppend(&line, change.resource);
      if (!change.differences.empty()) {
        absl::StrAppend(&line, " ", absl::StrJoin(change.differences, "; "));
      }
      lines.push_back(line);
    }
    return lines;
  }
  absl::Status Refusal(const Definitions& definitions, Options options = {}) {
    const std::vector<std::string> before = Everything();
    const absl::Status status = ApplyRaw(definitions, options).status();
    EXPECT_EQ(Everything(), before) << "changed something, and was refused: " << status;
    return status;
  }
  std::vector<std::string> Everything() {
    std::vector<std::string> names;
    testing::Reply<absl::StatusOr<ListQueuesOutcome>> queues;
    shard_.Run(ListQueuesCommand{"", "", 1000, queues.Done()});
    for (const QueueInfo& queue : (*queues)->queues) {
      names.push_back(absl::StrCat(queue.config.name, ":", queue.config.lease_ms, ":",
                                   queue.config.dead_letter_queue));
    }
    testing::Reply<absl::StatusOr<ListExchangesCommand::Outcome>> exchanges;
    shard_.Run(ListExchangesCommand{"", "", 1000, exchanges.Done()});
    for (const Exchange& exchange : (*exchanges)->exchanges) {
      names.push_back(absl::StrCat(exchange.name, "|", exchange.alternate_exchange));
    }
    testing::Reply<absl::StatusOr<ListBindingsCommand::Outcome>> bindings;
    shard_.Run(ListBindingsCommand{"", "", "", 1000, bindings.Done()});
    for (const Binding& binding : (*bindings)->bindings) {
      names.push_back(absl::StrCat(binding.exchange, ">", binding.queue, binding.to_exchange, ":",
                                   binding.binding_key));
    }
    return names;
  }

  testing::ShardHarness shard_;
};

// Everything refers to something that comes after it.
Definitions Shop() {
  Definitions shop;
  shop.queues = {DyingInto("orders", "failed"), QueueOf("failed")};
  shop.exchanges = {ExchangeOf("in", ExchangeType::kDirect, "rest"),
                    ExchangeOf("rest", ExchangeType::kFanout, "in")};
  shop.bindings = {ToQueue("in", "orders", "new"), ToExchange("rest", "in"),
                   ToQueue("rest", "failed")};
  return shop;
}

TEST_F(DefinitionsTest, MakesWhatIsMissingInWhateverOrder) {
  EXPECT_THAT(Apply(Shop()),
              ElementsAre("+queue orders", "+queue failed", "+exchange in", "+exchange rest",
                          "+binding in -> orders", "+binding rest -> in",
                          "+binding rest -> failed"));
  const std::vector<std::string> expected = {"failed:30000:", "orders:30000:failed", "in|rest",
                                             "rest|in", "in>orders:new", "rest>in:",
                                             "rest>failed:"};
  EXPECT_EQ(Everything(), expected);
  shard_.Crash();
  EXPECT_EQ(Everything(), expected);
}

TEST_F(DefinitionsTest, TheSameAgainChangesNothing) {
  Apply(Shop());
  const auto revision = shard_.GetQueue("orders").revision;
  for (const bool prune : {false, true}) {
    const auto again = Apply(Shop(), {.prune = prune});
    EXPECT_EQ(again.size(), 7u);
    EXPECT_THAT(again, Each(::testing::StartsWith("=")));
  }
  EXPECT_EQ(shard_.GetQueue("orders").revision, revision);
}

TEST_F(DefinitionsTest, SaysWhatDiffersAndADryRunDoesNothing) {
  Apply(Shop());
  Definitions changed = Shop();
  changed.queues[0].lease_ms = 60'000;
  changed.queues[0].max_attempts = 5;
  changed.exchanges[0].alternate_exchange = "";
  changed.exchanges[0].labels = std::map<std::string, std::string>{{"team", "a"}};
  changed.bindings.push_back(ToQueue("in", "failed", "bad"));
  const auto before = Everything();
  const auto planned = Apply(changed, {.dry_run = true});
  EXPECT_THAT(planned,
              ElementsAre("~queue orders lease: 30s -> 1m; retry.max_attempts: no limit -> 5",
                          "=queue failed",
                          "~exchange in alternate_exchange: rest -> none; labels: {} -> {team: a}",
                          "=exchange rest", "=binding in -> orders", "=binding rest -> in",
                          "=binding rest -> failed", "+binding in -> failed"));
  EXPECT_EQ(Everything(), before);
  EXPECT_EQ(Apply(changed), planned);
  EXPECT_EQ(shard_.GetQueue("orders").config.retry.max_attempts, 5);
  shard_.Crash();
  EXPECT_THAT(Apply(changed), Each(::testing::StartsWith("=")));
}

TEST_F(DefinitionsTest, AFieldThatIsNotSetStays) {
  Apply(Shop());
  Definitions without = Shop();
  without.queues[0] = QueueOf("orders");
  without.exchanges[0].alternate_exchange.reset();
  EXPECT_THAT(Apply(without), Each(::testing::StartsWith("=")));
  EXPECT_EQ(shard_.GetQueue("orders").config.dead_letter_queue, "failed");
  // Set, and empty.
  without.queues[0].dead_letter_queue = "";
  EXPECT_EQ(Apply(without).front(), "~queue orders dead_letter_queue: failed -> none");
}

TEST_F(DefinitionsTest, WithoutPruneWhatIsNotNamedStaysUnmentioned) {
  Apply(Shop());
  const auto before = Everything();
  EXPECT_THAT(Apply({}), IsEmpty());
  EXPECT_EQ(Everything(), before);
}

TEST_F(DefinitionsTest, PruneTakesWhatIsNotNamed) {
  Apply(Shop());
  Definitions less;
  less.queues = {QueueOf("failed")};
  less.exchanges = {ExchangeOf("rest", ExchangeType::kFanout)};
  less.exchanges[0].alternate_exchange = "";
  EXPECT_THAT(Apply(less, {.prune = true}),
              ElementsAre("=queue failed", "~exchange rest alternate_exchange: in -> none",
                          "-queue orders", "-exchange in", "-binding in -> orders",
                          "-binding rest -> in", "-binding rest -> failed"));
  EXPECT_THAT(Everything(), ElementsAre("failed:30000:", "rest|"));
  shard_.Crash();
  EXPECT_THAT(Everything(), ElementsAre("failed:30000:", "rest|"));
  EXPECT_EQ(Apply({}, {.prune = true}).size(), 2u);
  EXPECT_THAT(Everything(), IsEmpty());
}

TEST_F(DefinitionsTest, PruneLeavesQueuesWithMessagesOrConsumersAndRefusesTheWhole) {
  Apply(Shop());
  Definitions less;
  less.queues = {QueueOf("failed"), QueueOf("new")};
  shard_.Publish("orders", {"m"});
  absl::Status refused = Refusal(less, {.prune = true});
  EXPECT_EQ(ReasonOf(refused), ErrorReason::kNotEmpty);
  EXPECT_THAT(std::string(refused.message()), ::testing::HasSubstr("'orders'"));
  ASSERT_TRUE(shard_.Purge("orders", true).ok());
  const auto sink = shard_.Subscribe("orders");
  EXPECT_EQ(ReasonOf(Refusal(less, {.prune = true})), ErrorReason::kInUse);
  shard_.Close(sink);
  EXPECT_TRUE(ApplyRaw(less, {.prune = true}).ok());
}

TEST_F(DefinitionsTest, OneThatCannotBeRefusesAll) {
  Apply(Shop());
  const auto field = [&](const Definitions& definitions) { return FieldOf(Refusal(definitions)); };
  Definitions bad;
  bad.queues = {QueueOf("a"), DyingInto("b", "none")};
  EXPECT_EQ(field(bad), "definitions.queues[1].dead_letter_queue");
  bad.queues = {DyingInto("a", "b"), DyingInto("b", "a")};
  EXPECT_EQ(field(bad), "definitions.queues[0].dead_letter_queue");
  // The circle closes through one that is there and not named.
  bad.queues = {DyingInto("failed", "orders")};
  EXPECT_EQ(field(bad), "definitions.queues[0].dead_letter_queue");
  // Leads into a circle without being part of it.
  bad.queues = {DyingInto("a", "b"), DyingInto("b", "c"), DyingInto("c", "b")};
  EXPECT_EQ(field(bad), "definitions.queues[0].dead_letter_queue");
  bad.queues = {QueueOf("a"), QueueOf("a")};
  EXPECT_EQ(field(bad), "definitions.queues[1]");
  bad.queues = {QueueOf("a")};
  bad.exchanges = {ExchangeOf("e", ExchangeType::kFanout, "none")};
  EXPECT_EQ(field(bad), "definitions.exchanges[0].alternate_exchange");
  bad.exchanges = {ExchangeOf("e", ExchangeType::kFanout, "e")};
  EXPECT_EQ(field(bad), "definitions.exchanges[0].alternate_exchange");
  bad.exchanges = {ExchangeOf("in", ExchangeType::kTopic)};
  EXPECT_EQ(field(bad), "definitions.exchanges[0].type");
  bad.exchanges = {ExchangeOf("e", ExchangeType::kFanout)};
  bad.bindings = {ToQueue("e", "none")};
  EXPECT_EQ(field(bad), "definitions.bindings[0].queue");
  bad.bindings = {ToQueue("none", "a")};
  EXPECT_EQ(field(bad), "definitions.bindings[0].exchange");
  bad.bindings = {ToExchange("e", "none")};
  EXPECT_EQ(field(bad), "definitions.bindings[0].to_exchange");
  bad.bindings = {ToExchange("e", "e")};
  EXPECT_EQ(field(bad), "definitions.bindings[0]");
  bad.bindings = {ToQueue("e", "a"), ToQueue("e", "a")};
  EXPECT_THAT(Apply(bad), ElementsAre("+queue a", "+exchange e", "+binding e -> a"));
}

TEST_F(DefinitionsTest, WithPruneNothingMayReferToWhatGoes) {
  Apply(Shop());
  Definitions bad;
  bad.queues = {DyingInto("orders", "failed")};
  EXPECT_EQ(ReasonOf(Refusal(bad, {.prune = true})), ErrorReason::kQueueNotFound);
  bad.queues = {QueueOf("orders")};
  // What stays as it is may refer to what goes, too.
  bad.exchanges = {ExchangeOf("in", ExchangeType::kDirect)};
  EXPECT_EQ(ReasonOf(Refusal(bad, {.prune = true})), ErrorReason::kQueueNotFound);
  bad.queues[0].dead_letter_queue = "";
  EXPECT_EQ(ReasonOf(Refusal(bad, {.prune = true})), ErrorReason::kExchangeNotFound);
  bad.exchanges[0].alternate_exchange = "";
  bad.bindings = {ToQueue("in", "failed")};
  EXPECT_EQ(ReasonOf(Refusal(bad, {.prune = true})), ErrorReason::kQueueNotFound);
}

TEST_F(DefinitionsTest, ACrashBeforeItIsDurableLeavesNothingOfIt) {
  testing::Reply<absl::StatusOr<std::vector<DefinitionChange>>> reply;
  shard_.Start(ApplyDefinitionsCommand{Shop(), false, false, reply.Done()});
  EXPECT_FALSE(reply.answered());
  EXPECT_EQ(shard_.pending_batches(), 1u);
  shard_.Crash();
  EXPECT_THAT(Everything(), IsEmpty());
}

TEST_F(DefinitionsTest, AnExportIsOfOneMomentAndKeepsToItsSize) {
  ASSERT_TRUE(ApplyRaw(Shop(), {}).ok());
  SubscribeCommand subscribe;
  subscribe.temporary_queue = std::make_unique<TemporaryQueueSpec>();
  subscribe.temporary_queue->config.name = "sluice.tmp.1";
  subscribe.temporary_queue->bindings = {ToQueue(Shop().exchanges[0].name, "sluice.tmp.1")};
  const auto sink = shard_.Subscribe(std::move(subscribe));
  const auto exported = [&](size_t bytes_max) {
    testing::Reply<absl::StatusOr<DefinitionsSnapshot>> reply;
    shard_.Run(ExportDefinitionsCommand{bytes_max, reply.Done()});
    EXPECT_EQ(reply.calls(), 1);
    return *reply;
  };
  const auto snapshot = exported(10'000);
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ(snapshot->queues.size(), Shop().queues.size()) << "without the temporary one";
  EXPECT_EQ(snapshot->exchanges.size(), Shop().exchanges.size());
  EXPECT_EQ(snapshot->bindings.size(), Shop().bindings.size());
  EXPECT_EQ(exported(10).status().code(), absl::StatusCode::kResourceExhausted);
}

// Also of a store whose bindings are older than today's rules for them.
TEST_F(DefinitionsTest, AnExportIsGoodToBeAppliedAgain) {
  Definitions exported;
  exported.queues = {QueueOf("a")};
  exported.exchanges = {ExchangeOf("t", ExchangeType::kTopic)};
  exported.bindings = {ToQueue("t", "a", "order.x")};
  ASSERT_TRUE(ApplyRaw(exported, {}).ok());
  shard_.RunUntilQuiet();
  const std::string stored = storage::EncodeBinding(exported.bindings[0]);
  exported.bindings[0].binding_key = "order*";
  for (auto& [key, value] : shard_.store().rows()) {
    if (value == stored) value = storage::EncodeBinding(exported.bindings[0]);
  }
  shard_.Crash();
  ASSERT_THAT(Everything(), ::testing::Contains("t>a:order*"));
  for (const bool prune : {false, true}) {
    EXPECT_THAT(Apply(exported, {.prune = prune}),
                ElementsAre("=queue a", "=exchange t", "=binding t -> a"));
  }
  Definitions more = exported;
  more.bindings.push_back(ToQueue("t", "a", "other*"));
  EXPECT_EQ(FieldOf(Refusal(more)), "definitions.bindings[1]") << "a new one is judged";
}

TEST_F(DefinitionsTest, NothingIsAppliedWhileDraining) {
  testing::Reply<int> drained;
  shard_.Run(DrainCommand{[done = drained.Done()] { done(0); }});
  EXPECT_EQ(ReasonOf(Refusal(Shop())), ErrorReason::kDraining);
}

}  // namespace
}  // namespace sluice::broker
