// Ack, Nack, ExtendLease, lease expiry: what a receipt is good for, and for how long.
#include "absl/time/clock.h"
#include "tests/integration/fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr grpc::StatusCode kFailedPrecondition = grpc::StatusCode::FAILED_PRECONDITION;
constexpr grpc::StatusCode kInvalidArgument = grpc::StatusCode::INVALID_ARGUMENT;

class SettleTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    MakeQueue("q");
  }
};

TEST_F(SettleTest, AckedMessageIsGone) {
  Publish("q", {"a", "b"});
  const std::vector<v1::Delivery> deliveries = ReceiveAll("q", 2);
  const v1::AckResponse response = Ack("q", ReceiptsOf(deliveries));
  EXPECT_EQ(response.acked(), 2);
  EXPECT_THAT(response.failures(), IsEmpty());
  const v1::QueueStats stats = Stats("q");
  EXPECT_EQ(stats.ready() + stats.leased() + stats.delayed(), 0);
  EXPECT_EQ(stats.bytes(), 0);
}

TEST_F(SettleTest, AckWorksOnAnyConnection) {
  Publish("q", {"a"});
  const v1::Delivery delivery = ReceiveAll("q", 1)[0];
  client_ = std::make_unique<Client>(server_.address());
  EXPECT_EQ(Ack("q", {delivery.receipt()}).acked(), 1);
}

TEST_F(SettleTest, SameReceiptTwiceIsOk) {
  Publish("q", {"a"});
  const std::string receipt = ReceiveAll("q", 1)[0].receipt();
  EXPECT_EQ(Ack("q", {receipt, receipt}).acked(), 2);
  EXPECT_THAT(Ack("q", {receipt}).failures(), IsEmpty());
}

TEST_F(SettleTest, GarbledReceiptFailsAlone) {
  Publish("q", {"a", "b"});
  const std::vector<v1::Delivery> deliveries = ReceiveAll("q", 2);
  std::string garbled = deliveries[0].receipt();
  garbled[5] = garbled[5] == 'A' ? 'B' : 'A';
  const v1::AckResponse response =
      Ack("q", {garbled, deliveries[1].receipt(), "nonsense", std::string(1000, 'A')});
  EXPECT_EQ(response.acked(), 1);
  EXPECT_THAT(response.failures(),
              ElementsAre(ItemFails(0, kInvalidArgument, v1::ERROR_REASON_RECEIPT_INVALID),
                          ItemFails(2, kInvalidArgument, v1::ERROR_REASON_RECEIPT_INVALID),
                          ItemFails(3, kInvalidArgument, v1::ERROR_REASON_RECEIPT_INVALID)));
  EXPECT_EQ(Stats("q").leased(), 1);
}

TEST_F(SettleTest, ReceiptOfAnotherQueueFailsAlone) {
  MakeQueue("other");
  Publish("other", {"a"});
  const std::string receipt = ReceiveAll("other", 1)[0].receipt();
  EXPECT_THAT(Ack("q", {receipt}).failures(),
              ElementsAre(ItemFails(0, kInvalidArgument, v1::ERROR_REASON_RECEIPT_INVALID)));
  EXPECT_EQ(Stats("other").leased(), 1);
}

TEST_F(SettleTest, ExpiredLeaseRedeliversWithTheNextAttemptAndFencesTheOldReceipt) {
  Publish("q", {"slow"});
  const v1::Delivery first = ReceiveAll("q", 1, kShortestLease)[0];
  const v1::Delivery second = ReceiveAll("q", 1)[0];
  EXPECT_GE(absl::Now(), FromProto(first.lease_expires_at()) - absl::Milliseconds(50));
  EXPECT_EQ(second.message().id(), first.message().id());
  EXPECT_EQ(second.attempt(), 2);
  EXPECT_EQ(second.delivery_count(), 2);
  EXPECT_NE(second.receipt(), first.receipt());
  EXPECT_THAT(Ack("q", {first.receipt()}).failures(),
              ElementsAre(ItemFails(0, kFailedPrecondition, v1::ERROR_REASON_LEASE_EXPIRED)));
  EXPECT_EQ(Ack("q", {second.receipt()}).acked(), 1);
}

TEST_F(SettleTest, ReceiptIsHonouredAfterExpiryUntilTheMessageIsGrantedAgain) {
  Publish("q", {"slow"});
  const v1::Delivery delivery = ReceiveAll("q", 1, kShortestLease)[0];
  ASSERT_TRUE(WaitUntil([&] { return Stats("q").ready() == 1; }));
  EXPECT_EQ(Ack("q", {delivery.receipt()}).acked(), 1);
  EXPECT_THAT(Receive("q", 1, absl::ZeroDuration()), IsEmpty());
}

TEST_F(SettleTest, ExtendKeepsTheReceiptAndTheMessage) {
  Publish("q", {"long work"});
  const v1::Delivery delivery = ReceiveAll("q", 1, kShortestLease)[0];
  const v1::ExtendLeaseResponse extended =
      Extend("q", delivery.receipt(), absl::Seconds(120));
  EXPECT_THAT(extended.failures(), IsEmpty());
  EXPECT_NEAR(absl::ToDoubleSeconds(FromProto(extended.lease_expires_at()) - absl::Now()), 120, 5);
  EXPECT_THAT(Receive("q", 1, kShortestLease + absl::Milliseconds(500)), IsEmpty())
      << "the first lease would have ended meanwhile";
  EXPECT_EQ(Ack("q", {delivery.receipt()}).acked(), 1);
}

TEST_F(SettleTest, ExtendOfAnOutlivedReceiptFails) {
  Publish("q", {"m"});
  const v1::Delivery first = ReceiveAll("q", 1)[0];
  Nack("q", first.receipt(), v1::NACK_ACTION_RELEASE);
  ReceiveAll("q", 1);
  EXPECT_THAT(Extend("q", first.receipt(), absl::Seconds(60)).failures(),
              ElementsAre(ItemFails(0, kFailedPrecondition, v1::ERROR_REASON_LEASE_EXPIRED)));
}

TEST_F(SettleTest, RetryIsAFailureAndDeliversAgain) {
  Publish("q", {"m"});
  const v1::Delivery first = ReceiveAll("q", 1)[0];
  EXPECT_THAT(Nack("q", first.receipt(), v1::NACK_ACTION_RETRY).failures(), IsEmpty());
  const v1::Delivery second = ReceiveAll("q", 1)[0];
  EXPECT_EQ(second.attempt(), 2);
  EXPECT_EQ(second.delivery_count(), 2);
}

TEST_F(SettleTest, UnspecifiedNackIsRetry) {
  Publish("q", {"m"});
  Nack("q", ReceiveAll("q", 1)[0].receipt(), v1::NACK_ACTION_UNSPECIFIED);
  EXPECT_EQ(ReceiveAll("q", 1)[0].attempt(), 2);
}

TEST_F(SettleTest, RetryWaitsForTheBackoffOfTheQueue) {
  v1::CreateQueueRequest request;
  request.mutable_config()->set_name("patient");
  v1::CreateQueueResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::CreateQueue, request, &response), IsOk());
  Publish("patient", {"m"});
  const absl::Time nacked = absl::Now();
  Nack("patient", ReceiveAll("patient", 1)[0].receipt(), v1::NACK_ACTION_RETRY);
  EXPECT_EQ(Stats("patient").delayed(), 1);
  EXPECT_EQ(ReceiveAll("patient", 1)[0].attempt(), 2);
  EXPECT_GE(absl::Now() - nacked, absl::Milliseconds(990)) << "min_backoff is 1 s by default";
}

TEST_F(SettleTest, DelayIsAFailureAndNeverEarly) {
  Publish("q", {"m"});
  const v1::Delivery first = ReceiveAll("q", 1)[0];
  const absl::Time nacked = absl::Now();
  Nack("q", first.receipt(), v1::NACK_ACTION_DELAY, absl::Milliseconds(700));
  EXPECT_EQ(Stats("q").delayed(), 1);
  EXPECT_THAT(Receive("q", 1, absl::ZeroDuration()), IsEmpty());
  const v1::Delivery second = ReceiveAll("q", 1)[0];
  EXPECT_GE(absl::Now() - nacked, absl::Milliseconds(699));
  EXPECT_EQ(second.attempt(), 2);
}

TEST_F(SettleTest, DiscardDropsTheMessage) {
  Publish("q", {"m"});
  Nack("q", ReceiveAll("q", 1)[0].receipt(), v1::NACK_ACTION_DISCARD);
  const v1::QueueStats stats = Stats("q");
  EXPECT_EQ(stats.ready() + stats.leased() + stats.delayed(), 0);
}

TEST_F(SettleTest, ReleaseIsNoFailureAndCountsTheDelivery) {
  Publish("q", {"a", "b"});
  const v1::Delivery first = ReceiveAll("q", 1)[0];
  Nack("q", first.receipt(), v1::NACK_ACTION_RELEASE);
  const v1::Delivery again = ReceiveAll("q", 1)[0];
  EXPECT_EQ(again.message().body(), "a") << "it is ready at its place";
  EXPECT_EQ(again.attempt(), 1);
  EXPECT_EQ(again.delivery_count(), 2);
}

TEST_F(SettleTest, NackItemsFailAlone) {
  Publish("q", {"a"});
  v1::NackRequest request;
  request.set_queue("q");
  request.add_items()->set_receipt("nonsense");
  request.add_items()->set_receipt(ReceiveAll("q", 1)[0].receipt());
  request.mutable_items(1)->set_action(v1::NACK_ACTION_DISCARD);
  v1::NackResponse response;
  ASSERT_THAT(CallQueues(&QueueService::Stub::Nack, request, &response), IsOk());
  EXPECT_THAT(response.failures(),
              ElementsAre(ItemFails(0, kInvalidArgument, v1::ERROR_REASON_RECEIPT_INVALID)));
  EXPECT_EQ(Stats("q").leased(), 0);
}

}  // namespace
}  // namespace sluice::testing
