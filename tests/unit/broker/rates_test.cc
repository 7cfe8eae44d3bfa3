// Pace of deliveries, and pause.
#include <gtest/gtest.h>

#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::RecordingSink;
using ::sluice::testing::ShardHarness;

class Rates : public ::testing::Test {
 protected:
  void Create(RateLimit rate) {
    QueueConfigChange config;
    config.name = "q";
    config.delivery_rate = rate;
    ASSERT_TRUE(shard_.CreateQueue(config).ok());
    shard_.Publish("q", std::vector<std::string>(100, "x"));
  }
  std::shared_ptr<RecordingSink> Subscribe(RateLimit rate = {}) {
    SubscribeCommand command;
    command.queue = "q";
    command.delivery_rate = rate;
    command.lease_ms = kLeaseMsMax;
    return shard_.Subscribe(std::move(command));
  }
  ShardHarness shard_;
};

TEST_F(Rates, TheQueuesRateIsSharedByItsConsumers) {
  Create({10, 5});
  const auto a = Subscribe();
  const auto b = Subscribe();
  EXPECT_EQ(a->waiting() + b->waiting(), 5u);
  EXPECT_EQ(shard_.GetQueue("q").waiting.front(), WaitReason::kRateLimited);
  shard_.Pass(99);
  EXPECT_EQ(a->waiting() + b->waiting(), 5u);
  shard_.Pass(1);
  EXPECT_EQ(a->waiting() + b->waiting(), 6u);
  shard_.Pass(2000);
  EXPECT_EQ(a->waiting() + b->waiting(), 26u);
  EXPECT_GT(b->waiting(), 5u);
}

TEST_F(Rates, AConsumersRateHoldsUpNobodyElse) {
  Create({});
  const auto slow = Subscribe({1, 2});
  EXPECT_EQ(slow->waiting(), 2u);
  shard_.Pass(3000);
  EXPECT_EQ(slow->waiting(), 5u);
  const auto fast = Subscribe();
  EXPECT_EQ(fast->waiting(), 95u);
}

TEST_F(Rates, ANewRateHoldsAtOnce) {
  Create({0.001, 1});
  const auto sink = Subscribe();
  EXPECT_EQ(sink->waiting(), 1u);
  QueueConfigChange change;
  change.name = "q";
  change.delivery_rate = RateLimit{};
  ASSERT_TRUE(shard_.UpdateQueue(change).ok());
  EXPECT_EQ(sink->waiting(), 100u);
}

TEST_F(Rates, AConsumerThatLeavesWhileItWaitsForATokenIsForgotten) {
  Create({1, 1});
  auto sink = Subscribe({1, 1});
  shard_.Close(sink);
  sink = Subscribe({1, 1});
  shard_.Pass(10'000);
  EXPECT_LE(sink->waiting(), 11u);
  EXPECT_GE(sink->waiting(), 10u);
  ASSERT_TRUE(shard_.DeleteQueue("q").ok());
  shard_.Pass(10'000);
}

TEST_F(Rates, AReceiveWaitsForTheRateToo) {
  Create({1, 1});
  EXPECT_EQ(shard_.Receive("q", 10).size(), 1u);
  EXPECT_EQ(shard_.Receive("q", 10).size(), 0u);
  shard_.Pass(1000);
  EXPECT_EQ(shard_.Receive("q", 10).size(), 1u);
}

TEST_F(Rates, APausedQueueTakesAndSettlesAndDeliversNothing) {
  Create({});
  const auto sink = shard_.Subscribe("q", 3);
  const auto got = sink->Take();
  shard_.Pause("q");
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  shard_.Publish("q", {"more"});
  EXPECT_TRUE(shard_.Receive("q").empty());
  EXPECT_EQ(sink->waiting(), 0u);
  EXPECT_EQ(shard_.GetQueue("q").waiting.front(), WaitReason::kPaused);
  shard_.Crash();
  EXPECT_TRUE(shard_.GetQueue("q").paused) << "also after a crash";
  const auto again = shard_.Subscribe("q", 3);
  EXPECT_EQ(again->waiting(), 0u);
  shard_.Pause("q", false);
  EXPECT_EQ(again->waiting(), 3u);
}

}  // namespace
}  // namespace sluice::broker
