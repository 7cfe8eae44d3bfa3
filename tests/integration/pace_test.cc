// Load levelling: rates of queues and of consumers, pause and resume.
#include "absl/time/clock.h"
#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr grpc::StatusCode kInvalid = grpc::StatusCode::INVALID_ARGUMENT;

v1::QueueConfig Paced(const std::string& name, double per_second, int burst) {
  v1::QueueConfig config = QueueNamed(name);
  config.mutable_delivery_rate()->set_per_second(per_second);
  config.mutable_delivery_rate()->set_burst(burst);
  return config;
}

class PaceTest : public FeatureTest {};

TEST_F(PaceTest, TheRateOfAQueueIsSharedByItsConsumers) {
  Create(Paced("q", 20, 5));
  Publish("q", Numbered("m", 20));
  const absl::Time begin = absl::Now();
  // The burst at once, the other fifteen at twenty a second.
  EXPECT_THAT(Receive("q", 20), SizeIs(5));
  Subscription one(*client_, SubscribeTo("q"));
  EXPECT_THAT(Get("q").waiting(), Contains(v1::WAIT_REASON_RATE_LIMITED));
  Subscription two(*client_, SubscribeTo("q"));
  EXPECT_TRUE(WaitUntil([&] { return Stats("q").leased() == 20; }));
  EXPECT_GE(absl::Now(), begin + absl::Milliseconds(1000 * 15 / 20 - 60));
}

TEST_F(PaceTest, TheRateOfAConsumerHoldsUpNobodyElse) {
  MakeQueue("q");
  v1::SubscribeRequest request = SubscribeTo("q");
  request.mutable_delivery_rate()->set_per_second(0.001);
  request.mutable_delivery_rate()->set_burst(1);
  Subscription slow(*client_, request);
  Publish("q", Numbered("m", 10));
  const v1::Delivery first = slow.Next().value();
  Subscription fast(*client_, SubscribeTo("q"));
  EXPECT_THAT(fast.Next(9), SizeIs(9));
  EXPECT_EQ(Stats("q").ready(), 0);
}

TEST_F(PaceTest, ANewRateHoldsAtOnce) {
  Create(Paced("q", 0.001, 1));
  Publish("q", Numbered("m", 10));
  EXPECT_THAT(Receive("q", 10), SizeIs(1));
  EXPECT_THAT(Receive("q", 10, absl::ZeroDuration()), IsEmpty());
  Update(Paced("q", 1e7, 1'000'000));
  EXPECT_THAT(ReceiveAll("q", 9), SizeIs(9));
}

TEST_F(PaceTest, RatesHaveTheirBounds) {
  EXPECT_THAT(TryCreate(Paced("slowest", 0.001, 0)), IsOk());
  EXPECT_THAT(TryCreate(Paced("fastest", 1e7, 1'000'000)), IsOk());
  for (const double rate : {0.0, 0.0009, -1.0, 1.1e7}) {
    EXPECT_THAT(TryCreate(Paced("q", rate, 0)),
                FailsWithField(kInvalid, "INVALID_FIELD", "config.delivery_rate.per_second"))
        << rate;
  }
  for (const int burst : {-1, 1'000'001}) {
    EXPECT_THAT(TryCreate(Paced("q", 1, burst)),
                FailsWithField(kInvalid, "INVALID_FIELD", "config.delivery_rate.burst"))
        << burst;
  }
}

TEST_F(PaceTest, APausedQueueTakesAndSettlesAndDeliversNothing) {
  MakeQueue("q");
  Publish("q", {"leased", "waits"});
  const v1::Delivery leased = ReceiveAll("q", 1)[0];
  v1::SubscribeRequest request = SubscribeTo("q");
  Pause("q");
  Pause("q");
  Subscription subscription(*client_, request);
  Publish("q", {"published while paused"});
  EXPECT_EQ(Ack("q", {leased.receipt()}).acked(), 1);
  EXPECT_EQ(Stats("q").ready(), 2);
  EXPECT_THAT(Get("q").waiting(), ElementsAre(v1::WAIT_REASON_PAUSED));
  EXPECT_EQ(List("q")[0].waiting(), v1::WAIT_REASON_PAUSED);
  EXPECT_THAT(Receive("q", 1, absl::ZeroDuration()), IsEmpty());
  Resume("q");
  Resume("q");
  EXPECT_THAT(BodiesOf(subscription.Next(2)), ElementsAre("waits", "published while paused"));
}

TEST_F(PaceTest, PauseOutlastsRestarts) {
  MakeQueue("q");
  Pause("q");
  Publish("q", {"m"});
  KillAndRestart();
  EXPECT_EQ(Get("q").state(), v1::QUEUE_STATE_PAUSED);
  TerminateAndRestart();
  EXPECT_THAT(Receive("q", 1, absl::ZeroDuration()), IsEmpty());
  Resume("q");
  KillAndRestart();
  EXPECT_EQ(Get("q").state(), v1::QUEUE_STATE_ACTIVE);
  EXPECT_THAT(Drain("q"), ElementsAre("m"));
}

TEST_F(PaceTest, AWaitingReceiveIsWokenByTheResume) {
  MakeQueue("q");
  Pause("q");
  Publish("q", {"m"});
  v1::ReceiveRequest request;
  request.set_queue("q");
  *request.mutable_wait() = ToProto(absl::Seconds(15));
  auto context = NewContext();
  grpc::CompletionQueue done;
  auto call = client_->queues->AsyncReceive(context.get(), request, &done);
  v1::ReceiveResponse response;
  grpc::Status status;
  call->Finish(&response, &status, this);
  ASSERT_TRUE(WaitUntil([&] { return Stats("q").consumers() == 1; }));
  Resume("q");
  void* tag = nullptr;
  bool ok = false;
  ASSERT_TRUE(done.Next(&tag, &ok));
  EXPECT_THAT(status, IsOk());
  EXPECT_EQ(response.deliveries_size(), 1);
}

TEST_F(PaceTest, AnUnknownQueueCannotBePaused) {
  v1::PauseQueueRequest request;
  request.set_queue("nowhere");
  v1::PauseQueueResponse response;
  EXPECT_THAT(CallAdmin(&AdminService::Stub::PauseQueue, request, &response),
              FailsWith(grpc::StatusCode::NOT_FOUND, "QUEUE_NOT_FOUND"));
}

}  // namespace
}  // namespace sluice::testing
