// Decide, commit, then show: nothing outside the shard may run ahead of the disk, and what was
// shown survives a crash.
#include <gtest/gtest.h>

#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::BodiesOf;
using ::sluice::testing::BodyOf;
using ::sluice::testing::Reply;
using ::sluice::testing::ShardHarness;

class Durability : public ::testing::Test {
 protected:
  Durability() { EXPECT_TRUE(shard_.CreateQueue("q").ok()); }
  ShardHarness shard_;
};

TEST_F(Durability, APublishIsAnsweredAndShownOnlyOnceItsBatchIsDurable) {
  const auto sink = shard_.Subscribe("q");
  const auto reply = shard_.StartPublish("q", {"a"});
  shard_.Turn();
  shard_.Advance(1000);
  EXPECT_FALSE(reply.answered());
  EXPECT_EQ(sink->waiting(), 0u);
  shard_.Commit();
  ASSERT_TRUE(reply.answered());
  EXPECT_TRUE((*reply).ok());
  EXPECT_EQ(BodiesOf(sink->Take()), std::vector<std::string>{"a"});
}

TEST_F(Durability, ASettleIsAnsweredOnlyOnceItIsDurable) {
  shard_.Publish("q", {"a"});
  const auto got = shard_.Receive("q");
  ASSERT_EQ(got.size(), 1u);
  const auto first = shard_.StartSettle("q", got[0].receipt, SettleAction::kAck);
  EXPECT_FALSE(first.answered());
  // The repeat of an ack that is not durable yet must not say that it is.
  const auto second = shard_.StartSettle("q", got[0].receipt, SettleAction::kAck);
  EXPECT_FALSE(second.answered());
  shard_.CommitAll();
  EXPECT_EQ(first.calls(), 1);
  EXPECT_EQ(second.calls(), 1);
  EXPECT_EQ((**first).settled, 1);
  EXPECT_EQ((**second).settled, 1);
}

TEST_F(Durability, TheNextOfAGroupIsShownOnlyOnceTheEndOfTheOneBeforeIsDurable) {
  const auto sink = shard_.Subscribe("q");
  shard_.Send("q", {{"a1", kPriorityDefault, "a"}, {"a2", kPriorityDefault, "a"},
                    {"b1", kPriorityDefault, "b"}});
  const auto got = sink->Take();
  ASSERT_EQ(BodiesOf(got), (std::vector<std::string>{"a1", "b1"}));
  const auto acked = shard_.StartSettle("q", got[0].receipt, SettleAction::kAck);
  shard_.Turn();
  EXPECT_EQ(sink->waiting(), 0u) << "a crash would deliver a1 after it";
  shard_.CommitAll();
  EXPECT_TRUE(acked.answered());
  EXPECT_EQ(BodiesOf(sink->Take()), std::vector<std::string>{"a2"});
  // Where nothing is on its way to the disk nothing waits.
  ASSERT_TRUE(shard_.Ack("q", got[1].receipt).ok());
  shard_.Send("q", {{"b2", kPriorityDefault, "b"}});
  EXPECT_EQ(BodiesOf(sink->Take()), std::vector<std::string>{"b2"});
}

TEST_F(Durability, ARedeliveryIsShownOnlyOnceItsRowIsDurable) {
  shard_.Publish("q", {"a"});
  const auto first = shard_.Receive("q");
  ASSERT_EQ(first.size(), 1u);
  const auto sink = shard_.Subscribe("q");
  EXPECT_EQ(sink->waiting(), 0u);
  ASSERT_TRUE(shard_.Settle("q", first[0].receipt, SettleAction::kRelease).ok());
  const auto again = sink->Take();
  ASSERT_EQ(again.size(), 1u);
  // Once more, batch by batch.
  shard_.StartSettle("q", again[0].receipt, SettleAction::kRelease);
  shard_.CommitAll();
  EXPECT_EQ(sink->waiting(), 0u) << "the payload has to be read first";
  shard_.ServeReads();
  EXPECT_EQ(shard_.pending_batches(), 1u);
  EXPECT_EQ(sink->waiting(), 0u) << "shown before its row is durable";
  shard_.Commit();
  EXPECT_EQ(sink->waiting(), 1u);
}

TEST_F(Durability, AFirstGrantOfABacklogWaitsForTheBoundForEveryConsumer) {
  // Nobody consumes while they are published, so the grant bound does not cover them.
  shard_.Publish("q", {"1", "2"});
  SubscribeCommand one;
  one.queue = "q";
  one.max_in_flight = 1;
  const auto first = shard_.StartSubscribe(std::move(one));
  EXPECT_EQ(first->waiting(), 0u) << "the row that says it may have been granted is not durable";
  SubscribeCommand other;
  other.queue = "q";
  other.max_in_flight = 1;
  const auto second = shard_.StartSubscribe(std::move(other));
  EXPECT_EQ(second->waiting(), 0u) << "another consumer relies on the same row";
  shard_.RunUntilQuiet();
  EXPECT_EQ(first->waiting(), 1u);
  EXPECT_EQ(second->waiting(), 1u);
}

TEST_F(Durability, ACrashBetweenDecisionAndCommitUndoesBoth) {
  const auto lost = shard_.StartPublish("q", {"lost"});
  shard_.Crash();
  EXPECT_FALSE(lost.answered());
  EXPECT_EQ(shard_.Stats("q").ready, 0);
  shard_.Publish("q", {"kept"});
  auto got = shard_.Receive("q");
  ASSERT_EQ(BodiesOf(got), std::vector<std::string>{"kept"});
  shard_.StartSettle("q", got[0].receipt, SettleAction::kAck);
  shard_.Crash();
  EXPECT_EQ(shard_.Stats("q").ready, 1) << "an ack that was not durable did not happen";
  got = shard_.Receive("q");
  ASSERT_EQ(got.size(), 1u);
  EXPECT_TRUE(got[0].maybe_redelivered);
  EXPECT_EQ(got[0].attempt, 1) << "a crash is not a failure";
  EXPECT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  shard_.Crash();
  EXPECT_EQ(shard_.Stats("q").ready, 0);
  EXPECT_TRUE(shard_.Receive("q").empty());
}

TEST_F(Durability, OnlyWhatMayHaveBeenGrantedIsFlagged) {
  shard_.Publish("q", {"1", "2", "3"});
  ASSERT_EQ(shard_.Receive("q").size(), 1u);
  shard_.Crash();
  // Nothing published from here on can have been granted before.
  shard_.Publish("q", {"4"});
  const auto got = shard_.Receive("q", 10);
  ASSERT_EQ(got.size(), 4u);
  EXPECT_TRUE(got[0].maybe_redelivered);
  EXPECT_FALSE(got[3].maybe_redelivered);
}

TEST_F(Durability, NothingIsFlaggedInAQueueThatWasNeverConsumed) {
  shard_.Publish("q", {"1", "2"});
  shard_.Crash();
  for (const auto& delivery : shard_.Receive("q", 10)) EXPECT_FALSE(delivery.maybe_redelivered);
}

TEST_F(Durability, ReceiptsOfAnEarlierBootAreGoodUntilTheNextGrant) {
  shard_.Publish("q", {"1", "2"});
  const auto got = shard_.Receive("q", 2);
  ASSERT_EQ(got.size(), 2u);
  shard_.Crash();
  EXPECT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  const auto again = shard_.Receive("q", 2);
  ASSERT_EQ(BodiesOf(again), std::vector<std::string>{"2"});
  EXPECT_EQ(ReasonOf(shard_.Ack("q", got[1].receipt)), ErrorReason::kLeaseExpired);
  // The refusal outlives another crash: the later grant left a row.
  shard_.Crash();
  EXPECT_EQ(ReasonOf(shard_.Ack("q", got[1].receipt)), ErrorReason::kLeaseExpired);
  EXPECT_TRUE(shard_.Ack("q", again[0].receipt).ok());
  EXPECT_EQ(shard_.Stats("q").ready, 0);
}

TEST_F(Durability, ACleanStopKeepsLeasesReceiptsAndDeadlines) {
  shard_.Publish("q", {"1", "2", "3"});
  const auto got = shard_.Receive("q", 2);
  ASSERT_EQ(got.size(), 2u);
  shard_.Advance(10'000);
  shard_.CleanStop(/*down_ms=*/5000);
  EXPECT_EQ(shard_.Stats("q").leased, 2);
  EXPECT_EQ(shard_.Stats("q").ready, 1);
  EXPECT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  auto third = shard_.Receive("q", 10);
  ASSERT_EQ(BodiesOf(third), std::vector<std::string>{"3"});
  EXPECT_FALSE(third[0].maybe_redelivered);
  shard_.Advance(kLeaseMsDefault - 15'000 - 1);
  EXPECT_TRUE(shard_.Receive("q", 10).empty()) << "before its deadline";
  shard_.Advance(1);
  shard_.RunUntilQuiet();
  const auto again = shard_.Receive("q", 10);
  ASSERT_EQ(BodiesOf(again), std::vector<std::string>{"2"});
  EXPECT_EQ(again[0].attempt, 2);
  EXPECT_FALSE(again[0].maybe_redelivered);
}

TEST_F(Durability, ALeaseThatEndsWhileTheServerIsDownHasExpired) {
  shard_.Publish("q", {"1"});
  const auto got = shard_.Receive("q");
  shard_.CleanStop(/*down_ms=*/kLeaseMsDefault + 1);
  EXPECT_EQ(shard_.Stats("q").ready, 1);
  const auto again = shard_.Receive("q");
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].attempt, 2);
  EXPECT_EQ(again[0].receipt.delivery_count, 2u);
}

TEST_F(Durability, ACleanStopDoesNotForgetAnEarlierCrash) {
  shard_.Publish("q", {"1"});
  const auto first_boot = shard_.Receive("q");
  ASSERT_EQ(first_boot.size(), 1u);
  shard_.Crash();
  shard_.CleanStop();  // not granted in the boot between
  const auto third_boot = shard_.Receive("q");
  ASSERT_EQ(third_boot.size(), 1u);
  EXPECT_TRUE(third_boot[0].maybe_redelivered);
  shard_.Crash();
  EXPECT_EQ(ReasonOf(shard_.Ack("q", first_boot[0].receipt)), ErrorReason::kLeaseExpired)
      << "it was granted again since";
  EXPECT_TRUE(shard_.Ack("q", third_boot[0].receipt).ok());
}

TEST_F(Durability, AFailedMessageKeepsItsFlagOverACrashAndACleanStop) {
  shard_.Publish("q", {"1"});
  auto got = shard_.Receive("q");
  ASSERT_TRUE(shard_.Settle("q", got.at(0).receipt, SettleAction::kRelease).ok());
  got = shard_.Receive("q");
  ASSERT_EQ(got.size(), 1u);
  shard_.Crash();      // cuts the second delivery short
  shard_.CleanStop();  // without another grant
  got = shard_.Receive("q");
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].attempt, 1);
  EXPECT_TRUE(got[0].maybe_redelivered);
}

TEST_F(Durability, TheFlagStaysWhenTheFlaggedDeliveryWasNeverWritten) {
  shard_.Publish("q", {"1"});
  ASSERT_EQ(shard_.Receive("q").size(), 1u);
  shard_.Crash();
  const auto sink = shard_.Subscribe("q");
  const auto unwritten = sink->Take();
  ASSERT_EQ(unwritten.size(), 1u);
  shard_.Close(sink, {unwritten[0].receipt});
  const auto got = shard_.Receive("q");
  ASSERT_EQ(got.size(), 1u);
  EXPECT_TRUE(got[0].maybe_redelivered);
}

TEST_F(Durability, AMessageReleasedByAReceiptOfAnEarlierBootIsFlagged) {
  shard_.Publish("q", {"1"});
  const auto first = shard_.Receive("q");
  shard_.Crash();
  EXPECT_TRUE(shard_.Settle("q", first.at(0).receipt, SettleAction::kRelease).ok());
  const auto got = shard_.Receive("q");
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].attempt, 1);
  EXPECT_TRUE(got[0].maybe_redelivered);
}

TEST_F(Durability, ANackByAReceiptOfAnEarlierBootCountsAndIsDoneOnce) {
  shard_.Publish("q", {"1"});
  const auto first = shard_.Receive("q");
  shard_.Crash();
  EXPECT_TRUE(shard_.Settle("q", first.at(0).receipt, SettleAction::kRetry).ok());
  EXPECT_TRUE(shard_.Settle("q", first.at(0).receipt, SettleAction::kRetry).ok());
  EXPECT_TRUE(shard_.Receive("q").empty()) << "its backoff is not over";
  shard_.Pass(kMinBackoffMsDefault);
  const auto got = shard_.Receive("q");
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].attempt, 2);
  EXPECT_EQ(got[0].receipt.delivery_count, 2u);
  EXPECT_FALSE(got[0].maybe_redelivered);
}

// Later grants have rows, which tell whether they were held to the end.
TEST_F(Durability, ANackByAReceiptOfAnEarlierBootCountsALaterGrantToo) {
  for (const SettleAction before : {SettleAction::kRetry, SettleAction::kRelease}) {
    for (const SettleAction then : {SettleAction::kRetry, SettleAction::kDelay}) {
      shard_.Publish("q", {"1"});
      auto got = shard_.Receive("q");
      ASSERT_TRUE(shard_.Settle("q", got.at(0).receipt, before).ok());
      shard_.Pass(kMinBackoffMsDefault);
      got = shard_.Receive("q");
      ASSERT_EQ(got.size(), 1u);
      const int32_t attempt = got[0].attempt;
      shard_.Crash();
      EXPECT_TRUE(shard_.Settle("q", got[0].receipt, then, 60'000).ok());
      EXPECT_TRUE(shard_.Receive("q").empty());
      shard_.Pass(60'000);
      const auto again = shard_.Receive("q");
      ASSERT_EQ(again.size(), 1u);
      EXPECT_EQ(again[0].attempt, attempt + 1);
      EXPECT_EQ(ReasonOf(shard_.Settle("q", got[0].receipt, then)), ErrorReason::kLeaseExpired);
      ASSERT_TRUE(shard_.Ack("q", again[0].receipt).ok());
    }
  }
}

TEST_F(Durability, WhatHadFailedBeforeACrashIsNotCountedAgainAfterIt) {
  shard_.Publish("q", {"1"});
  const auto first = shard_.Receive("q");
  ASSERT_TRUE(shard_.Settle("q", first.at(0).receipt, SettleAction::kRetry).ok());
  shard_.Pass(kMinBackoffMsDefault);
  shard_.Crash();
  EXPECT_TRUE(shard_.Settle("q", first[0].receipt, SettleAction::kRetry).ok());
  const auto got = shard_.Receive("q");
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].attempt, 2);
}

TEST_F(Durability, ARejectionByAReceiptOfAnEarlierBootCountsItsAttempt) {
  ASSERT_TRUE(shard_.CreateQueue("dead").ok());
  QueueConfigChange config;
  config.name = "with-dead";
  config.dead_letter_queue = "dead";
  ASSERT_TRUE(shard_.CreateQueue(config).ok());
  shard_.Publish("with-dead", {"1"});
  const auto first = shard_.Receive("with-dead");
  shard_.Crash();
  EXPECT_TRUE(shard_.Settle("with-dead", first.at(0).receipt, SettleAction::kDeadLetter).ok());
  const auto dead = shard_.List("dead");
  ASSERT_EQ(dead.size(), 1u);
  ASSERT_EQ(dead[0].deaths->size(), 1u);
  EXPECT_EQ(dead[0].deaths->front().attempts, 1);
}

// What only an earlier boot granted need not be in memory: its group is on disk.
TEST_F(Durability, ADelayByAReceiptOfAnEarlierBootHoldsItsGroup) {
  shard_.Send("q", {{"a0", 4, "a"}, {"a1", 4, "a"}, {"b0", 4, "b"}});
  const auto first = shard_.Receive("q");
  ASSERT_EQ(BodiesOf(first), std::vector<std::string>{"a0"});
  shard_.Crash();
  EXPECT_TRUE(shard_.Settle("q", first[0].receipt, SettleAction::kDelay, 60'000).ok());
  EXPECT_EQ(shard_.Drain("q"), std::vector<std::string>{"b0"});
  shard_.Pass(60'000);
  EXPECT_EQ(shard_.Drain("q"), (std::vector<std::string>{"a0", "a1"}));
}

TEST_F(Durability, ATransactionNacksByReceiptsOfAnEarlierBoot) {
  shard_.Send("q", {{"a0", 4, "a"}, {"a1", 4, "a"}});
  const auto first = shard_.Receive("q");
  shard_.Crash();
  TransactCommand command;
  command.nacks.push_back({"q", {{first.at(0).receipt, SettleAction::kDelay, 60'000}}});
  Reply<absl::StatusOr<std::vector<std::vector<PublishedMessage>>>> reply;
  command.done = reply.Done();
  shard_.Run(std::move(command));
  ASSERT_TRUE(reply.answered());
  EXPECT_TRUE(reply->ok());
  EXPECT_TRUE(shard_.Receive("q").empty());
  shard_.Pass(60'000);
  const auto again = shard_.Receive("q");
  ASSERT_EQ(BodiesOf(again), std::vector<std::string>{"a0"});
  EXPECT_EQ(again[0].attempt, 2);
}

using Bodies = std::vector<std::string>;

TEST_F(Durability, TheNextOfAGroupIsShownWhenTheOneBeforeItHasLeftForGood) {
  shard_.Send("q", {{"a0", 4, "a"}, {"a1", 4, "a"}, {"a2", 4, "a"}});
  const auto sink = shard_.Subscribe("q");
  auto got = sink->Take();
  ASSERT_EQ(BodiesOf(got), Bodies{"a0"});
  shard_.StartSettle("q", got[0].receipt, SettleAction::kAck);
  shard_.Turn();
  EXPECT_EQ(sink->waiting(), 0u) << "a crash would show a0 after a1";
  shard_.Commit();
  got = sink->Take();
  ASSERT_EQ(BodiesOf(got), Bodies{"a1"});
  shard_.StartSettle("q", got[0].receipt, SettleAction::kAck);
  shard_.Turn();
  shard_.Crash();
  EXPECT_EQ(shard_.Drain("q"), (Bodies{"a1", "a2"}));
}

TEST_F(Durability, AGroupThatWaitsForTheDiskHoldsUpNobodyElse) {
  shard_.Send("q", {{"a0", 4, "a"}, {"a1", 4, "a"}, {"b0", 4, "b"}, {"x"}});
  const auto sink = shard_.Subscribe("q", 1);
  const auto got = sink->Take();
  ASSERT_EQ(BodiesOf(got), Bodies{"a0"});
  const auto other = shard_.StartSubscribe([] {
    SubscribeCommand command;
    command.queue = "q";
    return command;
  }());
  shard_.StartSettle("q", got[0].receipt, SettleAction::kAck);
  ASSERT_GT(shard_.pending_batches(), 0u);
  auto shown = BodiesOf(sink->Take());
  for (const std::string& body : BodiesOf(other->Take())) shown.push_back(body);
  EXPECT_EQ(shown, (Bodies{"b0", "x"}));
  ListMessagesCommand list;
  list.queue = "q";
  Reply<absl::StatusOr<ListMessagesCommand::Outcome>> listed;
  list.done = listed.Done();
  shard_.Start(std::move(list));
  while (!listed.answered() && shard_.ServeReads()) {
  }
  ASSERT_TRUE(listed.answered());
  ASSERT_FALSE((**listed).messages.empty());
  EXPECT_EQ((**listed).messages[0].state, MessageState::kBlocked);
}

TEST_F(Durability, TheNextOfAGroupWaitsForAReceiptOfAnEarlierBootAsWell) {
  shard_.Send("q", {{"a0", 4, "a"}, {"a1", 4, "a"}});
  const auto first = shard_.Receive("q");
  ASSERT_EQ(BodiesOf(first), Bodies{"a0"});
  shard_.Crash();
  shard_.RunUntilQuiet();
  shard_.StartSettle("q", first[0].receipt, SettleAction::kAck);
  const auto sink = shard_.StartSubscribe([] {
    SubscribeCommand command;
    command.queue = "q";
    return command;
  }());
  while (shard_.ServeReads()) shard_.Turn();
  EXPECT_EQ(sink->waiting(), 0u);
  shard_.RunUntilQuiet();
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"a1"});
}

TEST_F(Durability, WhatFollowsAMessageThatWasTakenOutIsShownWhenThatCannotBeUndone) {
  const auto ids = shard_.Send("q", {{"1"}, {"2"}});
  EditMessagesCommand remove;
  remove.queue = "q";
  remove.positions = {ids[0]};
  Reply<absl::StatusOr<int64_t>> removed;
  remove.done = removed.Done();
  shard_.Start(std::move(remove));
  shard_.ServeReads();
  const auto sink = shard_.StartSubscribe([] {
    SubscribeCommand command;
    command.queue = "q";
    return command;
  }());
  ASSERT_FALSE(removed.answered());
  EXPECT_EQ(sink->waiting(), 0u);
  shard_.RunUntilQuiet();
  EXPECT_TRUE(removed.answered());
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"2"});
}

TEST_F(Durability, NobodyWaitsForAnEditThatHasChangedNothing) {
  const auto sink = shard_.Subscribe("q");
  shard_.Run(SetCreditCommand{sink.get(), 0, 0});
  const auto ids = shard_.Send("q", {{"1"}});
  EditMessagesCommand move;
  move.queue = "q";
  move.positions = {ids[0]};
  move.action = EditMessagesCommand::Action::kMove;  // it has died nowhere
  const auto moved = shard_.Edit(std::move(move));
  ASSERT_TRUE(moved.ok());
  EXPECT_EQ(*moved, 0);
  shard_.Start(SetCreditCommand{sink.get(), 10, 10'000});
  EXPECT_EQ(shard_.pending_batches(), 0u);
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"1"});
}

TEST_F(Durability, NothingIsGrantedAfterAStop) {
  shard_.Publish("q", {"1"});
  SubscribeCommand subscribe;
  subscribe.queue = "q";
  auto sink = std::make_shared<::sluice::testing::RecordingSink>();
  subscribe.sink = sink;
  shard_.Apply(std::move(subscribe));
  bool stopped = false;
  shard_.Run(StopCommand{[&] { stopped = true; }});
  EXPECT_TRUE(stopped);
  EXPECT_EQ(sink->waiting(), 0u) << "its lease would not have been saved";
  EXPECT_FALSE(shard_.shard().HasWork());
}

TEST_F(Durability, AttemptsAndRetryTimesSurviveACrash) {
  shard_.Publish("q", {"1"});
  auto got = shard_.Receive("q");
  ASSERT_TRUE(shard_.Settle("q", got.at(0).receipt, SettleAction::kDelay, 60'000).ok());
  shard_.Crash();
  EXPECT_EQ(shard_.Stats("q").delayed, 1);
  shard_.Advance(50'000);
  EXPECT_TRUE(shard_.Receive("q").empty());
  shard_.Advance(10'000);
  got = shard_.Receive("q");
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].attempt, 2);
}

TEST_F(Durability, APurgeWhileDeliveriesWaitForTheDiskTakesThemBack) {
  shard_.Publish("q", {"1", "2"});
  SubscribeCommand subscribe;
  subscribe.queue = "q";
  const auto sink = shard_.StartSubscribe(std::move(subscribe));
  ASSERT_EQ(sink->waiting(), 0u);
  Reply<absl::StatusOr<int64_t>> purged;
  shard_.Run(PurgeQueueCommand{"q", false, /*include_leased=*/true, purged.Done()});
  EXPECT_EQ(**purged, 2);
  EXPECT_EQ(sink->waiting(), 0u) << "a purged message was delivered";
}

TEST_F(Durability, ALostRowOfAnUnsettledMessageIsDamageNotSilence) {
  shard_.Publish("q", {"1", "2", "3"});
  shard_.Crash();
  auto& rows = shard_.store().rows();
  const auto key = storage::MessageKey({0, 1, LaneOfPriority(kPriorityDefault), 2});
  ASSERT_EQ(rows.erase({storage::Family::kMessages, std::string(key.data(), key.size())}), 1u);
  shard_.Subscribe("q");
  EXPECT_EQ(ReasonOf(shard_.page_error()), ErrorReason::kDataDamaged);
}

TEST_F(Durability, ALostRowOfAReturnedMessageIsDamageNotSilence) {
  shard_.Publish("q", {"1"});
  const auto got = shard_.Receive("q");
  auto& rows = shard_.store().rows();
  const auto key = storage::MessageKey(got.at(0).receipt.position);
  ASSERT_EQ(rows.erase({storage::Family::kMessages, std::string(key.data(), key.size())}), 1u);
  ASSERT_TRUE(shard_.Settle("q", got[0].receipt, SettleAction::kRelease).ok());
  shard_.Subscribe("q");
  EXPECT_EQ(ReasonOf(shard_.page_error()), ErrorReason::kDataDamaged);
}

TEST_F(Durability, ALostLastRowIsDamageToo) {
  shard_.Publish("q", {"1", "2"});
  shard_.Crash();
  auto& rows = shard_.store().rows();
  const auto key = storage::MessageKey({0, 1, LaneOfPriority(kPriorityDefault), 2});
  ASSERT_EQ(rows.erase({storage::Family::kMessages, std::string(key.data(), key.size())}), 1u);
  shard_.Subscribe("q");
  EXPECT_EQ(ReasonOf(shard_.page_error()), ErrorReason::kDataDamaged);
}

TEST_F(Durability, FailingTheTermAnswersEverythingOnceAndEndsOpenStreamsOnly) {
  const auto open = shard_.Subscribe("q");
  SubscribeCommand limited;
  limited.queue = "q";
  limited.max_messages = 1;
  shard_.Close(open);
  const auto ended = shard_.Subscribe(std::move(limited));
  shard_.Publish("q", {"1"});
  ASSERT_TRUE(ended->end.has_value());
  const auto waiting_stream = shard_.Subscribe("q");
  ReceiveCommand receive;
  receive.queue = "q";
  receive.wait_ms = 60'000;
  const auto waiting_receive = shard_.StartReceive(std::move(receive));
  const auto publish = shard_.StartPublish("q", {"2"});
  shard_.shard().FailAll(MakeError(ErrorReason::kStoreFailed, "gone"));
  EXPECT_EQ(publish.calls(), 1);
  EXPECT_EQ((*publish).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(waiting_receive.calls(), 1);
  EXPECT_FALSE((*waiting_receive).ok());
  ASSERT_TRUE(waiting_stream->end.has_value());
  EXPECT_FALSE(waiting_stream->end->ok());
}

TEST_F(Durability, AReceiptIsHonouredAfterALaterHandOutThatNobodySaw) {
  ShardHarness shard;
  ASSERT_TRUE(shard.CreateQueue("mine").ok());
  shard.Publish("mine", {"a"});
  const auto got = shard.Receive("mine");
  shard.Crash();
  SubscribeCommand command;
  command.queue = "mine";
  const auto sink = shard.StartSubscribe(std::move(command));
  shard.Turn();
  EXPECT_EQ(sink->waiting(), 0u);
  shard.Close(sink);
  EXPECT_TRUE(shard.Ack("mine", got[0].receipt).ok());
}

TEST_F(Durability, AReceiptOfAnEarlierBootIsToldThatItsMessageWasPurged) {
  ShardHarness shard;
  ASSERT_TRUE(shard.CreateQueue("mine").ok());
  shard.Publish("mine", {"acked", "purged"});
  const auto got = shard.Receive("mine", 2);
  ASSERT_TRUE(shard.Ack("mine", got[0].receipt).ok());
  shard.Crash();
  ASSERT_TRUE(shard.Purge("mine", true).ok());
  EXPECT_TRUE(shard.Ack("mine", got[0].receipt).ok());
  EXPECT_EQ(ReasonOf(shard.Ack("mine", got[1].receipt)), ErrorReason::kLeaseExpired);
}

TEST_F(Durability, AClockThatWasSetBackDoesNotHoldRetriesAndLeases) {
  ShardHarness shard;
  ASSERT_TRUE(shard.CreateQueue("mine").ok());
  shard.Publish("mine", {"retry", "lease"});
  const auto got = shard.Receive("mine", 2);
  ASSERT_TRUE(shard.Settle("mine", got[0].receipt, SettleAction::kRetry).ok());
  shard.CleanStop(0, -60 * kDayMs);
  const auto sink = shard.Subscribe("mine");
  shard.Pass(kLeaseMsDefault);
  EXPECT_GE(sink->waiting(), 2u);
}

}  // namespace
}  // namespace sluice::broker
