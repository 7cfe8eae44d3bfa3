// Message groups in queues: order, one at a time, retries, depth, restarts.
#include <gtest/gtest.h>

#include <map>

#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::BodiesOf;
using ::sluice::testing::BodyOf;
using ::sluice::testing::GroupHash;
using ::sluice::testing::RecordingSink;
using ::sluice::testing::ShardHarness;
using ::sluice::testing::TestMessage;
using Bodies = std::vector<std::string>;

std::vector<TestMessage> OfGroup(const std::string& group, int from, int to, int priority = 4) {
  std::vector<TestMessage> messages;
  for (int i = from; i < to; ++i) {
    messages.push_back({group + std::to_string(i), priority, group});
  }
  return messages;
}
Bodies Names(const std::string& group, int from, int to) {
  Bodies bodies;
  for (int i = from; i < to; ++i) bodies.push_back(group + std::to_string(i));
  return bodies;
}

class Groups : public ::testing::Test {
 protected:
  Groups() { Create("q"); }
  void Create(const std::string& name) {
    QueueConfigChange config;
    config.name = name;
    config.min_backoff_ms = 1000;
    EXPECT_TRUE(shard_.CreateQueue(config).ok());
  }
  void SendMany(const std::string& group, int from, int to, int priority = 4) {
    for (int i = from; i < to; i += 1000) {
      shard_.Send("q", OfGroup(group, i, std::min(to, i + 1000), priority));
    }
  }
  ShardHarness shard_;
};

TEST_F(Groups, OneMessageOfAGroupIsOpenAtATimeAndOthersPassIt) {
  shard_.Send("q", {{"a0", 4, "a"}, {"a1", 4, "a"}, {"x"}, {"b0", 4, "b"}, {"a2", 4, "a"}});
  const auto sink = shard_.Subscribe("q");
  auto got = sink->Take();
  EXPECT_EQ(BodiesOf(got), (Bodies{"a0", "x", "b0"}));
  EXPECT_EQ(shard_.Stats("q").blocked, 2);
  EXPECT_EQ(shard_.Stats("q").ready, 0);
  ASSERT_TRUE(shard_.Ack("q", got[1].receipt).ok());
  EXPECT_EQ(sink->waiting(), 0u);
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  got = sink->Take();
  EXPECT_EQ(BodiesOf(got), Bodies{"a1"});
  EXPECT_EQ(shard_.Stats("q").blocked, 1);
  EXPECT_EQ(shard_.AckAll("q", *sink), Bodies());
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  EXPECT_EQ(shard_.AckAll("q", *sink), Bodies{"a2"});
}

TEST_F(Groups, ARetryHoldsTheGroupUntilItIsSettled) {
  shard_.Send("q", OfGroup("a", 0, 3));
  const auto sink = shard_.Subscribe("q");
  auto got = sink->Take();
  ASSERT_TRUE(shard_.Settle("q", got[0].receipt, SettleAction::kRetry).ok());
  shard_.Pass(999);
  EXPECT_EQ(sink->waiting(), 0u);
  EXPECT_EQ(shard_.Stats("q").blocked, 2);
  shard_.Pass(1);
  got = sink->Take();
  ASSERT_EQ(BodiesOf(got), Bodies{"a0"});
  EXPECT_EQ(got[0].attempt, 2);
  ASSERT_TRUE(shard_.Settle("q", got[0].receipt, SettleAction::kRelease).ok());
  EXPECT_EQ(shard_.AckAll("q", *sink), Names("a", 0, 3));
}

TEST_F(Groups, AnExpiredLeaseAndABrokenStreamComeBackBeforeTheRestOfTheGroup) {
  shard_.Send("q", OfGroup("a", 0, 3));
  auto sink = shard_.Subscribe("q");
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"a0"});
  shard_.Pass(kLeaseMsDefault);
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"a0"});
  shard_.Close(sink);
  EXPECT_EQ(shard_.Drain("q"), Names("a", 0, 3));
}

TEST_F(Groups, AHigherPriorityOvertakesWithinAGroupStillOneAtATime) {
  shard_.Send("q", {{"low0", 0, "a"}, {"low1", 0, "a"}});
  const auto sink = shard_.Subscribe("q");
  const auto got = sink->Take();
  ASSERT_EQ(BodiesOf(got), Bodies{"low0"});
  shard_.Send("q", {{"high0", 9, "a"}, {"high1", 9, "a"}});
  EXPECT_EQ(sink->waiting(), 0u);
  EXPECT_EQ(shard_.Stats("q").blocked, 3);
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  EXPECT_EQ(sink->waiting(), 1u);
  EXPECT_EQ(shard_.AckAll("q", *sink), (Bodies{"high0", "high1", "low1"}));
}

TEST_F(Groups, ADelayedMessageJoinsItsGroupWhenItIsDue) {
  shard_.Send("q", {{"late", 4, "a", 1000}, {"a0", 4, "a"}});
  const auto sink = shard_.Subscribe("q");
  const auto first = sink->Take();
  ASSERT_EQ(BodiesOf(first), Bodies{"a0"}) << "what is not due holds up nobody";
  shard_.Pass(1000);
  EXPECT_EQ(sink->waiting(), 0u) << "due, and behind the open one";
  shard_.Send("q", {{"a1", 4, "a"}});
  ASSERT_TRUE(shard_.Ack("q", first[0].receipt).ok());
  EXPECT_EQ(shard_.AckAll("q", *sink), (Bodies{"late", "a1"}));
}

TEST_F(Groups, OpenMessagesHoldTheirGroupOverACrashAndACleanStop) {
  for (const bool crash : {true, false}) {
    shard_.Send("q", OfGroup("a", 0, 3));
    auto sink = shard_.Subscribe("q");
    auto got = sink->Take();
    ASSERT_EQ(BodiesOf(got), Bodies{"a0"});
    ASSERT_TRUE(shard_.Settle("q", got[0].receipt, SettleAction::kDelay, 5000).ok());
    crash ? shard_.Crash() : shard_.CleanStop();
    sink = shard_.Subscribe("q");
    shard_.Pass(4999);
    EXPECT_EQ(sink->waiting(), 0u);
    shard_.Pass(1);
    EXPECT_EQ(shard_.AckAll("q", *sink), Names("a", 0, 3));
    shard_.Close(sink);
  }
  // A lease that a clean stop has saved.
  shard_.Send("q", OfGroup("a", 0, 2));
  auto sink = shard_.Subscribe("q");
  const auto got = sink->Take();
  shard_.CleanStop();
  sink = shard_.Subscribe("q");
  EXPECT_EQ(sink->waiting(), 0u);
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  EXPECT_EQ(shard_.AckAll("q", *sink), Bodies{"a1"});
}

TEST_F(Groups, WhatOnlyAnEarlierBootGrantedMaySettleBeforeAnything) {
  shard_.Send("q", OfGroup("a", 0, 3));
  const auto got = shard_.Subscribe("q")->Take();
  shard_.Crash();
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  EXPECT_EQ(shard_.Drain("q"), Names("a", 1, 3));
}

TEST_F(Groups, ADeepGroupIsServedInOrderAndDoesNotHoldUpOthers) {
  constexpr int kDeep = 5000;
  SendMany("a", 0, kDeep);
  SendMany("b", 0, 100);
  shard_.Send("q", {{"x"}});
  const auto sink = shard_.Subscribe("q", 50);
  EXPECT_EQ(BodiesOf(sink->Take()), (Bodies{"a0", "b0", "x"})) << "past 5000 of another group";
  EXPECT_EQ(shard_.Stats("q").blocked, kDeep - 1 + 99);
  shard_.Close(sink);
  std::map<char, Bodies> by_group;
  for (const std::string& body : shard_.Drain("q")) by_group[body[0]].push_back(body);
  EXPECT_EQ(by_group['a'], Names("a", 0, kDeep));
  EXPECT_EQ(by_group['b'], Names("b", 0, 100));
  const QueueStats stats = shard_.Stats("q");
  EXPECT_EQ(stats.ready + stats.blocked + stats.leased, 0);
  EXPECT_EQ(stats.bytes, 0);
  EXPECT_EQ(shard_.Totals().window_bytes, 0u);
  EXPECT_EQ(shard_.Totals().open_messages, 0u);
}

TEST_F(Groups, ABlockedDeepGroupKeepsNoPayloadsInMemory) {
  const std::string body(1000, 'x');
  for (int i = 0; i < 20; ++i) {
    std::vector<TestMessage> messages(1000, TestMessage{body, 4, "a"});
    shard_.Send("q", messages);
  }
  const auto sink = shard_.Subscribe("q", 10);
  EXPECT_EQ(sink->Take().size(), 1u);
  EXPECT_EQ(shard_.Stats("q").blocked, 19'999);
  EXPECT_LE(shard_.Totals().window_bytes, 70u * 1020) << "64 messages, not 20,000";
  shard_.Send("q", {{"other", 4, "b"}});
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"other"});
}

TEST_F(Groups, ARestartInTheMiddleOfADeepGroupGoesOnWhereItWas) {
  constexpr int kDeep = 3000;
  SendMany("a", 0, kDeep / 2);
  SendMany("b", 0, 500);
  SendMany("a", kDeep / 2, kDeep);
  std::map<char, Bodies> by_group;
  for (int round = 0; by_group['a'].size() < kDeep; ++round) {
    ASSERT_LT(round, 20);
    const auto sink = shard_.Subscribe("q", 3);
    for (int i = 0; i < 400; ++i) {
      for (const auto& delivery : sink->Take()) {
        by_group[BodyOf(delivery)[0]].push_back(BodyOf(delivery));
        ASSERT_TRUE(shard_.Ack("q", delivery.receipt).ok());
      }
    }
    // What is granted and not acked comes again.
    if (round % 2 == 0) {
      shard_.Crash();
    } else {
      shard_.Close(sink);
      shard_.CleanStop();
    }
  }
  EXPECT_EQ(by_group['a'], Names("a", 0, kDeep));
  EXPECT_EQ(by_group['b'], Names("b", 0, 500));
  EXPECT_TRUE(shard_.page_error().ok()) << shard_.page_error();
}

TEST_F(Groups, MessagesComeWhileADeepGroupIsServed) {
  SendMany("a", 0, 200);
  const auto sink = shard_.Subscribe("q", 1);
  Bodies bodies;
  int next = 200;
  while (sink->waiting() > 0) {
    const auto got = sink->Take();
    ASSERT_EQ(got.size(), 1u);
    bodies.push_back(BodyOf(got[0]));
    if (next < 600) {
      SendMany("a", next, next + 3);
      next += 3;
    }
    ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  }
  EXPECT_EQ(bodies, Names("a", 0, next));
}

TEST_F(Groups, DeletingWhatIsInMemoryOfADeepGroupFindsTheRest) {
  SendMany("a", 0, 200);
  const auto sink = shard_.Subscribe("q");
  const auto got = sink->Take();
  ASSERT_EQ(BodiesOf(got), Bodies{"a0"});
  shard_.Pause("q");
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  EditMessagesCommand edit;
  edit.queue = "q";
  const auto listed = shard_.List("q");
  for (int i = 0; i < 70; ++i) edit.positions.push_back(listed[i].position);
  EXPECT_EQ(*shard_.Edit(std::move(edit)), 70);
  shard_.Pause("q", false);
  EXPECT_EQ(shard_.AckAll("q", *sink), Names("a", 71, 200));
}

TEST_F(Groups, ExpiryOfWhatIsInMemoryOfADeepGroupFindsTheRest) {
  for (const bool paused : {true, false}) {
    std::vector<TestMessage> messages = OfGroup("a", 0, 200);
    for (int i = 1; i < 100; ++i) messages[i].ttl_ms = 5000;
    shard_.Send("q", messages);
    const auto sink = shard_.Subscribe("q");
    const auto got = sink->Take();
    ASSERT_EQ(BodiesOf(got), Bodies{"a0"});
    if (paused) {
      shard_.Pause("q");
      ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
    }
    shard_.Pass(6000);
    EXPECT_EQ(shard_.Stats("q").blocked + shard_.Stats("q").ready, 100);
    if (paused) {
      shard_.Pause("q", false);
    } else {
      ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
    }
    EXPECT_EQ(shard_.AckAll("q", *sink), Names("a", 100, 200));
    shard_.Close(sink);
  }
  EXPECT_EQ(shard_.GetQueue("q").counters.expired, 2u * 99);
}

// Dispatch meets them before the sweep does.
TEST_F(Groups, ADeepGroupThatExpiresUnderTheConsumersHandsIsPassedOver) {
  std::vector<TestMessage> messages = OfGroup("a", 0, 200);
  for (int i = 1; i < 150; ++i) messages[i].ttl_ms = 5000;
  shard_.Send("q", messages);
  const auto sink = shard_.Subscribe("q");
  const auto got = sink->Take();
  shard_.Pause("q");
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  shard_.Pass(4999);
  shard_.Apply(PauseQueueCommand{"q", false, [](absl::StatusOr<QueueInfo>) {}});
  shard_.Advance(1);
  shard_.RunUntilQuiet();
  EXPECT_EQ(shard_.AckAll("q", *sink), Names("a", 150, 200));
}

TEST_F(Groups, APurgeForgetsAGroupsWaitingMessagesAndKeepsItsLease) {
  SendMany("a", 0, 300);
  const auto sink = shard_.Subscribe("q");
  const auto got = sink->Take();
  EXPECT_EQ(*shard_.Purge("q", /*include_leased=*/false), 299);
  EXPECT_EQ(shard_.Stats("q").blocked, 0);
  SendMany("a", 300, 500);
  EXPECT_EQ(sink->waiting(), 0u) << "the leased one is still open";
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  EXPECT_EQ(shard_.AckAll("q", *sink), Names("a", 300, 500));
}

TEST_F(Groups, ManyGroupsRunInParallelEachInOrder) {
  std::vector<TestMessage> messages;
  for (int i = 0; i < 20; ++i) {
    for (int g = 0; g < 50; ++g) {
      messages.push_back({std::to_string(i), 4, "g" + std::to_string(g)});
    }
  }
  shard_.Send("q", messages);
  const auto sink = shard_.Subscribe("q");
  for (int i = 0; i < 20; ++i) {
    const auto got = sink->Take();
    ASSERT_EQ(BodiesOf(got), Bodies(50, std::to_string(i)));
    for (const auto& delivery : got) ASSERT_TRUE(shard_.Ack("q", delivery.receipt).ok());
  }
}

// Retries, priorities, delays, expiry and dead letters at once.
TEST_F(Groups, WithEverythingElseOrderHoldsAndNothingIsLost) {
  ASSERT_TRUE(shard_.CreateQueue("dlq").ok());
  QueueConfigChange config;
  config.name = "all";
  config.dead_letter_queue = "dlq";
  config.max_attempts = 2;
  config.min_backoff_ms = 100;
  config.max_backoff_ms = 100;
  config.priority_aging_ms = 10'000;
  ASSERT_TRUE(shard_.CreateQueue(config).ok());
  int sent = 0;
  for (int i = 0; i < 300; ++i) {
    TestMessage message{std::to_string(i), i % 3, "g" + std::to_string(i % 7)};
    if (i % 5 == 0) message.delay_ms = 100 * (i % 11);
    if (i % 13 == 0) message.ttl_ms = 2000;
    shard_.Send("all", {message});
    ++sent;
  }
  std::map<std::string, int> open;          // by group
  std::map<std::pair<std::string, int>, int> last;  // first deliveries of what was not delayed
  int acked = 0;
  auto sink = shard_.Subscribe("all", 20);
  for (int step = 0; step < 3000 && acked < sent; ++step) {
    for (const auto& delivery : sink->Take()) {
      const int i = std::stoi(BodyOf(delivery));
      const std::string group = "g" + std::to_string(i % 7);
      ASSERT_EQ(open[group]++, 0) << "two of a group at a time";
      if (delivery.attempt == 1 && i % 5 != 0 && !delivery.maybe_redelivered) {
        int& before = last[{group, i % 3}];
        EXPECT_LE(before, i) << "out of order in " << group;
        before = i;
      }
      const bool fails = i % 4 == 0;
      ASSERT_TRUE(shard_
                      .Settle("all", delivery.receipt,
                              fails ? SettleAction::kRetry : SettleAction::kAck)
                      .ok());
      --open[group];
      if (!fails) ++acked;
    }
    shard_.Pass(20);
    if (step % 50 == 49) {
      std::vector<Receipt> unwritten;
      for (const auto& delivery : sink->Take()) unwritten.push_back(delivery.receipt);
      shard_.Close(sink, unwritten);
      step % 100 == 99 ? shard_.Crash() : shard_.CleanStop(10);
      sink = shard_.Subscribe("all", 20);
    }
  }
  const QueueStats stats = shard_.Stats("all");
  EXPECT_EQ(stats.ready + stats.blocked + stats.leased + stats.delayed, 0);
  EXPECT_EQ(shard_.Stats("dlq").ready + acked, sent);
}

TEST_F(Groups, TheOldestThatIsReadyIsOfAGroupToo) {
  shard_.Send("q", {{"a0", 4, "a"}, {"a1", 4, "a"}, {"b0", 4, "b"}});
  ASSERT_TRUE(shard_.Ack("q", shard_.Receive("q").at(0).receipt).ok());
  shard_.Pass(6000);
  EXPECT_EQ(shard_.Stats("q").oldest_ready_age_ms, 6000);
}

// Behind the parked ones they are found by the group's index, which knows no times.
TEST_F(Groups, TheOldestThatIsReadyIsKnownOfALongGroupTooAtTheSecondLook) {
  constexpr int kMessages = 300;
  constexpr int64_t kPassMs = 600'000;
  SendMany("a", 0, kMessages);
  int64_t waits_ms = 0;
  for (int taken = 1; taken <= 150; ++taken) {
    ASSERT_TRUE(shard_.Ack("q", shard_.Receive("q").at(0).receipt).ok());
    if (taken % 10 != 0) continue;
    shard_.Pass(kPassMs);
    waits_ms += kPassMs;
    const int64_t first_look_ms = shard_.Stats("q").oldest_ready_age_ms;
    EXPECT_TRUE(first_look_ms == 0 || first_look_ms == waits_ms) << first_look_ms;
    EXPECT_EQ(shard_.Stats("q").oldest_ready_age_ms, waits_ms) << taken;
    EXPECT_EQ(shard_.Stats("q").ready, kMessages - taken);
  }
}

TEST_F(Groups, LooksAtStatisticsReadTheOldestOnce) {
  SendMany("a", 0, 300);
  for (int taken = 0; taken < 100; ++taken) {
    ASSERT_TRUE(shard_.Ack("q", shard_.Receive("q").at(0).receipt).ok());
  }
  for (int look = 0; look < 3; ++look) {
    shard_.Start(GetQueueCommand{"q", [](const auto&) {}});
    EXPECT_EQ(shard_.pending_reads(), 1u);
  }
  EXPECT_EQ(BodiesOf(shard_.Receive("q")), Bodies{"a100"}) << "in nobody's way";
  shard_.Start(GetQueueCommand{"q", [](const auto&) {}});
  EXPECT_EQ(shard_.pending_reads(), 0u) << "what is left is blocked";
}

// Those that dispatch finds expired before the sweep does, while others of the group are passed over.
class ExpiredOfAGroup : public Groups {
 protected:
  static constexpr int kMessages = 300;
  static constexpr int kExpired = 40;
  static constexpr int64_t kTtlMs = 5000;
  // The first one is settled at the time at which those behind it have just expired.
  void SendAndExpire(const std::string& queue) {
    std::vector<TestMessage> messages = OfGroup("a", 0, kMessages);
    for (int i = 1; i <= kExpired; ++i) messages[static_cast<size_t>(i)].ttl_ms = kTtlMs;
    shard_.Send(queue, messages);
    sink_ = shard_.Subscribe(queue, 1);
    const auto first = sink_->Take();
    ASSERT_EQ(BodiesOf(first), Bodies{"a0"});
    EXPECT_EQ(shard_.Stats(queue).blocked, kMessages - 1);
    shard_.Advance(kTtlMs + 1);
    shard_.StartSettle(queue, first[0].receipt, SettleAction::kAck);
    shard_.CommitAll();
    for (int turn = 0; turn < 5; ++turn) {
      shard_.Turn();
      shard_.CommitAll();
    }
    shard_.RunUntilQuiet();
  }
  std::shared_ptr<RecordingSink> sink_;
};

TEST_F(ExpiredOfAGroup, LeaveTheOthersCounted) {
  SendAndExpire("q");
  QueueInfo info = shard_.GetQueue("q");
  EXPECT_EQ(info.counters.expired, static_cast<uint64_t>(kExpired));
  EXPECT_EQ(info.stats.ready, 0);
  EXPECT_EQ(info.stats.leased, 1);
  EXPECT_EQ(info.stats.blocked, kMessages - kExpired - 2);
  const auto got = sink_->Take();
  ASSERT_EQ(BodiesOf(got), Bodies{"a41"});
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  EXPECT_EQ(shard_.AckAll("q", *sink_), Names("a", 42, kMessages));
  info = shard_.GetQueue("q");
  EXPECT_EQ(info.stats.ready + info.stats.leased + info.stats.blocked, 0);
}

TEST_F(ExpiredOfAGroup, DoNotKeepAnIdleStreamFromItsEnd) {
  SendAndExpire("q");
  SubscribeCommand command;
  command.queue = "q";
  command.max_in_flight = 10;
  command.max_bytes_in_flight = 1 << 20;
  command.idle_timeout_ms = 1000;
  const auto idle = shard_.Subscribe(std::move(command));
  shard_.Pass(2000);
  EXPECT_TRUE(idle->end.has_value()) << "all that is left waits behind the other stream's";
  EXPECT_EQ(idle->waiting(), 0u);
}

TEST_F(ExpiredOfAGroup, AreHeldAndCountedWhileTheirDeadLetterQueueIsFull) {
  QueueConfigChange dead;
  dead.name = "dead";
  dead.max_length = 1;
  ASSERT_TRUE(shard_.CreateQueue(dead).ok());
  QueueConfigChange config;
  config.name = "held";
  config.dead_letter_queue = "dead";
  ASSERT_TRUE(shard_.CreateQueue(config).ok());
  SendAndExpire("held");
  // One has gone; the next holds up its group, like any that waits for its move.
  QueueStats stats = shard_.Stats("held");
  EXPECT_EQ(shard_.Stats("dead").ready, 1);
  EXPECT_EQ(stats.dying, 1);
  EXPECT_EQ(stats.ready, 0);
  EXPECT_EQ(stats.blocked, kMessages - 2);
  dead.max_length = 0;
  ASSERT_TRUE(shard_.UpdateQueue(dead).ok());
  shard_.Pass(10'000);
  stats = shard_.Stats("held");
  EXPECT_EQ(shard_.Stats("dead").ready, kExpired);
  EXPECT_EQ(stats.ready, 0);
  EXPECT_EQ(stats.blocked, kMessages - kExpired - 2);
  EXPECT_EQ(BodiesOf(sink_->Take()), Bodies{"a41"});
}

}  // namespace
}  // namespace sluice::broker
