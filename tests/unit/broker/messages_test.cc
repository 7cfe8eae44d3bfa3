// Looking at messages and editing them.
#include <gtest/gtest.h>

#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::BodiesOf;
using ::sluice::testing::BodyOf;
using ::sluice::testing::ShardHarness;
using ::sluice::testing::TestMessage;
using Action = EditMessagesCommand::Action;
using Bodies = std::vector<std::string>;

class Messages : public ::testing::Test {
 protected:
  Messages() {
    EXPECT_TRUE(shard_.CreateQueue("q").ok());
    EXPECT_TRUE(shard_.CreateQueue("other").ok());
  }
  EditMessagesCommand All(Action action) {
    EditMessagesCommand command;
    command.queue = "q";
    command.action = action;
    for (const auto& message : shard_.List("q")) command.positions.push_back(message.position);
    return command;
  }
  ShardHarness shard_;
};

TEST_F(Messages, AListingTellsTheStateOfEachAndChangesNothing) {
  TestMessage delayed{"delayed"};
  delayed.delay_ms = 5000;
  shard_.Send("q", {{"retry"}, {"g0", 4, "g"}, {"g1", 4, "g"}, delayed});
  SubscribeCommand command;
  command.queue = "q";
  command.consumer = "worker";
  command.max_in_flight = 2;
  const auto sink = shard_.Subscribe(std::move(command));
  const auto got = sink->Take();
  ASSERT_EQ(BodiesOf(got), (Bodies{"retry", "g0"}));
  ASSERT_TRUE(shard_.Settle("q", got[0].receipt, SettleAction::kDelay, 9000).ok());
  shard_.Run(SetCreditCommand{sink.get(), 0, 0});
  shard_.Send("q", {{"ready"}});
  const auto lsn = shard_.Totals().lsn;
  const auto listed = shard_.List("q");
  ASSERT_EQ(listed.size(), 5u);
  EXPECT_EQ(listed[0].state, MessageState::kDelayed);
  EXPECT_EQ(listed[0].waiting, WaitReason::kRetryBackoff);
  EXPECT_EQ(listed[0].attempt, 2);
  EXPECT_EQ(listed[0].until_ms, shard_.now().engine_ms + 9000);
  EXPECT_EQ(listed[1].state, MessageState::kLeased);
  EXPECT_EQ(listed[1].leased_by, "1") << "the id, which is what a consumer is closed by";
  EXPECT_EQ(listed[1].delivery_count, 1);
  EXPECT_EQ(listed[2].state, MessageState::kBlocked);
  EXPECT_EQ(listed[2].waiting, WaitReason::kGroupBlocked);
  EXPECT_EQ(listed[2].blocked_by, listed[1].position);
  EXPECT_EQ(listed[3].state, MessageState::kReady);
  EXPECT_EQ(listed[3].waiting, WaitReason::kNoCredit);
  EXPECT_EQ(listed[4].state, MessageState::kDelayed);
  EXPECT_EQ(listed[4].waiting, WaitReason::kNotDue);
  EXPECT_EQ(shard_.Totals().lsn, lsn);
}

TEST_F(Messages, SmallStepsFindEachOnceAlsoBehindHoles) {
  for (int i = 0; i < 3; ++i) shard_.Publish("q", {"a", "b", "c", "d"}, i * 4);
  const auto got = shard_.Receive("q", 6);
  for (const auto& delivery : got) ASSERT_TRUE(shard_.Ack("q", delivery.receipt).ok());
  for (const int32_t step : {1, 2, 1000}) {
    Bodies bodies;
    for (const auto& message : shard_.List("q", step)) bodies.push_back(BodyOf(message.payload));
    EXPECT_EQ(bodies, (Bodies{"c", "d", "a", "b", "c", "d"})) << step;
  }
  EXPECT_TRUE(shard_.List("other").empty());
}

TEST_F(Messages, AMessageIsFoundByItsIdWhereverItIs) {
  TestMessage delayed{"b"};
  delayed.delay_ms = 1000;
  const auto ids = shard_.Send("q", {{"a"}, delayed});
  EXPECT_EQ(BodyOf(shard_.GetMessage("q", ids[1])->payload), "b");
  shard_.Pass(1000);
  EXPECT_EQ(shard_.GetMessage("q", ids[1])->state, MessageState::kReady);
  shard_.Crash();
  EXPECT_EQ(BodyOf(shard_.GetMessage("q", ids[1])->payload), "b");
  EXPECT_EQ(ReasonOf(shard_.GetMessage("other", ids[0]).status()),
            ErrorReason::kMessageNotFound);
  const auto got = shard_.Receive("q", 2);
  for (const auto& delivery : got) ASSERT_TRUE(shard_.Ack("q", delivery.receipt).ok());
  for (const auto& id : ids) {
    EXPECT_EQ(ReasonOf(shard_.GetMessage("q", id).status()), ErrorReason::kMessageNotFound);
  }
}

TEST_F(Messages, AMessageThatIsOnItsWayIsFoundByItsId) {
  TestMessage delayed{"m"};
  delayed.delay_ms = 1000;
  const auto ids = shard_.Send("q", {delayed});
  shard_.Advance(1000);
  shard_.Turn();
  shard_.ServeReads();
  shard_.Turn();  // moves it; nothing of that is durable
  ASSERT_EQ(shard_.pending_batches(), 1u);
  testing::Reply<absl::StatusOr<ListedMessage>> reply;
  GetMessageCommand command;
  command.queue = "q";
  command.id = ids[0];
  command.done = reply.Done();
  shard_.Start(std::move(command));
  while (shard_.ServeReads()) shard_.Turn();
  EXPECT_FALSE(reply.answered());
  shard_.RunUntilQuiet();
  ASSERT_TRUE(reply.answered());
  ASSERT_TRUE((*reply).ok()) << (*reply).status();
  EXPECT_EQ(BodyOf((*reply)->payload), "m");
}

TEST_F(Messages, DeleteSkipsWhatIsLeasedUnlessItIsToldOtherwise) {
  shard_.Send("q", {{"a"}, {"b"}, {"c"}});
  const auto sink = shard_.Subscribe("q", 1);
  const auto got = sink->Take();
  EXPECT_EQ(*shard_.Edit(All(Action::kDelete)), 2);
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"a"});
  auto command = All(Action::kDelete);
  command.include_leased = true;
  command.positions.push_back(command.positions[0]);
  command.positions.push_back({0, 999, 4, 1});
  command.positions.push_back({0, command.positions[0].qid, 4, 9999});
  EXPECT_EQ(*shard_.Edit(std::move(command)), 1) << "each once, and what is not there is skipped";
  ASSERT_EQ(sink->lost.size(), 1u);
  EXPECT_EQ(sink->lost[0].second, ErrorReason::kMessageRemoved);
  EXPECT_EQ(ReasonOf(shard_.Ack("q", got[0].receipt)), ErrorReason::kLeaseExpired);
  EXPECT_EQ(shard_.Totals().open_messages, 0u);
  shard_.Crash();
  EXPECT_TRUE(shard_.List("q").empty());
}

TEST_F(Messages, DeletesMoreThanOneStepAlsoFromDisk) {
  shard_.Publish("q", std::vector<std::string>(1000, "x"));
  shard_.Publish("q", std::vector<std::string>(1000, "x"), 9);
  shard_.Crash();
  EXPECT_EQ(*shard_.Edit(All(Action::kDelete)), 2000);
  EXPECT_EQ(shard_.Stats("q").ready, 0);
  EXPECT_EQ(shard_.Stats("q").bytes, 0);
}

TEST_F(Messages, RescheduleMovesReadyDelayedAndWaitingOnes) {
  TestMessage delayed{"delayed"};
  delayed.delay_ms = 100'000;
  const auto ids = shard_.Send("q", {{"waiting"}, {"ready", 7}, delayed});
  const auto got = shard_.Receive("q", 2);
  ASSERT_EQ(BodiesOf(got), (Bodies{"ready", "waiting"}));
  ASSERT_TRUE(shard_.Settle("q", got[0].receipt, SettleAction::kRelease).ok());
  ASSERT_TRUE(shard_.Settle("q", got[1].receipt, SettleAction::kDelay, 100'000).ok());
  auto command = All(Action::kReschedule);
  command.delay_ms = 5000;
  EXPECT_EQ(*shard_.Edit(std::move(command)), 3);
  EXPECT_EQ(shard_.Stats("q").delayed, 3);
  shard_.Crash();
  shard_.Pass(4999);
  EXPECT_EQ(shard_.Stats("q").ready, 0);
  shard_.Pass(1);
  EXPECT_EQ(shard_.Stats("q").ready, 3);
  for (const auto& id : ids) EXPECT_TRUE(shard_.GetMessage("q", id).ok());
  shard_.Pass(200'000);
  EXPECT_EQ(shard_.Stats("q").ready, 3) << "and not once more";
}

TEST_F(Messages, RescheduleOfOneThatWasDelayedKeepsItsTimeToLive) {
  TestMessage delayed{"a"};
  delayed.delay_ms = 100'000;
  delayed.ttl_ms = 1000;
  shard_.Send("q", {delayed});
  shard_.Pass(100'500);
  ASSERT_EQ(shard_.Stats("q").ready, 1);
  auto command = All(Action::kReschedule);
  command.delay_ms = 500;
  EXPECT_EQ(*shard_.Edit(std::move(command)), 1);
  shard_.Pass(1000);
  EXPECT_EQ(shard_.Stats("q").ready, 1);
  shard_.Pass(1000);
  EXPECT_TRUE(shard_.List("q").empty()) << "a second after it was due, and not after a delay more";
}

TEST_F(Messages, RescheduleToNowMakesADelayedOneReady) {
  TestMessage delayed{"a", 8, "g"};
  delayed.delay_ms = 100'000;
  delayed.ttl_ms = 1000;
  shard_.Send("q", {delayed});
  auto command = All(Action::kReschedule);
  command.deliver_at_ms = shard_.now().engine_ms - 1;
  EXPECT_EQ(*shard_.Edit(std::move(command)), 1);
  const auto listed = shard_.List("q");
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_EQ(listed[0].state, MessageState::kReady);
  EXPECT_EQ(listed[0].position.lane, LaneOfPriority(8));
  shard_.Pass(1200);
  EXPECT_TRUE(shard_.List("q").empty()) << "its time to live counts from its new time";
}

TEST_F(Messages, MovesGoBackToWhereTheyDiedOrWhereTheyAreSent) {
  QueueConfigChange change;
  change.name = "source";
  change.dead_letter_queue = "q";
  ASSERT_TRUE(shard_.CreateQueue(change).ok());
  const auto ids = shard_.Send("source", {{"a", 7}, {"b", 7}});
  for (const auto& delivery : shard_.Receive("source", 2)) {
    ASSERT_TRUE(shard_.Settle("source", delivery.receipt, SettleAction::kDeadLetter).ok());
  }
  shard_.Send("q", {{"never died"}});
  EXPECT_EQ(*shard_.Edit(All(Action::kMove)), 2);
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"never died"});
  EXPECT_EQ(shard_.ListBodies("source"), (Bodies{"a", "b"}));
  shard_.Crash();
  const auto again = shard_.Receive("source");
  EXPECT_EQ(again[0].attempt, 1);
  ASSERT_TRUE(again[0].deaths) << "its story stays";
  EXPECT_TRUE(shard_.GetMessage("source", ids[0]).ok());
  ASSERT_TRUE(shard_.Settle("source", again[0].receipt, SettleAction::kDeadLetter).ok());
  EXPECT_EQ(shard_.List("q")[0].deaths->front().count, 2);
  auto command = All(Action::kMove);
  command.to_queue = "other";
  EXPECT_EQ(*shard_.Edit(std::move(command)), 2);
  EXPECT_EQ(shard_.Stats("other").ready, 2);
}

TEST_F(Messages, WhatIsMovedWithoutADeathKeepsItsTimes) {
  TestMessage delayed{"delayed", 7};
  delayed.delay_ms = 10'000;
  delayed.ttl_ms = 500;
  TestMessage mortal{"mortal"};
  mortal.ttl_ms = 5000;
  TestMessage expired{"expired"};
  expired.ttl_ms = 1000;
  shard_.Send("q", {delayed, mortal, expired, {"plain"}});
  shard_.Pass(900);
  auto command = All(Action::kMove);
  command.to_queue = "other";
  EXPECT_EQ(*shard_.Edit(std::move(command)), 4);
  EXPECT_EQ(shard_.ListBodies("other"), (Bodies{"mortal", "expired", "plain", "delayed"}));
  EXPECT_EQ(shard_.Stats("other").delayed, 1);
  shard_.Crash();
  shard_.Pass(300);
  EXPECT_EQ(shard_.ListBodies("other"), (Bodies{"mortal", "plain", "delayed"}));
  shard_.Pass(4500);
  EXPECT_EQ(shard_.Drain("other"), Bodies{"plain"});
  shard_.Pass(4200);
  EXPECT_TRUE(shard_.Receive("other").empty()) << "never early";
  shard_.Pass(100);
  const auto listed = shard_.List("other");
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_EQ(listed[0].state, MessageState::kReady);
  EXPECT_EQ(listed[0].position.lane, LaneOfPriority(7));
  shard_.Pass(600);
  EXPECT_TRUE(shard_.Receive("other").empty()) << "its time to live counts from its due time";
}

TEST_F(Messages, AMoveNeverMakesAMessageEarly) {
  QueueConfigChange change;
  change.name = "source";
  change.dead_letter_queue = "q";
  ASSERT_TRUE(shard_.CreateQueue(change).ok());
  shard_.Send("source", {{"died"}});
  ASSERT_TRUE(shard_.Settle("source", shard_.Receive("source").at(0).receipt,
                            SettleAction::kDeadLetter).ok());
  shard_.Send("q", {{"released", 7}});
  const auto held = shard_.Receive("q", 1);
  ASSERT_EQ(BodiesOf(held), Bodies{"released"});
  ASSERT_TRUE(shard_.Settle("q", held[0].receipt, SettleAction::kRelease).ok());
  auto command = All(Action::kReschedule);
  command.delay_ms = 10'000;
  EXPECT_EQ(*shard_.Edit(std::move(command)), 2);
  command = All(Action::kMove);
  command.to_queue = "other";
  EXPECT_EQ(*shard_.Edit(std::move(command)), 2);
  shard_.Pass(9999);
  EXPECT_EQ(shard_.Stats("other").delayed, 2);
  shard_.Pass(1);
  EXPECT_EQ(shard_.Drain("other"), (Bodies{"released", "died"}));
}

TEST_F(Messages, AGroupIsNotMovedPastItsRetry) {
  shard_.Send("q", {{"a", 4, "g"}, {"b", 4, "g"}, {"c", 4, "g"}, {"d"}});
  const auto got = shard_.Receive("q", 1);
  ASSERT_TRUE(shard_.Settle("q", got.at(0).receipt, SettleAction::kRetry).ok());
  auto command = All(Action::kMove);
  command.to_queue = "other";
  EXPECT_EQ(*shard_.Edit(std::move(command)), 1) << "what is of no group";
  shard_.Pass(2000);
  const auto again = shard_.Receive("q", 1);
  ASSERT_EQ(BodiesOf(again), Bodies{"a"});
  command = All(Action::kMove);
  command.to_queue = "other";
  EXPECT_EQ(*shard_.Edit(std::move(command)), 0) << "one of it is out";
  ASSERT_TRUE(shard_.Settle("q", again.at(0).receipt, SettleAction::kRelease).ok());
  command = All(Action::kMove);
  command.to_queue = "other";
  EXPECT_EQ(*shard_.Edit(std::move(command)), 3) << "all of it, in one step";
  EXPECT_EQ(shard_.ListBodies("other"), (Bodies{"d", "a", "b", "c"}));
}

TEST_F(Messages, ADeadLetterThatWasRescheduledIsNotRedrivenEarly) {
  constexpr int64_t kHour = 3'600'000;
  QueueConfigChange config;
  config.name = "origin";
  config.dead_letter_queue = "q";
  ASSERT_TRUE(shard_.CreateQueue(config).ok());
  shard_.Send("origin", {{"looked at"}, {"untouched"}});
  for (const auto& delivery : shard_.Receive("origin", 2)) {
    ASSERT_TRUE(shard_.Settle("origin", delivery.receipt, SettleAction::kDeadLetter).ok());
  }
  const auto looked_at = shard_.Receive("q", 1);
  ASSERT_TRUE(shard_.Settle("q", looked_at.at(0).receipt, SettleAction::kRelease).ok());
  auto command = All(Action::kReschedule);
  command.delay_ms = kHour;
  EXPECT_EQ(*shard_.Edit(std::move(command)), 2);
  EXPECT_EQ(*shard_.Edit(All(Action::kMove)), 2);
  EXPECT_TRUE(shard_.Receive("origin", 2).empty());
  shard_.Pass(kHour);
  EXPECT_EQ(shard_.Receive("origin", 2).size(), 2u);
}

TEST_F(Messages, AMovedRetryExpiresInTime) {
  TestMessage message{"m"};
  message.ttl_ms = 5000;
  shard_.Send("q", {message});
  const auto got = shard_.Receive("q");
  ASSERT_TRUE(shard_.Settle("q", got.at(0).receipt, SettleAction::kDelay, 3'600'000).ok());
  auto command = All(Action::kMove);
  command.to_queue = "other";
  EXPECT_EQ(*shard_.Edit(std::move(command)), 1);
  shard_.Pass(4000);
  EXPECT_EQ(shard_.ListBodies("other"), Bodies{"m"});
  shard_.Pass(2000);
  EXPECT_TRUE(shard_.ListBodies("other").empty());
}

// A crash made it ready again, and its receipt stays good.
TEST_F(Messages, WhatMayHaveBeenOutBeforeACrashKeepsItsPlaceAndItsReceipt) {
  for (const bool crash_again : {false, true}) {
    shard_.Send("q", {{"m"}, {"n"}, {"never out"}});
    const auto got = shard_.Receive("q", 2);
    shard_.Crash();
    auto command = All(Action::kReschedule);
    command.delay_ms = 5000;
    EXPECT_EQ(*shard_.Edit(std::move(command)), 3);
    EXPECT_TRUE(shard_.Receive("q", 3).empty());
    if (crash_again) shard_.Crash();
    for (const auto& delivery : got) EXPECT_TRUE(shard_.Ack("q", delivery.receipt).ok());
    shard_.Pass(6000);
    const auto left = shard_.Receive("q", 3);
    ASSERT_EQ(BodiesOf(left), Bodies{"never out"});
    ASSERT_TRUE(shard_.Ack("q", left[0].receipt).ok());
  }
}

// They move: a receipt of before is void then.
TEST_F(Messages, AfterACrashOneOfAGroupThatIsPutOffHoldsUpNobody) {
  shard_.Send("q", {{"1", 4, "g"}, {"2", 4, "g"}, {"3", 4, "g"}});
  const auto got = shard_.Receive("q", 1);
  shard_.Crash();
  auto command = All(Action::kReschedule);
  command.positions = {command.positions[0], command.positions[2]};
  command.delay_ms = 5000;
  EXPECT_EQ(*shard_.Edit(std::move(command)), 2);
  EXPECT_EQ(ReasonOf(shard_.Ack("q", got.at(0).receipt)), ErrorReason::kLeaseExpired);
  Bodies bodies;
  for (int i = 0; i < 3; ++i) {
    const auto next = shard_.Receive("q", 1);
    ASSERT_EQ(next.size(), 1u);
    bodies.push_back(BodiesOf(next)[0]);
    ASSERT_TRUE(shard_.Ack("q", next[0].receipt).ok());
    if (i == 0) shard_.Pass(6000);
  }
  EXPECT_EQ(bodies, (Bodies{"2", "1", "3"}));
}

TEST_F(Messages, WhatWasPutOffAfterACrashSaysThatItMayHaveBeenOut) {
  shard_.Send("q", {{"m"}});
  const auto got = shard_.Receive("q", 1);
  shard_.Crash();
  auto command = All(Action::kReschedule);
  command.delay_ms = 5000;
  EXPECT_EQ(*shard_.Edit(std::move(command)), 1);
  shard_.Crash();
  shard_.Pass(6000);
  const auto again = shard_.Receive("q", 1);
  ASSERT_EQ(again.size(), 1u);
  EXPECT_TRUE(again[0].maybe_redelivered);
  EXPECT_EQ(ReasonOf(shard_.Ack("q", got[0].receipt)), ErrorReason::kLeaseExpired);
  EXPECT_TRUE(shard_.Ack("q", again[0].receipt).ok());
}

TEST_F(Messages, AFullQueueTakesNoMoreMoves) {
  QueueConfigChange change;
  change.name = "other";
  change.max_length = 2;
  ASSERT_TRUE(shard_.UpdateQueue(change).ok());
  shard_.Send("q", {{"a"}, {"b"}, {"c"}});
  auto command = All(Action::kMove);
  command.to_queue = "other";
  EXPECT_EQ(*shard_.Edit(std::move(command)), 2);
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"c"});
  command = All(Action::kMove);
  command.to_queue = "nowhere";
  EXPECT_EQ(ReasonOf(shard_.Edit(std::move(command)).status()), ErrorReason::kQueueNotFound);
}

}  // namespace
}  // namespace sluice::broker
