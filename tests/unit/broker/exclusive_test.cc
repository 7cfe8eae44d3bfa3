// Exclusive consumers, single active ones, consumer priorities, credit, drain and closing.
#include <gtest/gtest.h>

#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::BodiesOf;
using ::sluice::testing::RecordingSink;
using ::sluice::testing::Reply;
using ::sluice::testing::ShardHarness;
using Bodies = std::vector<std::string>;
using Sink = std::shared_ptr<RecordingSink>;

class ConsumersTest : public ::testing::Test {
 protected:
  ConsumersTest() { EXPECT_TRUE(shard_.CreateQueue("q").ok()); }
  Sink Subscribe(bool exclusive, int32_t priority = 0, int32_t max_in_flight = 100) {
    SubscribeCommand command;
    command.queue = "q";
    command.exclusive = exclusive;
    command.consumer_priority = priority;
    command.max_in_flight = max_in_flight;
    return shard_.Subscribe(std::move(command));
  }
  void SetSingleActive(bool single = true) {
    QueueConfigChange change;
    change.name = "q";
    change.single_active_consumer = single;
    ASSERT_TRUE(shard_.UpdateQueue(change).ok());
  }
  std::vector<ConsumerInfo> List() {
    Reply<absl::StatusOr<ListConsumersCommand::Outcome>> reply;
    ListConsumersCommand command;
    command.queue = "q";
    command.done = reply.Done();
    shard_.Run(std::move(command));
    return (**reply).consumers;
  }
  absl::Status CloseConsumer(SubscriptionId id) {
    Reply<absl::Status> reply;
    shard_.Run(CloseConsumerCommand{id, reply.Done()});
    return *reply;
  }
  static ErrorReason EndOf(const Sink& sink) {
    return sink->end ? ReasonOf(*sink->end) : ErrorReason::kUnspecified;
  }
  ShardHarness shard_;
};

TEST_F(ConsumersTest, AnExclusiveConsumerIsTheOnlyOne) {
  const auto first = Subscribe(true);
  EXPECT_EQ(EndOf(Subscribe(true)), ErrorReason::kExclusive);
  EXPECT_EQ(EndOf(Subscribe(false)), ErrorReason::kExclusive);
  ReceiveCommand receive;
  receive.queue = "q";
  const auto refused = shard_.StartReceive(std::move(receive));
  ASSERT_TRUE(refused.answered());
  EXPECT_EQ(ReasonOf((*refused).status()), ErrorReason::kExclusive);
  shard_.Close(first);
  const auto shared = Subscribe(false);
  EXPECT_FALSE(shared->end);
  EXPECT_EQ(EndOf(Subscribe(true)), ErrorReason::kExclusive) << "there is another";
  shard_.Close(shared);
  EXPECT_FALSE(Subscribe(true)->end);
}

TEST_F(ConsumersTest, OneConsumerIsActiveAndTheNextTakesOverWhenTheLeasesAreOver) {
  SetSingleActive();
  const auto first = Subscribe(false);
  const auto second = Subscribe(false);
  shard_.Publish("q", {"a", "b"});
  const auto got = first->Take();
  EXPECT_EQ(got.size(), 2u);
  EXPECT_EQ(second->waiting(), 0u);
  const auto listed = List();
  ASSERT_EQ(listed.size(), 2u);
  EXPECT_TRUE(listed[0].active);
  EXPECT_FALSE(listed[1].active);
  EXPECT_EQ(listed[0].in_flight, 2);
  shard_.Close(first);
  EXPECT_EQ(BodiesOf(second->Take()), (Bodies{"a", "b"}));
  EXPECT_TRUE(List()[0].active);
}

TEST_F(ConsumersTest, KeptLeasesHoldUpTheTakeoverUntilTheyAreSettledOrExpire) {
  SetSingleActive();
  SubscribeCommand command;
  command.queue = "q";
  command.keep_leases_on_close = true;
  const auto first = shard_.Subscribe(std::move(command));
  const auto second = Subscribe(false);
  shard_.Publish("q", {"a", "b"});
  const auto got = first->Take();
  shard_.Close(first);
  shard_.Publish("q", {"c"});
  EXPECT_EQ(second->waiting(), 0u);
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  EXPECT_EQ(second->waiting(), 0u);
  shard_.Pass(kLeaseMsDefault);
  EXPECT_EQ(second->Take().size(), 2u);
}

TEST_F(ConsumersTest, ASingleActiveQueueRefusesReceiveAndCanBeSwitched) {
  SetSingleActive();
  ReceiveCommand receive;
  receive.queue = "q";
  const auto refused = shard_.StartReceive(std::move(receive));
  ASSERT_TRUE(refused.answered());
  EXPECT_EQ(ReasonOf((*refused).status()), ErrorReason::kExclusive);
  const auto low = Subscribe(false, 0);
  const auto high = Subscribe(false, 5, /*max_in_flight=*/1);
  SetSingleActive(false);
  shard_.Publish("q", {"a", "b", "c"});
  EXPECT_EQ(high->waiting(), 1u);
  EXPECT_EQ(low->waiting(), 2u);
  SetSingleActive();
  shard_.Publish("q", {"d"});
  EXPECT_EQ(high->waiting() + low->waiting(), 3u) << "leases come first";
  for (const Sink& sink : {low, high}) {
    for (const auto& delivery : sink->Take()) ASSERT_TRUE(shard_.Ack("q", delivery.receipt).ok());
  }
  EXPECT_EQ(BodiesOf(high->Take()), Bodies{"d"}) << "the highest priority is chosen";
}

TEST_F(ConsumersTest, HigherConsumerPrioritiesAreServedFirstWhileTheyHaveCredit) {
  const auto low = Subscribe(false, -1);
  const auto high = Subscribe(false, 1, /*max_in_flight=*/2);
  shard_.Publish("q", {"a", "b", "c"});
  const auto got = high->Take();
  EXPECT_EQ(BodiesOf(got), (Bodies{"a", "b"}));
  EXPECT_EQ(BodiesOf(low->Take()), Bodies{"c"});
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  shard_.Publish("q", {"d", "e"});
  EXPECT_EQ(BodiesOf(high->Take()), Bodies{"d"});
  EXPECT_EQ(BodiesOf(low->Take()), Bodies{"e"});
}

TEST_F(ConsumersTest, CreditIsAbsoluteAndZeroHolds) {
  const auto sink = Subscribe(false, 0, 2);
  shard_.Publish("q", {"a", "b", "c", "d", "e"});
  EXPECT_EQ(sink->waiting(), 2u);
  shard_.Run(SetCreditCommand{sink.get(), 4, kMaxBytesInFlightDefault});
  auto got = sink->Take();
  EXPECT_EQ(got.size(), 4u);
  shard_.Run(SetCreditCommand{sink.get(), 0, 0});
  for (const auto& delivery : got) ASSERT_TRUE(shard_.Ack("q", delivery.receipt).ok());
  EXPECT_EQ(sink->waiting(), 0u);
  EXPECT_EQ(shard_.GetQueue("q").waiting.front(), WaitReason::kNoCredit);
  shard_.Run(SetCreditCommand{sink.get(), 1, 1});
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"e"}) << "a larger message goes alone";
}

// A consumer whose bytes did not suffice for one message stays for a smaller one.
TEST_F(ConsumersTest, CreditThatIsTooSmallForOneMessageTakesTheNext) {
  SubscribeCommand command;
  command.queue = "q";
  command.max_bytes_in_flight = 1000;
  command.lease_ms = kLeaseMsMax;
  const auto sink = shard_.Subscribe(std::move(command));
  shard_.Publish("q", {std::string(500, 'x')});
  ASSERT_EQ(sink->Take().size(), 1u);
  shard_.Publish("q", {std::string(900, 'L')});
  EXPECT_EQ(sink->waiting(), 0u);
  shard_.Publish("q", {"urgent"}, 9);
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"urgent"});
  const auto other = shard_.Receive("q");
  ASSERT_EQ(other.size(), 1u);
  ASSERT_TRUE(shard_.Ack("q", other[0].receipt).ok());
  shard_.Publish("q", {"1", "2"});
  EXPECT_EQ(BodiesOf(sink->Take()), (Bodies{"1", "2"}));
}

TEST_F(ConsumersTest, DrainedComesAfterTheLastDeliveryAndNewCreditGoesOn) {
  shard_.Publish("q", {"a"});
  shard_.Crash();  // the grant of a backlog waits for a row
  SubscribeCommand command;
  command.queue = "q";
  const auto sink = shard_.StartSubscribe(std::move(command));
  while (shard_.ServeReads()) {
  }
  shard_.Start(DrainSubscriptionCommand{sink.get()});
  EXPECT_EQ(sink->drained, 0) << "one is on its way";
  shard_.RunUntilQuiet();
  EXPECT_EQ(sink->waiting(), 1u);
  EXPECT_EQ(sink->drained, 1);
  shard_.Publish("q", {"b"});
  EXPECT_EQ(sink->waiting(), 1u);
  ASSERT_TRUE(shard_.Ack("q", sink->Take()[0].receipt).ok());
  shard_.Run(SetCreditCommand{sink.get(), 10, kMaxBytesInFlightDefault});
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"b"});
  shard_.Run(DrainSubscriptionCommand{sink.get()});
  EXPECT_EQ(sink->drained, 2);
}

TEST_F(ConsumersTest, ClosingAConsumerEndsItsStreamAndReturnsItsMessages) {
  const auto sink = Subscribe(false);
  shard_.Publish("q", {"a"});
  const SubscriptionId id = List()[0].id;
  EXPECT_EQ(id, sink->started->id);
  ASSERT_TRUE(CloseConsumer(id).ok());
  EXPECT_EQ(sink->end->code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(List().empty());
  EXPECT_EQ(CloseConsumer(id).code(), absl::StatusCode::kNotFound);
  const auto got = shard_.Receive("q");
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].attempt, 2);
  shard_.Close(sink);
}

// What nobody has been told may still be undone.
TEST_F(ConsumersTest, TheEndOfAQueueAndOfALeaseIsToldOnlyWhenItIsDurable) {
  const auto sink = Subscribe(false);
  shard_.Publish("q", {"a"});
  PurgeQueueCommand purge;
  purge.queue = "q";
  purge.include_leased = true;
  purge.done = [](absl::StatusOr<int64_t>) {};
  shard_.Start(std::move(purge));
  EXPECT_TRUE(sink->lost.empty());
  DeleteQueueCommand remove;
  remove.queue = "q";
  remove.done = [](absl::Status) {};
  shard_.Start(std::move(remove));
  EXPECT_FALSE(sink->end);
  shard_.Crash();
  EXPECT_EQ(shard_.Stats("q").ready, 1);
}

}  // namespace
}  // namespace sluice::broker
