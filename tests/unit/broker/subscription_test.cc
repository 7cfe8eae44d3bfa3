// Streams and Receive calls: credit, turns, ends, and what becomes of what they held.
#include <gtest/gtest.h>

#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::BodiesOf;
using ::sluice::testing::RecordingSink;
using ::sluice::testing::Reply;
using ::sluice::testing::ShardHarness;
using ::sluice::testing::TestMessage;
using Bodies = std::vector<std::string>;

class Subscription : public ::testing::Test {
 protected:
  Subscription() { EXPECT_TRUE(shard_.CreateQueue("q").ok()); }
  static SubscribeCommand ToQ(int32_t max_in_flight = 100) {
    SubscribeCommand command;
    command.queue = "q";
    command.max_in_flight = max_in_flight;
    return command;
  }
  void Pass(int64_t ms) {
    shard_.Advance(ms);
    shard_.RunUntilQuiet();
  }
  void Written(const std::shared_ptr<RecordingSink>& sink, uint32_t deliveries) {
    shard_.Run(WrittenCommand{sink.get(), deliveries});
  }
  ShardHarness shard_;
};

TEST_F(Subscription, CreditInMessagesIsKeptAndGivenBackBySettling) {
  shard_.Publish("q", {"1", "2", "3", "4"});
  const auto sink = shard_.Subscribe(ToQ(2));
  auto got = sink->Take();
  ASSERT_EQ(BodiesOf(got), (Bodies{"1", "2"}));
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"3"});
}

TEST_F(Subscription, CreditInBytesIsKeptAndALargerMessageGoesAlone) {
  const std::string large(1000, 'l');
  shard_.Publish("q", {"a", large, "b"});
  auto command = ToQ();
  command.max_bytes_in_flight = 500;
  const auto sink = shard_.Subscribe(std::move(command));
  auto got = sink->Take();
  ASSERT_EQ(BodiesOf(got), Bodies{"a"});
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  got = sink->Take();
  ASSERT_EQ(BodiesOf(got), Bodies{large});
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"b"});
}

TEST_F(Subscription, NothingIsGrantedFarAheadOfWhatIsWritten) {
  const std::string large(kUnwrittenBytesPerStreamMax / 4, 'l');
  shard_.Publish("q", Bodies(6, large));
  const auto slow = shard_.Subscribe(ToQ());
  auto command = ToQ();
  command.max_bytes_in_flight = kMaxBytesInFlightCeiling;
  shard_.Close(slow);
  const auto sink = shard_.Subscribe(std::move(command));
  const auto got = sink->Take();
  ASSERT_EQ(got.size(), 4u) << "credit is left, but none of it was written";
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  EXPECT_EQ(sink->waiting(), 0u);
  shard_.Run(WrittenCommand{sink.get(), 0, got[0].payload.size()});
  EXPECT_EQ(sink->waiting(), 1u);
  shard_.Run(WrittenCommand{sink.get(), 0, got[1].payload.size()});
  EXPECT_EQ(sink->waiting(), 2u);
}

TEST(SubscriptionBudget, OthersGoOnWhenSlowStreamsHoldTheWholeBudget) {
  ShardOptions options;
  options.unwritten_bytes_max = kUnwrittenReportBytes * 2;
  ShardHarness shard(options);
  ASSERT_TRUE(shard.CreateQueue("q").ok());
  shard.Publish("q", Bodies(5, std::string(kUnwrittenReportBytes, 'm')));
  SubscribeCommand command;
  command.queue = "q";
  command.max_bytes_in_flight = kMaxBytesInFlightCeiling;
  const auto slow = shard.Subscribe(std::move(command));
  EXPECT_EQ(slow->Take().size(), 2u) << "the budget of the shard";
  const auto live = shard.Subscribe("q");
  for (int i = 0; i < 3; ++i) {
    const auto got = live->Take();
    ASSERT_EQ(got.size(), 1u) << "one at a time";
    shard.Run(WrittenCommand{live.get(), 0, got[0].payload.size()});
  }
  shard.Publish("q", Bodies(2, std::string(kUnwrittenReportBytes, 'm')));
  EXPECT_EQ(live->Take().size(), 1u);
  shard.Close(slow);
  shard.Run(WrittenCommand{live.get(), 0, 2 * kUnwrittenReportBytes});
  EXPECT_GE(live->Take().size(), 1u) << "a closed stream gives its share back";
}

TEST_F(Subscription, ConsumersTakeTurns) {
  const auto one = shard_.Subscribe(ToQ());
  const auto two = shard_.Subscribe(ToQ());
  shard_.Publish("q", {"1", "2", "3", "4"});
  EXPECT_EQ(BodiesOf(one->Take()), (Bodies{"1", "3"}));
  EXPECT_EQ(BodiesOf(two->Take()), (Bodies{"2", "4"}));
}

TEST_F(Subscription, HigherPrioritiesLeaveFirstAndOrderIsKeptWithin) {
  shard_.Publish("q", {"low1", "low2"}, 0);
  shard_.Publish("q", {"high1", "high2"}, 9);
  EXPECT_EQ(BodiesOf(shard_.Subscribe(ToQ())->Take()), (Bodies{"high1", "high2", "low1", "low2"}));
}

TEST_F(Subscription, MaxMessagesEndsWithOkAndKeepsLeases) {
  shard_.Publish("q", {"1", "2", "3"});
  auto command = ToQ();
  command.max_messages = 2;
  const auto sink = shard_.Subscribe(std::move(command));
  const auto got = sink->Take();
  EXPECT_EQ(got.size(), 2u);
  ASSERT_TRUE(sink->end.has_value());
  EXPECT_TRUE(sink->end->ok());
  shard_.Close(sink);
  shard_.Close(sink);  // more than once is harmless
  EXPECT_EQ(shard_.Stats("q").leased, 2);
  EXPECT_EQ(shard_.Stats("q").consumers, 0);
  EXPECT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  Pass(kLeaseMsDefault);
  EXPECT_EQ(shard_.Stats("q").ready, 2) << "and nothing is told to the ended stream";
}

// A consumer holds "small"; the large one, which has been handed out and given back, does not fit
// beside it, and "next" and "last" wait behind that.
class BehindALargeOne : public Subscription {
 protected:
  static constexpr int64_t kTtlMs = 500;

  BehindALargeOne() {
    TestMessage large{std::string(2000, 'x')};
    large.ttl_ms = kTtlMs;
    shard_.Send("q", {large});
    const auto got = shard_.Receive("q");
    EXPECT_EQ(got.size(), 1u);
    receipt_ = got.front().receipt;
    EXPECT_TRUE(shard_.Settle("q", receipt_, SettleAction::kRelease).ok());
  }
  void Consume() {
    shard_.Send("q", {{"small", kPriorityMax}, {"next"}});
    auto command = ToQ();
    command.max_bytes_in_flight = 1500;
    sink_ = shard_.Subscribe(std::move(command));
    shard_.Send("q", {{"last"}});
    ASSERT_EQ(BodiesOf(sink_->Take()), Bodies{"small"});
  }

  Receipt receipt_;
  std::shared_ptr<RecordingSink> sink_;
};

TEST_F(BehindALargeOne, TheNextGoesOutWhenThatIsAcked) {
  Consume();
  ASSERT_TRUE(shard_.Ack("q", receipt_).ok());
  EXPECT_EQ(BodiesOf(sink_->Take()), (Bodies{"next", "last"}));
}

TEST_F(BehindALargeOne, TheNextGoesOutWhenThatIsPutOff) {
  Consume();
  ASSERT_TRUE(shard_.Settle("q", receipt_, SettleAction::kDelay, /*delay_ms=*/100).ok());
  EXPECT_EQ(BodiesOf(sink_->Take()), (Bodies{"next", "last"}));
}

TEST_F(BehindALargeOne, TheNextGoesOutWhenThatHasNeverBeenHandedOutAndExpires) {
  ASSERT_TRUE(shard_.Ack("q", receipt_).ok());
  TestMessage large{std::string(2000, 'x')};
  large.ttl_ms = kTtlMs;
  shard_.Send("q", {large});
  Consume();
  shard_.Pass(2 * kTtlMs);
  EXPECT_EQ(BodiesOf(sink_->Take()), (Bodies{"next", "last"}));
}

TEST_F(BehindALargeOne, TheNextGoesOutWhenThatHasNeverBeenHandedOutAndIsDeleted) {
  ASSERT_TRUE(shard_.Ack("q", receipt_).ok());
  EditMessagesCommand command;
  command.queue = "q";
  command.action = EditMessagesCommand::Action::kDelete;
  command.positions = shard_.Send("q", {{std::string(2000, 'x')}});
  Consume();
  ASSERT_EQ(shard_.Edit(std::move(command)).value(), 1);
  EXPECT_EQ(BodiesOf(sink_->Take()), (Bodies{"next", "last"}));
}

TEST_F(Subscription, IdleTimeoutCountsFromTheLastDelivery) {
  auto command = ToQ();
  command.idle_timeout_ms = 1000;
  const auto sink = shard_.Subscribe(std::move(command));
  Pass(900);
  shard_.Publish("q", {"1"});
  Pass(999);
  EXPECT_FALSE(sink->end.has_value());
  Pass(1);
  ASSERT_TRUE(sink->end.has_value());
  EXPECT_TRUE(sink->end->ok());
  EXPECT_EQ(shard_.Stats("q").leased, 1);
}

TEST_F(Subscription, AutoAckSettlesWhatWasWrittenAlsoAfterTheEnd) {
  shard_.Publish("q", {"1", "2", "3"});
  auto command = ToQ();
  command.auto_ack = true;
  command.max_messages = 2;
  const auto sink = shard_.Subscribe(std::move(command));
  ASSERT_TRUE(sink->end.has_value());
  EXPECT_EQ(shard_.Stats("q").leased, 2) << "not settled before it is written";
  Written(sink, 1);
  EXPECT_EQ(shard_.Stats("q").leased, 1);
  Written(sink, 5);
  EXPECT_EQ(shard_.Stats("q").leased, 0);
  EXPECT_EQ(shard_.GetQueue("q").counters.acked, 2u);
}

TEST_F(Subscription, ABrokenStreamIsAFailureOnlyOfWhatWasWritten) {
  shard_.Publish("q", {"1", "2"});
  const auto sink = shard_.Subscribe(ToQ());
  auto got = sink->Take();
  ASSERT_EQ(got.size(), 2u);
  shard_.Close(sink, {got[1].receipt});
  got = shard_.Receive("q", 2);
  ASSERT_EQ(BodiesOf(got), (Bodies{"1", "2"}));
  EXPECT_EQ(got[0].attempt, 2);
  EXPECT_EQ(got[0].receipt.delivery_count, 2u);
  EXPECT_EQ(got[1].attempt, 1);
  EXPECT_TRUE(shard_.Ack("q", got[1].receipt).ok());
}

TEST_F(Subscription, AReceiptThatMayHaveReachedItsClientNamesNoOtherHandOut) {
  shard_.Publish("q", {"1"});
  const auto sink = shard_.Subscribe(ToQ());
  const auto got = sink->Take();
  ASSERT_EQ(got.size(), 1u);
  shard_.Close(sink, {got[0].receipt});  // the write failed, which does not say how far it came
  const auto again = shard_.Receive("q");
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].attempt, 1) << "no failure";
  EXPECT_EQ(ReasonOf(shard_.Ack("q", got[0].receipt)), ErrorReason::kLeaseExpired);
  // Reported twice, as a stream's end may be.
  shard_.Close(sink, {got[0].receipt});
  EXPECT_EQ(shard_.Stats("q").leased, 1);
  EXPECT_TRUE(shard_.Ack("q", again[0].receipt).ok());
}

TEST_F(Subscription, AStreamThatBreaksBeforeItsDeliveriesAreDurableReleasesThemUncounted) {
  shard_.Publish("q", {"1"});
  const auto sink = shard_.StartSubscribe(ToQ());
  ASSERT_EQ(sink->waiting(), 0u);
  shard_.Close(sink);
  EXPECT_EQ(sink->waiting(), 0u);
  const auto got = shard_.Receive("q");
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].attempt, 1);
  EXPECT_EQ(got[0].receipt.delivery_count, 1u);
}

TEST_F(Subscription, KeptLeasesOutliveTheStream) {
  shard_.Publish("q", {"1"});
  auto command = ToQ();
  command.keep_leases_on_close = true;
  const auto sink = shard_.Subscribe(std::move(command));
  const auto got = sink->Take();
  shard_.Close(sink);
  EXPECT_EQ(shard_.Stats("q").leased, 1);
  Pass(kLeaseMsDefault);
  EXPECT_EQ(shard_.Stats("q").ready, 1);
  EXPECT_TRUE(shard_.Ack("q", got.at(0).receipt).ok());
}

TEST_F(Subscription, ALostLeaseIsToldAndGivesCreditBack) {
  shard_.Publish("q", {"1"});
  const auto sink = shard_.Subscribe(ToQ(1));
  const auto got = sink->Take();
  ASSERT_EQ(got.size(), 1u);
  Pass(kLeaseMsDefault);
  ASSERT_EQ(sink->lost.size(), 1u);
  EXPECT_EQ(sink->lost[0].first, got[0].receipt);
  EXPECT_EQ(sink->lost[0].second, ErrorReason::kLeaseExpired);
  EXPECT_EQ(sink->waiting(), 1u);
}

TEST_F(Subscription, DrainingEndsStreamsAndWaitsAndRefusesWorkButSettles) {
  shard_.Publish("q", {"1"});
  const auto sink = shard_.Subscribe(ToQ(1));
  const auto got = sink->Take();
  ReceiveCommand receive;
  receive.queue = "q";
  receive.wait_ms = 60'000;
  const auto waiting = shard_.StartReceive(std::move(receive));
  bool drained = false;
  shard_.Run(DrainCommand{[&] { drained = true; }});
  EXPECT_TRUE(drained);
  EXPECT_EQ(waiting.calls(), 1);
  EXPECT_TRUE((**waiting).empty());
  EXPECT_EQ(ReasonOf(*sink->end), ErrorReason::kDraining);
  EXPECT_EQ(ReasonOf((*shard_.StartPublish("q", {"2"})).status()), ErrorReason::kDraining);
  EXPECT_EQ(ReasonOf(*shard_.StartSubscribe(ToQ())->end), ErrorReason::kDraining);
  shard_.Close(sink);
  EXPECT_EQ(shard_.Stats("q").leased, 1) << "a drain is not a failure";
  EXPECT_TRUE(shard_.Ack("q", got.at(0).receipt).ok());
}

TEST_F(Subscription, ReceiveWaitsUntilThereIsSomethingOrItsTimeIsOver) {
  EXPECT_TRUE(shard_.Receive("q").empty());
  ReceiveCommand receive;
  receive.queue = "q";
  receive.wait_ms = 1000;
  const auto empty = shard_.StartReceive(std::move(receive));
  Pass(999);
  EXPECT_FALSE(empty.answered());
  Pass(1);
  EXPECT_EQ(empty.calls(), 1);
  EXPECT_TRUE((**empty).empty());
  ReceiveCommand again;
  again.queue = "q";
  again.wait_ms = 1000;
  again.max_messages = 10;
  const auto filled = shard_.StartReceive(std::move(again));
  shard_.Publish("q", {"1", "2"});
  ASSERT_EQ(filled.calls(), 1);
  EXPECT_EQ(BodiesOf(**filled), (Bodies{"1", "2"}));
  Pass(2000);
  EXPECT_EQ(filled.calls(), 1);
}

TEST_F(Subscription, ReceiveCanBeCancelledAndTakenBack) {
  ReceiveCommand receive;
  receive.queue = "q";
  receive.wait_ms = 1000;
  receive.call_id = 77;
  const auto cancelled = shard_.StartReceive(std::move(receive));
  shard_.Run(CancelReceiveCommand{"q", 77});
  EXPECT_EQ(cancelled.calls(), 1);
  shard_.Run(CancelReceiveCommand{"q", 77});
  shard_.Publish("q", {"1"});
  EXPECT_EQ(shard_.Stats("q").ready, 1) << "a cancelled call takes nothing";
  const auto got = shard_.Receive("q");
  shard_.Run(ReceiveWrittenCommand{{got.at(0).receipt}, false, /*written=*/false});
  const auto again = shard_.Receive("q");
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].attempt, 1);
  EXPECT_EQ(again[0].receipt.delivery_count, 2u) << "it may have come through all the same";
  shard_.Run(ReceiveWrittenCommand{{again[0].receipt}, /*auto_ack=*/true, true});
  EXPECT_EQ(shard_.Stats("q").leased, 0);
}

TEST_F(Subscription, PurgeTakesBackWhatItIsToldTo) {
  shard_.Publish("q", {"1", "2", "3"});
  const auto sink = shard_.Subscribe(ToQ(1));
  const auto got = sink->Take();
  EXPECT_EQ(*shard_.Purge("q", false, /*dry_run=*/true), 2);
  EXPECT_EQ(*shard_.Purge("q", true, /*dry_run=*/true), 3);
  EXPECT_EQ(*shard_.Purge("q", false), 2);
  EXPECT_EQ(shard_.Stats("q").leased, 1);
  EXPECT_TRUE(sink->lost.empty());
  EXPECT_EQ(*shard_.Purge("q", true), 1);
  ASSERT_EQ(sink->lost.size(), 1u);
  EXPECT_EQ(sink->lost[0].second, ErrorReason::kMessageRemoved);
  EXPECT_EQ(ReasonOf(shard_.Ack("q", got.at(0).receipt)), ErrorReason::kLeaseExpired);
  Pass(10 * kMinuteMs);
  EXPECT_TRUE(shard_.Ack("q", got.at(0).receipt).ok()) << "no longer remembered";
  shard_.Publish("q", {"4"});
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"4"});
  shard_.Crash();
  EXPECT_EQ(BodiesOf(shard_.Receive("q", 5)), Bodies{"4"});
}

TEST_F(Subscription, DeletingAQueueEndsItsStreamsAndCallsAndForgetsItsRows) {
  shard_.Publish("q", {"1", "2"});
  const auto sink = shard_.Subscribe(ToQ(1));
  const auto got = sink->Take();
  ASSERT_TRUE(shard_.Settle("q", got.at(0).receipt, SettleAction::kRelease).ok());
  ASSERT_TRUE(shard_.CreateQueue("empty").ok());
  ReceiveCommand receive;
  receive.queue = "empty";
  receive.wait_ms = 1000;
  const auto waiting = shard_.StartReceive(std::move(receive));
  ASSERT_TRUE(shard_.DeleteQueue("empty").ok());
  EXPECT_EQ(ReasonOf((*waiting).status()), ErrorReason::kQueueDeleted);
  ASSERT_TRUE(shard_.DeleteQueue("q").ok());
  EXPECT_EQ(ReasonOf(*sink->end), ErrorReason::kQueueDeleted);
  Written(sink, 1);
  shard_.Close(sink, {got[0].receipt});
  Pass(kLeaseMsDefault);
  EXPECT_EQ(shard_.Totals().open_messages, 0u);
  EXPECT_EQ(shard_.Totals().window_bytes, 0u);
  EXPECT_EQ(ReasonOf(shard_.Ack("q", got[0].receipt)), ErrorReason::kQueueNotFound);
  ASSERT_TRUE(shard_.CreateQueue("q").ok());
  EXPECT_EQ(ReasonOf(shard_.Ack("q", got[0].receipt)), ErrorReason::kReceiptInvalid);
  shard_.Crash();
  EXPECT_TRUE(shard_.Receive("q").empty());
}

}  // namespace
}  // namespace sluice::broker
