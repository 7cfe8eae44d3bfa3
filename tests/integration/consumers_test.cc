// Who gets what: exclusive, single active, consumer priority, fair shares; and who is who.
#include <set>

#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

constexpr grpc::StatusCode kPrecondition = grpc::StatusCode::FAILED_PRECONDITION;

class ConsumersTest : public FeatureTest {
 protected:
  static v1::SubscribeRequest Named(const std::string& queue, const std::string& consumer) {
    v1::SubscribeRequest request = SubscribeTo(queue);
    request.set_consumer(consumer);
    return request;
  }
  std::vector<v1::Consumer> Consumers(const std::string& queue, int page_size = 0) {
    std::vector<v1::Consumer> all;
    v1::ListConsumersRequest request;
    request.set_queue(queue);
    request.set_page_size(page_size);
    do {
      v1::ListConsumersResponse response;
      EXPECT_THAT(CallAdmin(&AdminService::Stub::ListConsumers, request, &response), IsOk());
      all.insert(all.end(), response.consumers().begin(), response.consumers().end());
      request.set_page_token(response.next_page_token());
    } while (!request.page_token().empty());
    return all;
  }
  grpc::Status Close(const std::string& consumer_id) {
    v1::CloseConsumerRequest request;
    request.set_consumer_id(consumer_id);
    v1::CloseConsumerResponse response;
    return CallAdmin(&AdminService::Stub::CloseConsumer, request, &response);
  }
  grpc::Status TryReceive(const std::string& queue) {
    v1::ReceiveRequest request;
    request.set_queue(queue);
    v1::ReceiveResponse response;
    return CallQueues(&QueueService::Stub::Receive, request, &response);
  }
};

// ---- exclusive

TEST_F(ConsumersTest, AnExclusiveConsumerIsTheOnlyOneWhileItLives) {
  MakeQueue("q");
  v1::SubscribeRequest exclusive = SubscribeTo("q");
  exclusive.set_exclusive(true);
  {
    Subscription only(*client_, exclusive);
    EXPECT_THAT(TrySubscribe(SubscribeTo("q")), FailsWith(kPrecondition, "EXCLUSIVE"));
    EXPECT_THAT(TrySubscribe(exclusive), FailsWith(kPrecondition, "EXCLUSIVE"));
    EXPECT_THAT(TryReceive("q"), FailsWith(kPrecondition, "EXCLUSIVE"));
    Publish("q", {"m"});
    EXPECT_EQ(only.Next()->message().body(), "m");
  }
  EXPECT_TRUE(WaitUntil([&] { return Stats("q").consumers() == 0; }));
  Subscription shared(*client_, SubscribeTo("q"));
  EXPECT_THAT(TrySubscribe(exclusive), FailsWith(kPrecondition, "EXCLUSIVE"))
      << "there is another";
  EXPECT_EQ(shared.Next()->message().body(), "m");
}

// ---- single active

class SingleActiveTest : public ConsumersTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    v1::QueueConfig config = QueueNamed("q");
    config.set_single_active_consumer(true);
    Create(config);
  }
};

TEST_F(SingleActiveTest, AnotherTakesOverOnceTheLeasesOfTheFirstAreOver) {
  auto first = std::make_unique<ConsumeStream>(*client_, Named("q", "first"));
  Subscription second(*client_, Named("q", "second"));
  Publish("q", {"1", "2", "3"});
  const std::vector<v1::Delivery> deliveries = first->Next(3);
  const std::vector<v1::Consumer> consumers = Consumers("q");
  ASSERT_THAT(consumers, SizeIs(2));
  EXPECT_TRUE(consumers[0].active());
  EXPECT_FALSE(consumers[1].active());
  EXPECT_THAT(TryReceive("q"), FailsWith(kPrecondition, "EXCLUSIVE"));

  first->Ack(1, {deliveries[0].receipt()});
  EXPECT_EQ(first->NextResults().request_id(), 1);
  // In good order: what it holds stays leased, and holds up the takeover until it is settled.
  first->HalfClose();
  EXPECT_THAT(first->Finish(), IsOk());
  EXPECT_TRUE(WaitUntil([&] { return Consumers("q").size() == 1; }));
  EXPECT_FALSE(Consumers("q")[0].active());
  Publish("q", {"4"});
  Ack("q", {deliveries[1].receipt()});
  Nack("q", deliveries[2].receipt(), v1::NACK_ACTION_RELEASE);
  EXPECT_THAT(BodiesOf(second.Next(2)), ElementsAre("3", "4"));
  EXPECT_TRUE(Consumers("q")[0].active());
}

TEST_F(SingleActiveTest, ABrokenStreamHandsOverAtOnce) {
  v1::SubscribeRequest request = Named("q", "first");
  request.set_max_in_flight(2);
  auto first = std::make_unique<ConsumeStream>(*client_, request);
  Publish("q", {"1", "2", "3", "4"});
  first->Next(2);
  Subscription second(*client_, Named("q", "second"));
  first->Cancel();
  EXPECT_THAT(BodiesOf(second.Next(4)), ElementsAre("1", "2", "3", "4")) << "in order";
}

TEST_F(SingleActiveTest, AfterACrashWhoeverComesFirstIsActive) {
  {
    ConsumeStream first(*client_, SubscribeTo("q"));
    Publish("q", {"m"});
    first.Next();
    KillAndRestart();
  }
  Subscription second(*client_, SubscribeTo("q"));
  EXPECT_EQ(second.Next()->message().body(), "m");
}

TEST_F(SingleActiveTest, AChangeOfTheQueueLeavesTheActiveOneActive) {
  Subscription active(*client_, SubscribeTo("q"));
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_consumer_priority(5);
  Subscription waiting(*client_, request);
  Publish("q", {"one"});
  EXPECT_EQ(active.Next()->message().body(), "one");
  v1::QueueConfig config = QueueNamed("q");
  config.set_max_length(1000);
  Update(config);
  Publish("q", {"two"});
  EXPECT_EQ(active.Next()->message().body(), "two");
}

TEST_F(SingleActiveTest, CanBeSwitchedOnALiveQueue) {
  MakeQueue("other");
  Subscription one(*client_, SubscribeTo("other"));
  Subscription two(*client_, SubscribeTo("other"));
  v1::QueueConfig config = QueueNamed("other");
  config.set_single_active_consumer(true);
  Update(config);
  int active = 0;
  for (const v1::Consumer& consumer : Consumers("other")) active += consumer.active() ? 1 : 0;
  EXPECT_EQ(active, 1);
  config.set_single_active_consumer(false);
  Update(config);
  EXPECT_THAT(TryReceive("other"), IsOk());
}

// ---- shares

TEST_F(ConsumersTest, HigherConsumerPrioritiesAreServedFirstWhileTheyHaveCredit) {
  MakeQueue("q");
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_consumer_priority(-1);
  Subscription low(*client_, request);
  request.set_consumer_priority(10);
  request.set_max_in_flight(3);
  Subscription high(*client_, request);
  Publish("q", Numbered("m", 5));
  EXPECT_THAT(BodiesOf(high.Next(3)), ElementsAre("m0", "m1", "m2"));
  EXPECT_THAT(BodiesOf(low.Next(2)), ElementsAre("m3", "m4"));
}

TEST_F(ConsumersTest, EqualsTakeTurns) {
  MakeQueue("q");
  std::vector<std::unique_ptr<Subscription>> consumers;
  for (int i = 0; i < 4; ++i) {
    consumers.push_back(std::make_unique<Subscription>(*client_, SubscribeTo("q")));
  }
  Publish("q", Numbered("m", 40));
  std::set<std::string> seen;
  for (const auto& consumer : consumers) {
    for (const std::string& body : BodiesOf(consumer->Next(10))) seen.insert(body);
  }
  EXPECT_EQ(seen.size(), 40u);
  for (const v1::Consumer& consumer : Consumers("q")) EXPECT_EQ(consumer.in_flight(), 10);
}

TEST_F(ConsumersTest, ANewConsumerGetsWorkAtOnceWhileAnOldOneSitsOnItsMessages) {
  MakeQueue("q");
  Publish("q", Numbered("m", 1000));
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_max_in_flight(10);
  Subscription old(*client_, request);
  old.Next(10);
  Subscription fresh(*client_, request);
  EXPECT_THAT(fresh.Next(10), SizeIs(10));
  // The old one has unused credit again: both go on.
  Subscription third(*client_, request);
  EXPECT_THAT(third.Next(10), SizeIs(10));
  EXPECT_EQ(Stats("q").leased(), 30);
}

// ---- list and close

TEST_F(ConsumersTest, TheListSaysWhoHoldsWhat) {
  MakeQueue("a");
  MakeQueue("b");
  Publish("a", {"1", "2"});
  Subscription one(*client_, Named("a", "one"));
  const std::vector<v1::Delivery> held = one.Next(2);
  Subscription two(*client_, Named("b", "two"));
  const std::vector<v1::Consumer> of_a = Consumers("a");
  ASSERT_THAT(of_a, SizeIs(1));
  EXPECT_EQ(of_a[0].consumer_id(), one.started().consumer_id());
  EXPECT_EQ(of_a[0].consumer(), "one");
  EXPECT_EQ(of_a[0].queue(), "a");
  EXPECT_EQ(of_a[0].principal(), "");
  EXPECT_THAT(of_a[0].peer(), HasSubstr("127.0.0.1"));
  EXPECT_EQ(of_a[0].in_flight(), 2);
  EXPECT_EQ(of_a[0].bytes_in_flight(), Stats("a").bytes());
  EXPECT_TRUE(of_a[0].active());
  EXPECT_GT(of_a[0].connect_time().seconds(), 0);
  Ack("a", ReceiptsOf(held));
  EXPECT_EQ(Consumers("a")[0].in_flight(), 0);

  EXPECT_THAT(Consumers("", /*page_size=*/1), SizeIs(2)) << "all queues, page by page";
  v1::ListConsumersRequest request;
  request.set_queue("nowhere");
  v1::ListConsumersResponse response;
  EXPECT_THAT(CallAdmin(&AdminService::Stub::ListConsumers, request, &response),
              FailsWith(grpc::StatusCode::NOT_FOUND, "QUEUE_NOT_FOUND"));
  request.set_queue("a");
  request.set_page_token("made up");
  EXPECT_THAT(CallAdmin(&AdminService::Stub::ListConsumers, request, &response),
              FailsWith(grpc::StatusCode::INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"));
}

TEST_F(ConsumersTest, AStuckOneIsTakenOffAndItsMessagesAreReadyAtOnce) {
  MakeQueue("q");
  Publish("q", {"1", "2"});
  v1::SubscribeRequest request = Named("q", "stuck");
  request.set_keep_leases_on_close(true);
  Subscription stuck(*client_, request);
  const std::vector<v1::Delivery> held = stuck.Next(2);
  EXPECT_THAT(Close(stuck.started().consumer_id()), IsOk());
  EXPECT_THAT(stuck.Finish(), FailsWith(grpc::StatusCode::ABORTED, "CONSUMER_CLOSED"));
  EXPECT_THAT(Close(stuck.started().consumer_id()),
              FailsWith(grpc::StatusCode::NOT_FOUND, "CONSUMER_NOT_FOUND"));
  const std::vector<v1::Delivery> again = ReceiveAll("q", 2);
  EXPECT_THAT(BodiesOf(again), ElementsAre("1", "2"));
  EXPECT_EQ(again[0].attempt(), 2);
  EXPECT_THAT(Ack("q", {held[0].receipt()}).failures(),
              ElementsAre(ItemFails(0, kPrecondition, v1::ERROR_REASON_LEASE_EXPIRED)));
  EXPECT_EQ(Close(stuck.started().consumer_id()).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Close("never given out").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(Close(""), FailsWithField(grpc::StatusCode::INVALID_ARGUMENT, "INVALID_FIELD",
                                        "consumer_id"));
}

}  // namespace
}  // namespace sluice::testing
