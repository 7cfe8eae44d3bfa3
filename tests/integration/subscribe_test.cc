// Subscribe: pushes within credit, ends, and what becomes of leases.
#include <set>

#include "absl/time/clock.h"
#include "tests/integration/fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;
using ::testing::Not;

class SubscribeTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    MakeQueue("q");
  }
};

TEST_F(SubscribeTest, StartedSaysWhatWasGrantedBeforeThereIsAnyMessage) {
  Subscription subscription(*client_, SubscribeTo("q"));
  EXPECT_THAT(subscription.started().consumer_id(), Not(IsEmpty()));
  EXPECT_EQ(subscription.started().queue(), "q");
  EXPECT_EQ(subscription.started().lease().seconds(), 30);
  EXPECT_EQ(subscription.started().max_in_flight(), 100);
  EXPECT_EQ(subscription.started().max_bytes_in_flight(), 2 << 20);
}

TEST_F(SubscribeTest, PublishIsPushedAndAckedInOrder) {
  Subscription subscription(*client_, SubscribeTo("q"));
  const std::vector<std::string> bodies = Numbered("m", 50);
  Publish("q", bodies);
  const std::vector<v1::Delivery> deliveries = subscription.Next(bodies.size());
  EXPECT_THAT(BodiesOf(deliveries), ElementsAreArray(bodies));
  EXPECT_EQ(Stats("q").leased(), 50);
  EXPECT_EQ(Ack("q", ReceiptsOf(deliveries)).acked(), 50);
  EXPECT_EQ(Stats("q").leased(), 0);
}

TEST_F(SubscribeTest, BacklogFromBeforeIsPushedBeyondOneCredit) {
  const std::vector<std::string> bodies = Numbered("m", 1000);
  Publish("q", bodies);
  Subscription subscription(*client_, SubscribeTo("q"));
  std::vector<std::string> seen;
  while (seen.size() < bodies.size()) {
    const v1::Delivery delivery = subscription.Next(1)[0];
    seen.push_back(delivery.message().body());
    ASSERT_EQ(Ack("q", {delivery.receipt()}).acked(), 1);
  }
  EXPECT_THAT(seen, ElementsAreArray(bodies));
}

TEST_F(SubscribeTest, CreditInMessagesBoundsWhatIsLeased) {
  Publish("q", Numbered("m", 10));
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_max_in_flight(3);
  Subscription subscription(*client_, request);
  const std::vector<v1::Delivery> deliveries = subscription.Next(3);
  EXPECT_EQ(Stats("q").leased(), 3);
  EXPECT_EQ(Stats("q").ready(), 7);
  Ack("q", {deliveries[1].receipt()});
  EXPECT_EQ(subscription.Next(1)[0].message().body(), "m3") << "credit comes back with the ack";
  EXPECT_EQ(Stats("q").leased(), 3);
}

TEST_F(SubscribeTest, CreditInBytesBoundsWhatIsLeased) {
  Publish("q", {std::string(400, 'a'), std::string(400, 'b'), std::string(400, 'c')});
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_max_bytes_in_flight(1000);
  Subscription subscription(*client_, request);
  const std::vector<v1::Delivery> deliveries = subscription.Next(2);
  EXPECT_EQ(Stats("q").leased(), 2);
  Ack("q", ReceiptsOf(deliveries));
  EXPECT_EQ(subscription.Next(1)[0].message().body(), std::string(400, 'c'));
}

TEST_F(SubscribeTest, MessageLargerThanTheCreditGoesAlone) {
  Publish("q", {"small", std::string(5000, 'x'), "after"});
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_max_bytes_in_flight(1000);
  Subscription subscription(*client_, request);
  const v1::Delivery small = subscription.Next(1)[0];
  EXPECT_EQ(Stats("q").leased(), 1) << "the large one waits until nothing else is out";
  Ack("q", {small.receipt()});
  const v1::Delivery large = subscription.Next(1)[0];
  EXPECT_EQ(large.message().body().size(), 5000u);
  EXPECT_EQ(Stats("q").leased(), 1);
  Ack("q", {large.receipt()});
  EXPECT_EQ(subscription.Next(1)[0].message().body(), "after");
}

TEST_F(SubscribeTest, TwoConsumersShareWithoutOverlap) {
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_max_in_flight(50);
  Subscription one(*client_, request);
  Subscription two(*client_, request);
  Publish("q", Numbered("m", 100));
  std::set<std::string> seen;
  for (const std::string& body : BodiesOf(one.Next(50))) seen.insert(body);
  for (const std::string& body : BodiesOf(two.Next(50))) seen.insert(body);
  EXPECT_EQ(seen.size(), 100u);
}

TEST_F(SubscribeTest, ExpiryTellsTheConsumerAndDeliversAgain) {
  v1::SubscribeRequest request = SubscribeTo("q");
  *request.mutable_lease() = ToProto(kShortestLease);
  request.set_max_in_flight(1);
  Subscription subscription(*client_, request);
  Publish("q", {"m"});
  const v1::Delivery first = subscription.Next(1)[0];
  const std::optional<v1::LeaseLost> lost = subscription.NextLeaseLost();
  ASSERT_TRUE(lost.has_value());
  EXPECT_THAT(lost->receipts(), ElementsAre(first.receipt()));
  EXPECT_EQ(lost->reason(), v1::ERROR_REASON_LEASE_EXPIRED);
  EXPECT_EQ(subscription.Next(1)[0].attempt(), 2);
}

TEST_F(SubscribeTest, MaxMessagesEndsTheStreamOkAndKeepsLeases) {
  Publish("q", Numbered("m", 5));
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_max_messages(2);
  Subscription subscription(*client_, request);
  const std::vector<v1::Delivery> deliveries = subscription.Next(2);
  EXPECT_THAT(subscription.Finish(), IsOk());
  EXPECT_EQ(Stats("q").leased(), 2);
  EXPECT_EQ(Stats("q").ready(), 3);
  EXPECT_EQ(Ack("q", ReceiptsOf(deliveries)).acked(), 2);
}

TEST_F(SubscribeTest, IdleTimeoutEndsTheStreamOkAndKeepsLeases) {
  Publish("q", {"m"});
  v1::SubscribeRequest request = SubscribeTo("q");
  *request.mutable_idle_timeout() = ToProto(absl::Milliseconds(300));
  const absl::Time start = absl::Now();
  Subscription subscription(*client_, request);
  const v1::Delivery delivery = subscription.Next(1)[0];
  EXPECT_THAT(subscription.Finish(), IsOk());
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(290));
  EXPECT_EQ(Stats("q").leased(), 1);
  EXPECT_EQ(Ack("q", {delivery.receipt()}).acked(), 1);
}

TEST_F(SubscribeTest, AutoAckSettlesByHandingOut) {
  Publish("q", Numbered("m", 300));
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_auto_ack(true);
  Subscription subscription(*client_, request);
  const std::vector<v1::Delivery> deliveries = subscription.Next(300);
  EXPECT_THAT(deliveries[0].receipt(), IsEmpty());
  EXPECT_TRUE(WaitUntil([&] {
    const v1::QueueStats stats = Stats("q");
    return stats.leased() + stats.ready() == 0;
  }));
}

TEST_F(SubscribeTest, CancelMakesLeasesReadyAtOnceAsAFailure) {
  Publish("q", {"m"});
  {
    Subscription subscription(*client_, SubscribeTo("q"));
    subscription.Next(1);
  }
  const v1::Delivery again = ReceiveAll("q", 1)[0];
  EXPECT_EQ(again.attempt(), 2);
  EXPECT_EQ(again.delivery_count(), 2);
}

TEST_F(SubscribeTest, KeepLeasesOnCloseKeepsThem) {
  Publish("q", {"m"});
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_keep_leases_on_close(true);
  std::string receipt;
  {
    Subscription subscription(*client_, request);
    receipt = subscription.Next(1)[0].receipt();
  }
  ASSERT_TRUE(WaitUntil([&] { return Stats("q").consumers() == 0; }));
  EXPECT_EQ(Stats("q").leased(), 1);
  EXPECT_EQ(Ack("q", {receipt}).acked(), 1);
}

TEST_F(SubscribeTest, NewConsumerGetsWorkWhileAnotherSitsOnItsCredit) {
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_max_in_flight(10);
  Subscription hoarder(*client_, request);
  Publish("q", Numbered("m", 20));
  hoarder.Next(10);
  Subscription fresh(*client_, request);
  EXPECT_EQ(fresh.Next(10).size(), 10u);
}

TEST_F(SubscribeTest, DeletedQueueEndsTheStream) {
  Subscription subscription(*client_, SubscribeTo("q"));
  v1::DeleteQueueRequest request;
  request.set_queue("q");
  v1::DeleteQueueResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::DeleteQueue, request, &response), IsOk());
  EXPECT_THAT(subscription.Finish(), FailsWith(grpc::StatusCode::NOT_FOUND, "QUEUE_DELETED"));
}

TEST_F(SubscribeTest, PurgeWithLeasedTellsTheConsumer) {
  Subscription subscription(*client_, SubscribeTo("q"));
  Publish("q", {"m"});
  const v1::Delivery delivery = subscription.Next(1)[0];
  v1::PurgeQueueRequest request;
  request.set_queue("q");
  request.set_include_leased(true);
  v1::PurgeQueueResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::PurgeQueue, request, &response), IsOk());
  EXPECT_EQ(response.purged(), 1);
  const std::optional<v1::LeaseLost> lost = subscription.NextLeaseLost();
  ASSERT_TRUE(lost.has_value());
  EXPECT_EQ(lost->reason(), v1::ERROR_REASON_MESSAGE_REMOVED);
  EXPECT_THAT(lost->receipts(), ElementsAre(delivery.receipt()));
}

TEST_F(SubscribeTest, AllLeasesThatAPurgeEndsAreToldInOneResponse) {
  MakeQueue("q");
  Subscription subscription(*client_, SubscribeTo("q"));
  Publish("q", Numbered("m", 50));
  const std::vector<v1::Delivery> deliveries = subscription.Next(50);
  v1::PurgeQueueRequest request;
  request.set_queue("q");
  request.set_include_leased(true);
  v1::PurgeQueueResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::PurgeQueue, request, &response), IsOk());
  EXPECT_EQ(response.purged(), 50);
  const std::optional<v1::LeaseLost> lost = subscription.NextLeaseLost();
  ASSERT_TRUE(lost.has_value());
  EXPECT_EQ(lost->receipts_size(), 50);
}

}  // namespace
}  // namespace sluice::testing
