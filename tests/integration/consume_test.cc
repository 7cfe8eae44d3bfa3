// Consume: subscribe and settle on one stream, with credit that changes while it lives.
#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr grpc::StatusCode kInvalid = grpc::StatusCode::INVALID_ARGUMENT;

class ConsumeTest : public FeatureTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    MakeQueue("q", kShortestLease);
  }
};

TEST_F(ConsumeTest, EachRequestIsAnsweredByItsIdAndOneBadReceiptFailsAlone) {
  Publish("q", {"acked", "failed", "extended"});
  ConsumeStream stream(*client_, SubscribeTo("q"));
  EXPECT_EQ(stream.started().queue(), "q");
  EXPECT_EQ(stream.started().max_in_flight(), 100);
  const std::vector<v1::Delivery> deliveries = stream.Next(3);
  stream.Ack(7, {deliveries[0].receipt(), "garbled"});
  const v1::ItemResults acked = stream.NextResults();
  EXPECT_EQ(acked.request_id(), 7);
  EXPECT_THAT(acked.failures(),
              ElementsAre(ItemFails(1, kInvalid, v1::ERROR_REASON_RECEIPT_INVALID)));
  stream.Nack(7, deliveries[1].receipt(), v1::NACK_ACTION_RETRY);
  EXPECT_EQ(stream.NextResults().request_id(), 7) << "ids need not be unique";
  const v1::Delivery again = stream.Next().value();
  EXPECT_EQ(again.message().body(), "failed");
  EXPECT_EQ(again.attempt(), 2);

  v1::ConsumeRequest extend;
  extend.set_request_id(-3);
  extend.mutable_extend()->add_receipts(deliveries[2].receipt());
  *extend.mutable_extend()->mutable_lease() = ToProto(absl::Hours(1));
  stream.Write(extend);
  const v1::ItemResults extended = stream.NextResults();
  EXPECT_EQ(extended.request_id(), -3);
  EXPECT_GT(FromProto(extended.lease_expires_at()), FromProto(deliveries[2].lease_expires_at()));
  KillAndRestart();
  EXPECT_EQ(Stats("q").ready(), 2) << "what was answered is durable";
}

TEST_F(ConsumeTest, CreditIsAbsoluteAndZeroHolds) {
  v1::SubscribeRequest init = SubscribeTo("q");
  init.set_max_in_flight(2);
  *init.mutable_lease() = ToProto(absl::Minutes(1));
  ConsumeStream stream(*client_, init);
  Publish("q", Numbered("m", 10));
  const std::vector<v1::Delivery> first = stream.Next(2);
  stream.SetCredit(5, 1 << 20);
  stream.Next(3);
  EXPECT_EQ(Stats("q").leased(), 5) << "not two and five";
  // Less than what is held: nothing comes until as much is settled.
  stream.SetCredit(4, 1 << 20);
  stream.Ack(1, {first[0].receipt()});
  stream.NextResults();
  EXPECT_EQ(Stats("q").leased(), 4);
  EXPECT_EQ(stream.unread_deliveries(), 0u);
  stream.Ack(2, {first[1].receipt()});
  EXPECT_EQ(stream.Next()->message().body(), "m5");
  stream.SetCredit(0, 1 << 20);
  stream.Drain();  // answered once the credit is known
  EXPECT_TRUE(stream.NextDrained());
  stream.SetCredit(100, 0);
  stream.Ack(3, {"garbled"});
  stream.NextResults();
  EXPECT_EQ(stream.unread_deliveries(), 0u) << "no bytes, no messages";
  EXPECT_EQ(Stats("q").leased(), 4);
  stream.SetCredit(100, 1 << 20);
  stream.Next(4);
  EXPECT_EQ(Stats("q").ready(), 0);
}

TEST_F(ConsumeTest, ALeaseThatEndsIsPushed) {
  Publish("q", {"m"});
  v1::SubscribeRequest init = SubscribeTo("q");
  init.set_max_in_flight(1);
  ConsumeStream stream(*client_, init);
  const v1::Delivery delivery = stream.Next().value();
  const v1::LeaseLost lost = stream.NextLeaseLost();
  EXPECT_THAT(lost.receipts(), ElementsAre(delivery.receipt()));
  EXPECT_EQ(lost.reason(), v1::ERROR_REASON_LEASE_EXPIRED);
  EXPECT_EQ(stream.Next()->attempt(), 2) << "and its credit is back";
}

TEST_F(ConsumeTest, AMessageThatIsDeletedUnderItIsPushed) {
  Publish("q", {"m"});
  ConsumeStream stream(*client_, SubscribeTo("q"));
  const v1::Delivery delivery = stream.Next().value();
  v1::DeleteMessagesRequest request;
  request.set_queue("q");
  request.mutable_filter()->add_ids(delivery.message().id());
  v1::DeleteMessagesResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::DeleteMessages, request, &response), IsOk());
  EXPECT_EQ(response.deleted(), 0) << "consumers keep what they hold";
  request.set_include_leased(true);
  ASSERT_THAT(CallAdmin(&AdminService::Stub::DeleteMessages, request, &response), IsOk());
  EXPECT_EQ(response.deleted(), 1);
  const v1::LeaseLost lost = stream.NextLeaseLost();
  EXPECT_THAT(lost.receipts(), ElementsAre(delivery.receipt()));
  EXPECT_EQ(lost.reason(), v1::ERROR_REASON_MESSAGE_REMOVED);
  stream.Ack(1, {delivery.receipt()});
  EXPECT_THAT(stream.NextResults().failures(),
              ElementsAre(ItemFails(0, grpc::StatusCode::FAILED_PRECONDITION,
                                    v1::ERROR_REASON_LEASE_EXPIRED)));
}

TEST_F(ConsumeTest, NothingComesAfterADrainAndTheStreamStillSettles) {
  Publish("q", {"m"});
  v1::SubscribeRequest init = SubscribeTo("q");
  *init.mutable_lease() = ToProto(absl::Minutes(1));
  ConsumeStream stream(*client_, init);
  const v1::Delivery delivery = stream.Next().value();
  stream.Drain();
  EXPECT_TRUE(stream.NextDrained());
  Publish("q", {"after"});
  stream.Ack(1, {delivery.receipt()});
  EXPECT_THAT(stream.NextResults().failures(), IsEmpty());
  EXPECT_EQ(stream.unread_deliveries(), 0u);
  EXPECT_EQ(Stats("q").ready(), 1);
  stream.SetCredit(1, 1 << 20);
  EXPECT_EQ(stream.Next()->message().body(), "after") << "until new credit is given";
}

TEST_F(ConsumeTest, HalfCloseAnswersAllThatWasAskedAndKeepsTheLeases) {
  v1::SubscribeRequest init = SubscribeTo("q");
  *init.mutable_lease() = ToProto(absl::Minutes(1));
  Publish("q", Numbered("m", 10));
  ConsumeStream stream(*client_, init);
  const std::vector<v1::Delivery> deliveries = stream.Next(10);
  for (int i = 0; i < 9; ++i) stream.Ack(i, {deliveries[i].receipt()});
  stream.HalfClose();
  for (int i = 0; i < 9; ++i) EXPECT_THAT(stream.NextResults().failures(), IsEmpty());
  EXPECT_THAT(stream.Finish(), IsOk());
  EXPECT_EQ(Stats("q").leased(), 1);
  EXPECT_EQ(Ack("q", {deliveries[9].receipt()}).acked(), 1);
}

TEST_F(ConsumeTest, ACancelEndsTheLeasesAtOnceAsFailures) {
  v1::SubscribeRequest init = SubscribeTo("q");
  *init.mutable_lease() = ToProto(absl::Hours(1));
  Publish("q", {"m"});
  ConsumeStream stream(*client_, init);
  stream.Next();
  stream.Cancel();
  EXPECT_EQ(ReceiveAll("q", 1)[0].attempt(), 2);
}

TEST_F(ConsumeTest, WhatBreaksARuleEndsTheStream) {
  const auto refusal = [&](const std::vector<v1::ConsumeRequest>& requests) {
    ConsumeStream stream(*client_, SubscribeTo("q"));
    for (const v1::ConsumeRequest& request : requests) stream.Write(request);
    return stream.Finish();
  };
  v1::ConsumeRequest request;
  request.mutable_init()->set_queue("q");
  EXPECT_THAT(refusal({request}), FailsWithField(kInvalid, "INVALID_FIELD", "init"));
  request.mutable_credit()->set_max_in_flight(-1);
  EXPECT_THAT(refusal({request}),
              FailsWithField(kInvalid, "INVALID_FIELD", "credit.max_in_flight"));
  request.mutable_ack()->set_queue("q");
  EXPECT_THAT(refusal({request}), FailsWithField(kInvalid, "INVALID_FIELD", "ack.receipts"));
  request.mutable_ack()->set_queue("another");
  request.mutable_ack()->add_receipts("r");
  EXPECT_THAT(refusal({request}), FailsWithField(kInvalid, "INVALID_FIELD", "ack.queue"));
  EXPECT_THAT(refusal({v1::ConsumeRequest()}), FailsWith(kInvalid, "INVALID_FIELD"));
}

TEST_F(ConsumeTest, EndsLikeASubscriptionWhereTheQueueIsMissingOrGoes) {
  ConsumeStream missing(*client_, SubscribeTo("nowhere"));
  EXPECT_THAT(missing.Finish(), FailsWith(grpc::StatusCode::NOT_FOUND, "QUEUE_NOT_FOUND"));
  ConsumeStream stream(*client_, SubscribeTo("q"));
  DeleteQueue("q");
  EXPECT_THAT(stream.Finish(), FailsWith(grpc::StatusCode::NOT_FOUND, "QUEUE_DELETED"));
}

TEST_F(ConsumeTest, ACleanStopAnswersWhatWasAskedAndKeepsTheLeases) {
  v1::SubscribeRequest init = SubscribeTo("q");
  *init.mutable_lease() = ToProto(absl::Hours(1));
  Publish("q", {"acked", "held"});
  ConsumeStream stream(*client_, init);
  const std::vector<v1::Delivery> deliveries = stream.Next(2);
  stream.Ack(1, {deliveries[0].receipt()});
  ASSERT_TRUE(WaitUntil([&] { return Stats("q").leased() == 1; }));
  server_.SignalTerminate();
  EXPECT_EQ(stream.NextResults().request_id(), 1);
  EXPECT_THAT(stream.Finish(), FailsWith(grpc::StatusCode::UNAVAILABLE, "DRAINING"));
  ASSERT_TRUE(server_.WaitForExit(absl::Seconds(20)).ok());
  StartServer();
  EXPECT_EQ(Stats("q").leased(), 1);
  EXPECT_EQ(Ack("q", {deliveries[1].receipt()}).acked(), 1);
}

}  // namespace
}  // namespace sluice::testing
