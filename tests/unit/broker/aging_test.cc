// Priority aging: low priorities are not starved.
#include <gtest/gtest.h>

#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::BodiesOf;
using ::sluice::testing::ShardHarness;
using Bodies = std::vector<std::string>;

class Aging : public ::testing::Test {
 protected:
  Aging() {
    QueueConfigChange config;
    config.name = "q";
    config.priority_aging_ms = 1000;
    EXPECT_TRUE(shard_.CreateQueue(config).ok());
  }
  std::string Next() {
    const auto got = shard_.Receive("q");
    if (got.empty()) return "";
    EXPECT_TRUE(shard_.Ack("q", got[0].receipt).ok());
    return BodiesOf(got)[0];
  }
  ShardHarness shard_;
};

TEST_F(Aging, AMessageCountsAsOnePriorityMoreForEachPeriod) {
  shard_.Publish("q", {"low"}, 2);
  shard_.Advance(1999);
  shard_.Publish("q", {"high"}, 4);
  EXPECT_EQ(Next(), "high");
  shard_.Publish("q", {"high"}, 4);
  shard_.Advance(1);
  EXPECT_EQ(Next(), "low") << "as high by now, and older";
}

TEST_F(Aging, WithoutItPrioritiesAreStrict) {
  QueueConfigChange change;
  change.name = "q";
  change.priority_aging_ms = 0;
  ASSERT_TRUE(shard_.UpdateQueue(change).ok());
  shard_.Publish("q", {"low"}, 0);
  shard_.Advance(1'000'000);
  shard_.Publish("q", {"high"}, 1);
  EXPECT_EQ(Next(), "high");
}

// Whether a message of priority 0 gets through a stream of 9s.
bool GetsThrough(ShardHarness& shard) {
  for (int i = 0; i < 100; ++i) {
    shard.Publish("q", {"high"}, 9);
    const auto got = shard.Receive("q");
    if (got.empty() || !shard.Ack("q", got[0].receipt).ok()) return false;
    if (BodiesOf(got)[0] == "low") return true;
    shard.Advance(1000);
  }
  return false;
}

TEST_F(Aging, NothingStarvesBehindTheHighestPriority) {
  shard_.Publish("q", {"low"}, 0);
  shard_.Publish("q", {"high"}, 9);
  EXPECT_TRUE(GetsThrough(shard_));
}

TEST_F(Aging, WhatIsOnlyOnDiskAgesToo) {
  shard_.Publish("q", {"low"}, 0);
  shard_.Publish("q", {"high"}, 9);
  shard_.Crash();
  EXPECT_TRUE(GetsThrough(shard_));
}

// More than its group keeps in memory: found by the group's index, and not read yet.
TEST_F(Aging, ALongGroupAgesToItsEnd) {
  std::vector<::sluice::testing::TestMessage> low;
  for (int i = 0; i < 100; ++i) low.push_back({"low", 0, "g"});
  shard_.Send("q", low);
  for (int taken = 0; taken < 70; ++taken) ASSERT_EQ(Next(), "low");
  shard_.Publish("q", {"high"}, 9);
  EXPECT_TRUE(GetsThrough(shard_));
}

TEST_F(Aging, ADelayedMessageAgesFromWhenItIsDueAlsoAfterACrash) {
  ::sluice::testing::TestMessage low{"low", 2};
  low.delay_ms = 100'000;
  for (const bool crash : {false, true}) {
    shard_.Send("q", {low});
    shard_.Pass(100'000);
    if (crash) shard_.Crash();
    EXPECT_LT(shard_.Stats("q").oldest_ready_age_ms, 1000);
    shard_.Pass(1000);
    shard_.Publish("q", {"high"}, 4);
    EXPECT_EQ(Next(), "high");
    EXPECT_EQ(Next(), "low");
  }
}

TEST_F(Aging, GroupsKeepTheirOrder) {
  shard_.Send("q", {{"a0", 0, "g"}, {"a1", 0, "g"}, {"b", 5}});
  shard_.Advance(5000);
  EXPECT_EQ(Next(), "b");
  shard_.Publish("q", {"c"}, 5);
  EXPECT_EQ(Next(), "a0");
  EXPECT_EQ(Next(), "a1");
  EXPECT_EQ(Next(), "c");
}

}  // namespace
}  // namespace sluice::broker
