// Dead letters: what goes there, what they tell, and what happens when there is no room.
#include <gtest/gtest.h>

#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::BodiesOf;
using ::sluice::testing::Reply;
using ::sluice::testing::ShardHarness;
using ::sluice::testing::TestMessage;
using Bodies = std::vector<std::string>;

class DeadLetters : public ::testing::Test {
 protected:
  void Create(int32_t max_attempts, int64_t dlq_length = 0,
              Overflow overflow = Overflow::kReject) {
    QueueConfigChange dlq;
    dlq.name = "dlq";
    dlq.max_length = dlq_length;
    dlq.overflow = overflow;
    ASSERT_TRUE(shard_.CreateQueue(dlq).ok());
    QueueConfigChange config;
    config.name = "q";
    config.dead_letter_queue = "dlq";
    config.max_attempts = max_attempts;
    config.min_backoff_ms = 0;
    config.max_backoff_ms = 0;
    const auto created = shard_.CreateQueue(config);
    ASSERT_TRUE(created.ok()) << created.status();
  }
  void Reject(int count) {
    for (const auto& delivery : shard_.Receive("q", count)) {
      ASSERT_TRUE(shard_.Settle("q", delivery.receipt, SettleAction::kDeadLetter).ok());
    }
  }
  int64_t Left(const std::string& queue) {
    const QueueStats stats = shard_.Stats(queue);
    return stats.ready + stats.leased + stats.delayed + stats.blocked;
  }
  ShardHarness shard_;
};

TEST_F(DeadLetters, TheLastAttemptIsTheOneThatCounts) {
  for (const int32_t max_attempts : {1, 2, 5}) {
    ShardHarness shard;
    ASSERT_TRUE(shard.CreateQueue("dlq").ok());
    QueueConfigChange config;
    config.name = "q";
    config.dead_letter_queue = "dlq";
    config.max_attempts = max_attempts;
    config.min_backoff_ms = 0;
    config.max_backoff_ms = 0;
    ASSERT_TRUE(shard.CreateQueue(config).ok());
    const auto ids = shard.Send("q", {{"a", 7}});
    for (int32_t attempt = 1; attempt <= max_attempts; ++attempt) {
      EXPECT_EQ(shard.Stats("dlq").ready, 0);
      const auto got = shard.Receive("q");
      ASSERT_EQ(got.size(), 1u);
      EXPECT_EQ(got[0].attempt, attempt);
      if (attempt % 2 == 0) {
        shard.Pass(kLeaseMsDefault);
      } else {
        ASSERT_TRUE(shard.Settle("q", got[0].receipt, SettleAction::kRetry).ok());
      }
    }
    EXPECT_TRUE(shard.Receive("q").empty());
    const auto dead = shard.Receive("dlq");
    ASSERT_EQ(dead.size(), 1u);
    EXPECT_EQ(dead[0].attempt, 1);
    ASSERT_TRUE(dead[0].deaths);
    ASSERT_EQ(dead[0].deaths->size(), 1u);
    const Death& death = dead[0].deaths->front();
    EXPECT_EQ(death.queue, "q");
    EXPECT_EQ(death.reason, DeathReason::kAttempts);
    EXPECT_EQ(death.attempts, max_attempts);
    EXPECT_EQ(death.count, 1);
    EXPECT_EQ(shard.List("dlq")[0].position.lane, LaneOfPriority(7)) << "its priority stays";
    EXPECT_TRUE(shard.GetMessage("dlq", ids[0]).ok()) << "its id stays";
    EXPECT_EQ(shard.GetQueue("q").counters.dead_lettered, 1u);
  }
}

TEST_F(DeadLetters, ReleaseAndACrashAreNotAttempts) {
  Create(1);
  shard_.Send("q", {{"a"}});
  auto got = shard_.Receive("q");
  ASSERT_TRUE(shard_.Settle("q", got[0].receipt, SettleAction::kRelease).ok());
  ASSERT_EQ(shard_.Receive("q").size(), 1u);
  shard_.Crash();
  got = shard_.Receive("q");
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].attempt, 1);
  ASSERT_TRUE(shard_.Settle("q", got[0].receipt, SettleAction::kDelay, 1).ok());
  EXPECT_EQ(Left("dlq"), 1);
}

TEST_F(DeadLetters, ARejectedMessageTellsWhy) {
  Create(5);
  shard_.Send("q", {{"a"}});
  const auto got = shard_.Receive("q");
  SettleItem item{got[0].receipt, SettleAction::kDeadLetter};
  item.reason = "no such customer";
  Reply<absl::StatusOr<SettleOutcome>> reply;
  shard_.Run(SettleCommand{"q", {item}, reply.Done()});
  const auto dead = shard_.Receive("dlq");
  ASSERT_EQ(dead.size(), 1u);
  EXPECT_EQ(dead[0].deaths->front().reason, DeathReason::kRejected);
  EXPECT_EQ(dead[0].deaths->front().detail, "no such customer");
  EXPECT_EQ(dead[0].deaths->front().attempts, 1);
  EXPECT_EQ(ReasonOf(shard_.Ack("q", got[0].receipt)), ErrorReason::kLeaseExpired);
  shard_.Pass(10 * kMinuteMs);
  EXPECT_TRUE(shard_.Ack("q", got[0].receipt).ok()) << "forgotten by now";
}

TEST_F(DeadLetters, WithoutADeadLetterQueueItIsDropped) {
  QueueConfigChange config;
  config.name = "q";
  config.max_attempts = 1;
  EXPECT_EQ(ReasonOf(shard_.CreateQueue(config).status()), ErrorReason::kInvalidField);
  config.discard_when_exhausted = true;
  ASSERT_TRUE(shard_.CreateQueue(config).ok());
  shard_.Send("q", {{"a"}, {"b"}});
  const auto got = shard_.Receive("q", 2);
  ASSERT_TRUE(shard_.Settle("q", got[0].receipt, SettleAction::kRetry).ok());
  ASSERT_TRUE(shard_.Settle("q", got[1].receipt, SettleAction::kDeadLetter).ok());
  EXPECT_EQ(Left("q"), 0);
  EXPECT_EQ(shard_.GetQueue("q").counters.discarded, 2u);
}

TEST_F(DeadLetters, ConfigsThatCannotEndAreRefused) {
  Create(0);
  QueueConfigChange change;
  change.name = "dlq";
  change.dead_letter_queue = "q";
  EXPECT_FALSE(shard_.UpdateQueue(change).ok());
  change.dead_letter_queue = "dlq";
  EXPECT_FALSE(shard_.UpdateQueue(change).ok());
  change.dead_letter_queue = "nowhere";
  EXPECT_EQ(ReasonOf(shard_.UpdateQueue(change).status()), ErrorReason::kQueueNotFound);
  EXPECT_EQ(ReasonOf(shard_.DeleteQueue("dlq")), ErrorReason::kInUse);
  ASSERT_TRUE(shard_.DeleteQueue("q").ok());
  EXPECT_TRUE(shard_.DeleteQueue("dlq").ok());
}

TEST_F(DeadLetters, TheMoveIsOneBatchWhateverStopsInTheMiddle) {
  for (int commits = 0; commits < 5; ++commits) {
    ShardHarness shard;
    ASSERT_TRUE(shard.CreateQueue("dlq").ok());
    QueueConfigChange config;
    config.name = "q";
    config.dead_letter_queue = "dlq";
    ASSERT_TRUE(shard.CreateQueue(config).ok());
    shard.Send("q", {{"a"}});
    const auto got = shard.Receive("q");
    const auto reply = shard.StartSettle("q", got[0].receipt, SettleAction::kDeadLetter);
    for (int i = 0; i < commits; ++i) {
      shard.Commit();
      shard.ServeReads();
    }
    const bool answered = reply.answered();
    shard.Crash();
    shard.Pass(1000);
    Bodies all = shard.Drain("q");
    EXPECT_TRUE(!answered || all.empty()) << "a settled message comes back";
    for (const std::string& body : shard.Drain("dlq")) all.push_back(body);
    EXPECT_EQ(all, Bodies{"a"}) << commits;
  }
}

TEST_F(DeadLetters, AFullDeadLetterQueueMakesThemWaitInOrder) {
  Create(0, /*dlq_length=*/2);
  shard_.Send("q", {{"0"}, {"1"}, {"2"}, {"3"}, {"4"}});
  Reject(5);
  EXPECT_EQ(shard_.ListBodies("dlq"), (Bodies{"0", "1"}));
  EXPECT_EQ(Left("q"), 3);
  const auto waiting = shard_.List("q");
  ASSERT_EQ(waiting.size(), 3u);
  EXPECT_EQ(waiting[0].state, MessageState::kBlocked);
  EXPECT_EQ(waiting[0].waiting, WaitReason::kDeadLetterQueueFull);
  EXPECT_TRUE(shard_.Receive("q", 5).empty()) << "they are never granted again";
  shard_.Crash();
  shard_.Pass(10'000);
  EXPECT_TRUE(shard_.Receive("q", 5).empty());
  EXPECT_EQ(Left("q"), 3);
  Bodies dead;
  for (int i = 0; i < 5; ++i) {
    const auto got = shard_.Receive("dlq");
    ASSERT_EQ(got.size(), 1u) << i;
    dead.push_back(BodiesOf(got)[0]);
    ASSERT_TRUE(shard_.Ack("dlq", got[0].receipt).ok());
  }
  EXPECT_EQ(dead, (Bodies{"0", "1", "2", "3", "4"}));
  EXPECT_EQ(Left("q"), 0);
  EXPECT_TRUE(shard_.GetQueue("q").waiting.empty());
  EXPECT_EQ(shard_.Totals().open_messages, 0u);
}

TEST_F(DeadLetters, AQueueOfWhichNoneWaitsAnyMoreDoesNotSayThatTheDeadLetterQueueIsFull) {
  Create(0, /*dlq_length=*/1);
  shard_.Send("dlq", {{"full"}});
  shard_.Send("q", {{"0"}, {"1"}});
  Reject(2);
  const std::vector<WaitReason> full{WaitReason::kDeadLetterQueueFull};
  EXPECT_EQ(shard_.GetQueue("q").waiting, full);
  for (const auto& message : shard_.List("q")) {
    EXPECT_EQ(shard_.GetQueue("q").waiting, full);
    EditMessagesCommand command;
    command.queue = "q";
    command.action = EditMessagesCommand::Action::kDelete;
    command.positions = {message.position};
    ASSERT_EQ(*shard_.Edit(std::move(command)), 1);
  }
  EXPECT_TRUE(shard_.GetQueue("q").waiting.empty());
  shard_.Send("q", {{"2"}});
  Reject(1);
  EXPECT_EQ(shard_.GetQueue("q").waiting, full) << "said again when it is so again";
}

TEST_F(DeadLetters, OneThatDoesNotFitHoldsUpNoSmallerOnes) {
  QueueConfigChange dlq;
  dlq.name = "dlq";
  dlq.max_bytes = 600;
  ASSERT_TRUE(shard_.CreateQueue(dlq).ok());
  QueueConfigChange config;
  config.name = "q";
  config.dead_letter_queue = "dlq";
  ASSERT_TRUE(shard_.CreateQueue(config).ok());
  shard_.Send("dlq", {{std::string(200, 'f')}});
  shard_.Send("q", {{std::string(500, 'l'), 9}, {"small", 5}, {"smaller", 1}});
  SettleCommand reject;  // all in one turn
  reject.queue = "q";
  reject.done = [](auto) {};
  for (const auto& delivery : shard_.Receive("q", 3)) {
    reject.items.push_back({delivery.receipt, SettleAction::kDeadLetter});
  }
  shard_.Run(std::move(reject));
  EXPECT_EQ(Left("dlq"), 3);
  EXPECT_EQ(Left("q"), 1);
  ASSERT_TRUE(shard_.Purge("dlq", true).ok());
  shard_.RunUntilQuiet();
  EXPECT_EQ(Left("q"), 0);
}

TEST_F(DeadLetters, WhatWaitsForItsMoveCanStillBeAckedDeletedAndPurged) {
  Create(0, /*dlq_length=*/1);
  shard_.Send("dlq", {{"full"}});
  shard_.Send("q", {{"acked"}, {"deleted"}, {"purged"}});
  const auto got = shard_.Receive("q", 3);
  for (const auto& delivery : got) {
    ASSERT_TRUE(shard_.Settle("q", delivery.receipt, SettleAction::kDeadLetter).ok());
  }
  EXPECT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  EditMessagesCommand edit;
  edit.queue = "q";
  edit.positions = {got[1].receipt.position};
  EXPECT_EQ(*shard_.Edit(std::move(edit)), 1);
  EXPECT_EQ(*shard_.Purge("q", false), 1);
  EXPECT_EQ(Left("q"), 0);
  ASSERT_TRUE(shard_.Purge("dlq", false).ok());
  shard_.Pass(10'000);
  EXPECT_EQ(Left("dlq"), 0);
  EXPECT_TRUE(shard_.GetQueue("q").waiting.empty());
}

TEST_F(DeadLetters, ADeadLetterQueueThatDropsItsHeadTakesThemAll) {
  Create(0, /*dlq_length=*/3, Overflow::kDropHead);
  std::vector<TestMessage> messages;
  for (int i = 0; i < 20; ++i) messages.push_back({std::to_string(i)});
  shard_.Send("q", messages);
  Reject(10);
  shard_.Crash();
  Reject(10);
  shard_.Pass(100);
  EXPECT_EQ(Left("q"), 0);
  EXPECT_EQ(shard_.ListBodies("dlq"), (Bodies{"17", "18", "19"}));
}

TEST_F(DeadLetters, AHeadThatComesBackFromItsConsumerIsDropped) {
  Create(0, /*dlq_length=*/1, Overflow::kDropHead);
  shard_.Send("dlq", {{"held"}});
  const auto held = shard_.Receive("dlq");
  ASSERT_EQ(held.size(), 1u);
  shard_.Send("q", {{"0"}});
  Reject(1);
  EXPECT_EQ(Left("q"), 1) << "what is leased is not dropped";
  ASSERT_TRUE(shard_.Settle("dlq", held[0].receipt, SettleAction::kRelease).ok());
  shard_.RunUntilQuiet();
  EXPECT_EQ(shard_.ListBodies("dlq"), Bodies{"0"});
}

TEST_F(DeadLetters, AGroupGoesOnWhenItsDeadMessageHasMoved) {
  Create(2, /*dlq_length=*/1);
  shard_.Send("q", {{"a0", 4, "g"}, {"a1", 4, "g"}, {"a2", 4, "g"}});
  const auto sink = shard_.Subscribe("q");
  const auto fail = [&] {
    const auto got = sink->Take();
    ASSERT_EQ(got.size(), 1u);
    ASSERT_TRUE(shard_.Settle("q", got[0].receipt, SettleAction::kRetry).ok());
  };
  fail();
  fail();
  EXPECT_EQ(shard_.ListBodies("dlq"), Bodies{"a0"});
  fail();
  fail();
  EXPECT_EQ(sink->waiting(), 0u) << "a1 waits for room and is not settled";
  ASSERT_TRUE(shard_.Purge("dlq", false).ok());
  shard_.RunUntilQuiet();
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"a2"});
}

TEST_F(DeadLetters, ChainsOfDeadLetterQueuesKeepTheWholeStory) {
  ASSERT_TRUE(shard_.CreateQueue("last").ok());
  QueueConfigChange config;
  config.name = "dlq";
  config.dead_letter_queue = "last";
  ASSERT_TRUE(shard_.CreateQueue(config).ok());
  config.name = "q";
  config.dead_letter_queue = "dlq";
  ASSERT_TRUE(shard_.CreateQueue(config).ok());
  shard_.Send("q", {{"a", 4, "g"}});
  Reject(1);
  const auto dead = shard_.Receive("dlq");
  ASSERT_EQ(dead.size(), 1u);
  ASSERT_TRUE(shard_.Settle("dlq", dead[0].receipt, SettleAction::kDeadLetter).ok());
  const auto last = shard_.Receive("last");
  ASSERT_EQ(last.size(), 1u);
  ASSERT_EQ(last[0].deaths->size(), 2u);
  EXPECT_EQ((*last[0].deaths)[0].queue, "dlq");
  EXPECT_EQ((*last[0].deaths)[1].queue, "q");
  shard_.Crash();
  EXPECT_EQ(shard_.Receive("last")[0].deaths->size(), 2u);
}

TEST_F(DeadLetters, ANewDeadLetterQueueTakesWhatWaited) {
  Create(0, /*dlq_length=*/1);
  shard_.Send("dlq", {{"full"}});
  shard_.Send("q", {{"a"}});
  Reject(1);
  EXPECT_EQ(Left("q"), 1);
  ASSERT_TRUE(shard_.CreateQueue("other").ok());
  QueueConfigChange change;
  change.name = "q";
  change.dead_letter_queue = "other";
  ASSERT_TRUE(shard_.UpdateQueue(change).ok());
  EXPECT_EQ(shard_.ListBodies("other"), Bodies{"a"});
  EXPECT_EQ(Left("q"), 0);
}

TEST_F(DeadLetters, ManyMoveInBoundedSteps) {
  Create(1);
  for (int i = 0; i < 5; ++i) {
    shard_.Send("q", std::vector<TestMessage>(1000, TestMessage{std::string(1000, 'x')}));
  }
  SubscribeCommand command;
  command.queue = "q";
  command.max_in_flight = kMaxInFlightCeiling;
  command.max_bytes_in_flight = kMaxBytesInFlightCeiling;
  const auto sink = shard_.Subscribe(std::move(command));
  EXPECT_EQ(shard_.TakeWritten(sink), 5000u);
  shard_.Close(sink);
  EXPECT_EQ(Left("q"), 0);
  EXPECT_EQ(Left("dlq"), 5000);
}

}  // namespace
}  // namespace sluice::broker
