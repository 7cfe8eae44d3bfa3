// Time to live: an expired message is never delivered, and leaves whether or not anybody consumes.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::BodiesOf;
using ::sluice::testing::ShardHarness;
using ::sluice::testing::TestMessage;
using Bodies = std::vector<std::string>;

// The sweep works in batches; a message leaves this late at most, and is not delivered meanwhile.
constexpr int64_t kLagMs = 200;

class Expiry : public ::testing::Test {
 protected:
  Expiry() {
    QueueConfigChange config;
    config.name = "q";
    EXPECT_TRUE(shard_.CreateQueue(config).ok());
  }
  void CreateWithDlq(int64_t dlq_length = 0, int64_t ttl_ms = 0) {
    QueueConfigChange dlq;
    dlq.name = "dlq";
    dlq.max_length = dlq_length;
    ASSERT_TRUE(shard_.CreateQueue(dlq).ok());
    QueueConfigChange config;
    config.name = "source";
    config.dead_letter_queue = "dlq";
    config.ttl_ms = ttl_ms;
    config.min_backoff_ms = 0;
    config.max_backoff_ms = 0;
    ASSERT_TRUE(shard_.CreateQueue(config).ok());
  }
  static TestMessage Living(const std::string& body, int64_t ttl_ms) {
    TestMessage message{body};
    message.ttl_ms = ttl_ms;
    return message;
  }
  int64_t Left(const std::string& queue) {
    const QueueStats stats = shard_.Stats(queue);
    return stats.ready + stats.leased + stats.delayed + stats.blocked;
  }
  ShardHarness shard_;
};

TEST_F(Expiry, AMessageIsDeliveredUntilItsTimeAndNeverAfter) {
  shard_.Send("q", {Living("a", 1000)});
  shard_.Advance(999);
  EXPECT_EQ(BodiesOf(shard_.Receive("q")), Bodies{"a"});
  shard_.Send("q", {Living("b", 1000)});
  shard_.Advance(1000);
  const auto sink = shard_.Subscribe("q");
  EXPECT_EQ(sink->waiting(), 0u);
}

TEST_F(Expiry, LeavesWithoutConsumersAndIsCounted) {
  shard_.Send("q", {Living("a", 1000), {"b"}, Living("c", 5000)});
  shard_.Pass(1000 + kLagMs);
  EXPECT_EQ(Left("q"), 2);
  EXPECT_EQ(shard_.GetQueue("q").counters.expired, 1u);
  shard_.Pass(4000);
  EXPECT_EQ(Left("q"), 1);
  EXPECT_EQ(shard_.Drain("q"), Bodies{"b"});
}

TEST_F(Expiry, TheShorterOfTheQueuesAndTheMessagesTimeCounts) {
  CreateWithDlq(0, /*ttl_ms=*/10'000);
  shard_.Send("source", {{"queue"}, Living("shorter", 5000), Living("longer", 60'000)});
  shard_.Pass(5000 + kLagMs);
  EXPECT_EQ(shard_.ListBodies("dlq"), Bodies{"shorter"});
  shard_.Pass(5000);
  EXPECT_EQ(shard_.ListBodies("dlq"), (Bodies{"shorter", "queue", "longer"}));
}

TEST_F(Expiry, AChangeOfTheQueuesTimeConcernsLaterMessagesOnly) {
  shard_.Send("q", {{"before"}});
  QueueConfigChange change;
  change.name = "q";
  change.ttl_ms = 1000;
  ASSERT_TRUE(shard_.UpdateQueue(change).ok());
  shard_.Send("q", {{"after"}});
  shard_.Pass(2000);
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"before"});
}

TEST_F(Expiry, WhatIsLeasedMayBeSettledAndIsNotGrantedAgain) {
  shard_.Send("q", {Living("acked", 1000), Living("lost", 1000), Living("released", 1000)});
  const auto got = shard_.Receive("q", 3);
  shard_.Pass(2000);
  EXPECT_EQ(Left("q"), 3);
  EXPECT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  EXPECT_TRUE(shard_.Settle("q", got[2].receipt, SettleAction::kRelease).ok());
  EXPECT_EQ(Left("q"), 1);
  shard_.Pass(kLeaseMsDefault);
  EXPECT_EQ(Left("q"), 0);
  EXPECT_EQ(shard_.GetQueue("q").counters.expired, 2u);
  EXPECT_EQ(ReasonOf(shard_.Ack("q", got[1].receipt)), ErrorReason::kLeaseExpired);
}

TEST_F(Expiry, WhatWaitsForItsRetryExpiresMeanwhile) {
  shard_.Send("q", {Living("a", 1000)});
  const auto got = shard_.Receive("q");
  ASSERT_TRUE(shard_.Settle("q", got[0].receipt, SettleAction::kDelay, 60'000).ok());
  shard_.Pass(1000 + kLagMs);
  EXPECT_EQ(Left("q"), 0);
  EXPECT_EQ(shard_.Totals().open_messages, 0u);
}

TEST_F(Expiry, SurvivesRestartsAlsoWhatExpiredWhileTheServerWasDown) {
  shard_.Send("q", {Living("a", 1000), Living("b", 10'000), Living("c", 100'000)});
  shard_.Crash();
  shard_.Pass(1000 + kLagMs);
  EXPECT_EQ(Left("q"), 2);
  shard_.CleanStop(/*down_ms=*/20'000);
  shard_.Pass(kLagMs);
  EXPECT_EQ(Left("q"), 1);
  shard_.Crash();
  EXPECT_EQ(shard_.Drain("q"), Bodies{"c"});
}

TEST_F(Expiry, WhatWasLeasedWhenItExpiredLeavesAfterACrashToo) {
  for (const bool crash : {true, false}) {
    shard_.Send("q", {Living("a", 1000)});
    ASSERT_EQ(shard_.Receive("q").size(), 1u);
    shard_.Pass(5000);
    crash ? shard_.Crash() : shard_.CleanStop(2 * kLeaseMsDefault);
    shard_.Pass(kLagMs);
    EXPECT_EQ(Left("q"), 0) << crash;
  }
}

TEST_F(Expiry, ManyQueuesAndMoreThanOnePage) {
  for (int q = 0; q < 5; ++q) {
    const std::string name = "q" + std::to_string(q);
    ASSERT_TRUE(shard_.CreateQueue(name).ok());
    std::vector<TestMessage> messages;
    for (int i = 0; i < 1000; ++i) messages.push_back(Living("x", 1000 + i % 50));
    shard_.Send(name, messages);
    shard_.Send(name, {{"stays"}});
  }
  shard_.Pass(1050 + 2 * kLagMs);
  for (int q = 0; q < 5; ++q) {
    EXPECT_EQ(shard_.ListBodies("q" + std::to_string(q)), Bodies{"stays"});
  }
}

TEST_F(Expiry, SettledMessagesAreNotTouchedBySweeps) {
  shard_.Send("q", {Living("a", 1000), Living("b", 1000)});
  ASSERT_TRUE(shard_.Ack("q", shard_.Receive("q")[0].receipt).ok());
  ASSERT_TRUE(shard_.Purge("q", false).ok());
  shard_.Pass(5000);
  EXPECT_EQ(shard_.GetQueue("q").counters.expired, 0u);
  ASSERT_TRUE(shard_.CreateQueue("gone").ok());
  shard_.Send("gone", {Living("a", 1000)});
  ASSERT_TRUE(shard_.DeleteQueue("gone").ok());
  shard_.Pass(5000);
  EXPECT_TRUE(shard_.page_error().ok()) << shard_.page_error();
}

TEST_F(Expiry, AFullDeadLetterQueueIsNamedAsLongAsSomethingWaitsForIt) {
  CreateWithDlq(/*dlq_length=*/1);
  shard_.Send("dlq", {{"full"}});
  shard_.Send("source", {Living("a", 1000), Living("b", 1000), {"c"}});
  const auto named = [&] {
    const auto waiting = shard_.GetQueue("source").waiting;
    return std::count(waiting.begin(), waiting.end(), WaitReason::kDeadLetterQueueFull) > 0;
  };
  EXPECT_FALSE(named());
  shard_.Pass(2000);
  EXPECT_TRUE(named());
  for (int seconds = 0; seconds < 30; ++seconds) {
    shard_.Pass(1000);
    EXPECT_TRUE(named()) << "also while it is being tried again";
  }
  const auto listed = shard_.List("source");
  EditMessagesCommand command;
  command.queue = "source";
  command.action = EditMessagesCommand::Action::kDelete;
  command.positions = {listed.at(0).position};
  ASSERT_EQ(*shard_.Edit(std::move(command)), 1);
  shard_.Pass(10'000);
  EXPECT_TRUE(named()) << "one is left";
  command = EditMessagesCommand();
  command.queue = "source";
  command.action = EditMessagesCommand::Action::kDelete;
  command.positions = {listed.at(1).position};
  ASSERT_EQ(*shard_.Edit(std::move(command)), 1);
  shard_.Pass(10'000);
  EXPECT_FALSE(named());
  EXPECT_EQ(shard_.ListBodies("source"), Bodies{"c"});
}

TEST_F(Expiry, AFullDeadLetterQueueHoldsTheMessageAndItIsStillNotDelivered) {
  CreateWithDlq(/*dlq_length=*/1);
  shard_.Send("dlq", {{"full"}});
  shard_.Send("source", {Living("a", 1000), Living("b", 1000), {"c"}});
  shard_.Pass(2000);
  EXPECT_EQ(Left("source"), 3);
  EXPECT_EQ(shard_.GetQueue("source").waiting.back(), WaitReason::kDeadLetterQueueFull);
  const auto sink = shard_.Subscribe("source");
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"c"}) << "held, and in nobody's way";
  shard_.Crash();
  shard_.Pass(10'000);
  EXPECT_EQ(shard_.Drain("source"), Bodies{"c"});
  QueueConfigChange dlq;
  dlq.name = "dlq";
  dlq.max_length = 0;
  ASSERT_TRUE(shard_.UpdateQueue(dlq).ok());
  shard_.Pass(10'000);
  EXPECT_EQ(Left("source"), 0);
  EXPECT_EQ(shard_.ListBodies("dlq"), (Bodies{"full", "a", "b"}));
}

TEST_F(Expiry, WithoutConsumersAFullDeadLetterQueueIsTriedAgainAndTheAlarmEnds) {
  for (const bool crash : {false, true}) {
    if (!crash) CreateWithDlq(/*dlq_length=*/1);
    shard_.Send("dlq", {{"full"}});
    shard_.Send("source", {Living("a", 1000)});
    shard_.Pass(2000);
    EXPECT_EQ(Left("source"), 1);
    if (crash) shard_.Crash();
    shard_.Pass(6000);
    EXPECT_EQ(Left("source"), 1);
    ASSERT_TRUE(shard_.Purge("dlq", false).ok());
    shard_.Pass(6000);
    EXPECT_EQ(Left("source"), 0);
    EXPECT_EQ(shard_.Drain("dlq"), Bodies{"a"});
    EXPECT_TRUE(shard_.GetQueue("source").waiting.empty()) << "nothing waits for it any more";
  }
}

TEST_F(Expiry, WhatWaitsForRoomGoesAsSoonAsThereIsSome) {
  CreateWithDlq(/*dlq_length=*/1);
  shard_.Send("dlq", {{"first"}});
  shard_.Send("source", {Living("a", 1000), Living("b", 1000)});
  shard_.Pass(1000 + kLagMs);
  EXPECT_EQ(Left("source"), 2);
  for (int64_t left = 1; left >= 0; --left) {
    const auto got = shard_.Receive("dlq");
    ASSERT_EQ(got.size(), 1u);
    ASSERT_TRUE(shard_.Ack("dlq", got[0].receipt).ok());
    shard_.Pass(kLagMs);
    EXPECT_EQ(Left("source"), left);
  }
}

TEST_F(Expiry, ADelayedMessageThatExpiredBeforeItJoinedIsHeldForAFullDeadLetterQueue) {
  CreateWithDlq(/*dlq_length=*/1);
  shard_.Send("dlq", {{"full"}});
  TestMessage message = Living("a", 1000);
  message.delay_ms = 5000;
  shard_.Send("source", {message});
  shard_.CleanStop(/*down_ms=*/60'000);
  shard_.Pass(1000);
  EXPECT_EQ(Left("source"), 1);
  ASSERT_TRUE(shard_.Purge("dlq", false).ok());
  shard_.Pass(6000);
  EXPECT_EQ(Left("source"), 0);
  EXPECT_EQ(shard_.ListBodies("dlq"), Bodies{"a"});
}

TEST_F(Expiry, AMoveToTheDeadLetterQueueClearsTheTime) {
  CreateWithDlq(0, 1000);
  const auto ids = shard_.Send("source", {{"a"}});
  shard_.Pass(100'000);
  EXPECT_EQ(shard_.ListBodies("dlq"), Bodies{"a"});
  const auto found = shard_.GetMessage("dlq", ids[0]);
  ASSERT_TRUE(found.ok());
  ASSERT_TRUE(found->deaths);
  EXPECT_EQ(found->deaths->front().reason, DeathReason::kExpired);
  EXPECT_EQ(found->deaths->front().attempts, 0);
}

TEST_F(Expiry, ADeliveryThatExpiresWhileItWaitsForTheDiskGoesOutOrIsDeadNotBoth) {
  shard_.Send("q", {Living("a", 1000)});
  shard_.Crash();
  const auto sink = std::make_shared<::sluice::testing::RecordingSink>();
  SubscribeCommand command;
  command.queue = "q";
  command.sink = sink;
  shard_.Start(std::move(command));
  while (shard_.ServeReads()) {
  }
  shard_.Advance(1500);
  shard_.RunUntilQuiet();
  shard_.Pass(500);
  const auto got = sink->Take();
  EXPECT_EQ(shard_.Stats("q").leased, static_cast<int64_t>(got.size()));
}

}  // namespace
}  // namespace sluice::broker
