// Queues that go: with their stream, with the boot, or when nobody uses them.
#include <gtest/gtest.h>

#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::RecordingSink;
using ::sluice::testing::Reply;
using ::sluice::testing::ShardHarness;

constexpr char kName[] = "sluice.tmp.0";

class TemporaryQueues : public ::testing::Test {
 protected:
  std::shared_ptr<RecordingSink> Start(const std::string& name = kName) {
    SubscribeCommand command;
    command.temporary_queue = std::make_unique<TemporaryQueueSpec>();
    command.temporary_queue->config.name = name;
    return shard_.StartSubscribe(std::move(command));
  }
  bool Exists(const std::string& name) {
    Reply<absl::StatusOr<QueueInfo>> reply;
    shard_.Run(GetQueueCommand{name, reply.Done()});
    return (*reply).ok();
  }
  void CreateIdle(const std::string& name, int64_t idle_expiry_ms) {
    QueueConfigChange config;
    config.name = name;
    config.idle_expiry_ms = idle_expiry_ms;
    ASSERT_TRUE(shard_.CreateQueue(config).ok());
  }
  ShardHarness shard_;
};

TEST_F(TemporaryQueues, LivesWithItsStreamAndIsToldOnlyWhenDurable) {
  const auto sink = Start();
  EXPECT_FALSE(sink->started);
  shard_.RunUntilQuiet();
  ASSERT_TRUE(sink->started);
  EXPECT_EQ(sink->started->queue, kName);
  shard_.Publish(kName, {"a"});
  EXPECT_EQ(sink->waiting(), 1u);
  shard_.Close(sink);
  EXPECT_FALSE(Exists(kName));
  EXPECT_EQ(shard_.Totals().open_messages, 0u);
}

TEST_F(TemporaryQueues, GoesWithTheBoot) {
  Start();
  shard_.RunUntilQuiet();
  shard_.Publish(kName, {"a"});
  shard_.Crash();
  EXPECT_FALSE(Exists(kName));
  Start();
  shard_.RunUntilQuiet();
  shard_.CleanStop();
  EXPECT_FALSE(Exists(kName));
  EXPECT_EQ(shard_.Totals().queues, 0u);
}

TEST_F(TemporaryQueues, AQueueThatSomebodyWaitsForIsNotIdle) {
  QueueConfigChange config;
  config.name = "q";
  config.idle_expiry_ms = 10'000;
  config.max_length = 1;
  ASSERT_TRUE(shard_.CreateQueue(config).ok());
  shard_.Publish("q", {"a"});
  broker::Publish publish = testing::MakePublish("q", {{"b"}});
  publish.wait_when_full_ms = 60'000;
  const auto waits = shard_.StartPublish(std::move(publish));
  shard_.Pass(59'000);
  ASSERT_TRUE(Exists("q"));
  ASSERT_TRUE(shard_.Purge("q", false).ok());
  ASSERT_TRUE(waits.answered());
  EXPECT_TRUE((*waits).ok());
  shard_.Pass(21'000);
  EXPECT_FALSE(Exists("q"));
}

TEST_F(TemporaryQueues, ANameThatIsTakenAndAnUnknownExchangeAreRefused) {
  Start();
  const auto second = Start();
  ASSERT_TRUE(second->end);
  EXPECT_EQ(ReasonOf(*second->end), ErrorReason::kConfigConflict);
  SubscribeCommand command;
  command.temporary_queue = std::make_unique<TemporaryQueueSpec>();
  command.temporary_queue->config.name = "sluice.tmp.1";
  command.temporary_queue->bindings.push_back({.exchange = "nowhere", .queue = "sluice.tmp.1"});
  const auto third = shard_.Subscribe(std::move(command));
  ASSERT_TRUE(third->end);
  EXPECT_EQ(ReasonOf(*third->end), ErrorReason::kExchangeNotFound);
  EXPECT_FALSE(Exists("sluice.tmp.1"));
}

TEST_F(TemporaryQueues, AStreamThatClosesBeforeItsQueueIsDurableLeavesNothing) {
  const auto sink = Start();
  shard_.Start(CloseSubscriptionCommand{sink, {}});
  shard_.RunUntilQuiet();
  EXPECT_FALSE(sink->started);
  EXPECT_FALSE(Exists(kName));
}

TEST_F(TemporaryQueues, AnIdleQueueGoesOnTimeWithWhatItHolds) {
  CreateIdle("q", 10'000);
  shard_.Pass(9'999);
  shard_.Publish("q", {"a"});
  shard_.Pass(9'999);
  EXPECT_EQ(shard_.Totals().queues, 1u);
  shard_.Pass(2);
  EXPECT_FALSE(Exists("q"));
  shard_.Crash();
  EXPECT_FALSE(Exists("q"));
}

TEST_F(TemporaryQueues, ConsumersAndSettlesAreUses) {
  CreateIdle("q", 10'000);
  shard_.Publish("q", {"a"});
  auto sink = shard_.Subscribe("q");
  const auto got = sink->Take();
  shard_.Pass(25'000);
  EXPECT_EQ(shard_.Totals().queues, 1u);
  shard_.Close(sink);
  shard_.Pass(8000);
  shard_.Ack("q", got[0].receipt).IgnoreError();
  shard_.Pass(8000);
  EXPECT_EQ(shard_.Totals().queues, 1u);
  shard_.Pass(2001);
  EXPECT_EQ(shard_.Totals().queues, 0u);
}

TEST_F(TemporaryQueues, ARestartStartsTheTimeAgainAndAReferredOneStays) {
  CreateIdle("q", 10'000);
  shard_.Pass(9'000);
  shard_.Crash();
  shard_.Pass(9'999);
  EXPECT_EQ(shard_.Totals().queues, 1u);
  QueueConfigChange config;
  config.name = "source";
  config.dead_letter_queue = "q";
  ASSERT_TRUE(shard_.CreateQueue(config).ok());
  // Also: an idle queue that has to stay is not looked at every millisecond.
  shard_.Pass(1'000'000);
  EXPECT_TRUE(Exists("q"));
  ASSERT_TRUE(shard_.DeleteQueue("source").ok());
  shard_.Pass(20'001);
  EXPECT_EQ(shard_.Totals().queues, 0u);
}

}  // namespace
}  // namespace sluice::broker
