// Making, changing, listing and deleting queues.
#include <gtest/gtest.h>

#include "absl/strings/str_format.h"
#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::Reply;
using ::sluice::testing::ShardHarness;

std::vector<std::string> List(ShardHarness& shard, const std::string& glob,
                              const std::string& after = "", int32_t limit = 100,
                              bool* more = nullptr) {
  Reply<absl::StatusOr<ListQueuesOutcome>> reply;
  shard.Run(ListQueuesCommand{glob, after, limit, reply.Done()});
  std::vector<std::string> names;
  for (const auto& queue : (**reply).queues) names.push_back(queue.config.name);
  if (more) *more = (**reply).more;
  return names;
}

absl::StatusOr<QueueInfo> Update(ShardHarness& shard, QueueConfigChange change,
                                 bool replace = false, uint64_t if_revision = 0) {
  Reply<absl::StatusOr<QueueInfo>> reply;
  shard.Run(UpdateQueueCommand{std::move(change), replace, if_revision, reply.Done()});
  return *reply;
}

absl::Status Delete(ShardHarness& shard, const std::string& name, bool if_empty, bool if_unused,
                    uint64_t if_revision = 0) {
  Reply<absl::Status> reply;
  shard.Run(DeleteQueueCommand{name, if_empty, if_unused, if_revision, reply.Done()});
  return *reply;
}

TEST(Queues, CreateComparesOnlyWhatWasSetAndSurvivesACrash) {
  ShardHarness shard;
  QueueConfigChange config;
  config.name = "q";
  config.lease_ms = 5000;
  EXPECT_TRUE(shard.CreateQueue(config)->created);
  EXPECT_FALSE(shard.CreateQueue(config)->created);
  EXPECT_FALSE(shard.CreateQueue("q")->created);
  config.lease_ms = 6000;
  EXPECT_EQ(ReasonOf(shard.CreateQueue(config).status()), ErrorReason::kConfigConflict);
  config.name = "bad";
  config.min_backoff_ms = 10;
  config.max_backoff_ms = 5;
  EXPECT_EQ(shard.CreateQueue(config).status().code(), absl::StatusCode::kInvalidArgument);
  shard.Crash();
  EXPECT_EQ(shard.GetQueue("q").config.lease_ms, 5000);
  EXPECT_EQ(List(shard, ""), std::vector<std::string>{"q"});
}

TEST(Queues, ListsByNameGlobAndPage) {
  ShardHarness shard;
  for (const char* name : {"b", "a", "orders.eu", "orders.us", "c"}) {
    ASSERT_TRUE(shard.CreateQueue(name).ok());
  }
  using Names = std::vector<std::string>;
  EXPECT_EQ(List(shard, "orders.*"), (Names{"orders.eu", "orders.us"}));
  EXPECT_EQ(List(shard, "?"), (Names{"a", "b", "c"}));
  EXPECT_EQ(List(shard, "*u?"), (Names{"orders.us"}));
  bool more = false;
  EXPECT_EQ(List(shard, "", "", 2, &more), (Names{"a", "b"}));
  EXPECT_TRUE(more);
  EXPECT_EQ(List(shard, "", "b", 3, &more), (Names{"c", "orders.eu", "orders.us"}));
  EXPECT_FALSE(more);
}

TEST(Queues, UpdateChangesWhatIsSetOrReplacesAndHonoursTheRevision) {
  ShardHarness shard;
  QueueConfigChange config;
  config.name = "q";
  config.lease_ms = 5000;
  const auto created = shard.CreateQueue(config);
  ASSERT_TRUE(created.ok());
  const uint64_t first = created->queue.revision;
  QueueConfigChange change;
  change.name = "q";
  change.max_backoff_ms = 60'000;
  auto updated = Update(shard, change);
  ASSERT_TRUE(updated.ok());
  EXPECT_EQ(updated->config.lease_ms, 5000);
  EXPECT_EQ(updated->revision, first + 1);
  EXPECT_EQ(Update(shard, change)->revision, first + 1) << "nothing changed";
  EXPECT_EQ(ReasonOf(Update(shard, change, false, first).status()), ErrorReason::kEtagMismatch);
  updated = Update(shard, change, /*replace=*/true, first + 1);
  ASSERT_TRUE(updated.ok());
  EXPECT_EQ(updated->config.lease_ms, kLeaseMsDefault);
  change.name = "nowhere";
  EXPECT_EQ(ReasonOf(Update(shard, change).status()), ErrorReason::kQueueNotFound);
}

TEST(Queues, TheRevisionOfADeletedQueueIsNoneOfItsSuccessor) {
  ShardHarness shard;
  ASSERT_TRUE(shard.CreateQueue("q").ok());
  const uint64_t old = shard.GetQueue("q").revision;
  ASSERT_TRUE(Delete(shard, "q", false, false, old).ok());
  ASSERT_TRUE(shard.CreateQueue("q").ok());
  EXPECT_EQ(ReasonOf(Delete(shard, "q", false, false, old)), ErrorReason::kEtagMismatch);
  shard.Crash();
  EXPECT_EQ(ReasonOf(Delete(shard, "q", false, false, old)), ErrorReason::kEtagMismatch);
  EXPECT_TRUE(Delete(shard, "q", false, false, shard.GetQueue("q").revision).ok());
}

TEST(Queues, OneListingLooksAtABoundedNumberOfQueues) {
  ShardHarness shard;
  for (size_t i = 0; i <= kRowsScannedPerCallMax; ++i) {
    QueueConfigChange config;
    config.name = absl::StrFormat("q%06d", i);
    shard.Apply(CreateQueueCommand{config, [](const auto& outcome) { ASSERT_TRUE(outcome.ok()); }});
  }
  shard.RunUntilQuiet();
  Reply<absl::StatusOr<ListQueuesOutcome>> first;
  shard.Run(ListQueuesCommand{"*1000?", "", 100, first.Done()});
  ASSERT_TRUE((*first).ok());
  EXPECT_TRUE((*first)->queues.empty()) << "the one match lies behind the bound";
  EXPECT_TRUE((*first)->more);
  EXPECT_EQ((*first)->last_name, "q009999");
  bool more = true;
  EXPECT_EQ(List(shard, "*1000?", (*first)->last_name, 100, &more),
            std::vector<std::string>{"q010000"});
  EXPECT_FALSE(more);
}

TEST(Queues, DeleteHonoursItsConditionsAndNumbersAreNotUsedAgain) {
  ShardHarness shard;
  ASSERT_TRUE(shard.CreateQueue("q").ok());
  shard.Publish("q", {"1"});
  EXPECT_EQ(ReasonOf(Delete(shard, "q", true, false)), ErrorReason::kNotEmpty);
  EXPECT_EQ(ReasonOf(Delete(shard, "q", false, false, 9)), ErrorReason::kEtagMismatch);
  const auto sink = shard.Subscribe("q");
  EXPECT_EQ(ReasonOf(Delete(shard, "q", false, true)), ErrorReason::kInUse);
  shard.Close(sink);
  EXPECT_TRUE(Delete(shard, "q", false, true).ok());
  EXPECT_EQ(ReasonOf(Delete(shard, "q", false, false)), ErrorReason::kQueueNotFound);
  shard.Crash();
  ASSERT_TRUE(shard.CreateQueue("q").ok());
  EXPECT_EQ(shard.Stats("q").ready, 0) << "the messages of the deleted queue are back";
  shard.Publish("q", {"2"});
  EXPECT_EQ(shard.Receive("q", 5).size(), 1u);
}

}  // namespace
}  // namespace sluice::broker
