// Receive: taking messages without a stream.
#include <thread>

#include "absl/time/clock.h"
#include "tests/integration/fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ReceiveTest : public ServerTest {};

TEST_F(ReceiveTest, EmptyQueueAnswersAtOnceByDefault) {
  MakeQueue("q");
  EXPECT_THAT(Receive("q", 1, absl::ZeroDuration()), IsEmpty());
}

TEST_F(ReceiveTest, WaitEndsEmptyWhenItIsOver) {
  MakeQueue("q");
  const absl::Time start = absl::Now();
  EXPECT_THAT(Receive("q", 1, absl::Milliseconds(300)), IsEmpty());
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(290));
}

TEST_F(ReceiveTest, WaitEndsWithTheFirstMessage) {
  MakeQueue("q");
  std::vector<v1::Delivery> received;
  std::jthread receiver([&] { received = Receive("q", 10, absl::Seconds(15)); });
  ASSERT_TRUE(WaitUntil([&] { return Stats("q").consumers() == 1; }));
  Publish("q", {"late"});
  receiver.join();
  EXPECT_THAT(BodiesOf(received), ElementsAre("late"));
}

TEST_F(ReceiveTest, WaitAnswersBeforeTheDeadlineOfTheCall) {
  MakeQueue("q");
  v1::ReceiveRequest request;
  request.set_queue("q");
  *request.mutable_wait() = ToProto(absl::Seconds(60));
  v1::ReceiveResponse response;
  EXPECT_THAT(Call(client_->queues, &QueueService::Stub::Receive, request, &response,
                   absl::Milliseconds(800)),
              IsOk());
}

TEST_F(ReceiveTest, TakesAtMostWhatWasAskedForAndOneByDefault) {
  MakeQueue("q");
  Publish("q", Numbered("m", 5));
  v1::ReceiveRequest request;
  request.set_queue("q");
  v1::ReceiveResponse response;
  ASSERT_THAT(CallQueues(&QueueService::Stub::Receive, request, &response), IsOk());
  EXPECT_EQ(response.deliveries_size(), 1);
  EXPECT_THAT(BodiesOf(Receive("q", 3)), ElementsAre("m1", "m2", "m3"));
}

TEST_F(ReceiveTest, BytesAreLimitedAndALargerMessageComesAlone) {
  MakeQueue("q");
  const std::string large(3000, 'x');
  Publish("q", {large, "small", large});
  v1::ReceiveRequest request;
  request.set_queue("q");
  request.set_max_messages(10);
  request.set_max_bytes(2000);
  v1::ReceiveResponse response;
  ASSERT_THAT(CallQueues(&QueueService::Stub::Receive, request, &response), IsOk());
  EXPECT_EQ(response.deliveries_size(), 1);
  EXPECT_EQ(response.deliveries(0).message().body(), large);
}

TEST_F(ReceiveTest, NoResponseIsLargerThanGeneratedClientsAccept) {
  MakeQueue("q");
  for (int i = 0; i < 6; ++i) Publish("q", {std::string(1 << 20, 'x')});
  v1::ReceiveRequest request;
  request.set_queue("q");
  request.set_max_messages(100);
  request.set_max_bytes(64 << 20);
  v1::ReceiveResponse response;
  const grpc::Status status = CallQueues(&QueueService::Stub::Receive, request, &response);
  if (status.ok()) {
    EXPECT_LE(response.ByteSizeLong(), size_t{3} << 20);
    EXPECT_GE(response.deliveries_size(), 1);
  } else {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
}

TEST_F(ReceiveTest, AutoAckSettlesByHandingOut) {
  MakeQueue("q");
  Publish("q", {"once"});
  v1::ReceiveRequest request;
  request.set_queue("q");
  request.set_auto_ack(true);
  v1::ReceiveResponse response;
  ASSERT_THAT(CallQueues(&QueueService::Stub::Receive, request, &response), IsOk());
  ASSERT_EQ(response.deliveries_size(), 1);
  EXPECT_THAT(response.deliveries(0).receipt(), IsEmpty());
  EXPECT_FALSE(response.deliveries(0).has_lease_expires_at());
  EXPECT_TRUE(WaitUntil([&] { return Stats("q").leased() == 0; }));
  EXPECT_EQ(Stats("q").ready(), 0);
}

TEST_F(ReceiveTest, LeaseIsTheQueuesUnlessTheCallAsksForAnother) {
  MakeQueue("q", absl::Seconds(60));
  Publish("q", {"a", "b"});
  const absl::Time now = absl::Now();
  const v1::Delivery by_default = ReceiveAll("q", 1)[0];
  EXPECT_NEAR(absl::ToDoubleSeconds(FromProto(by_default.lease_expires_at()) - now), 60, 5);
  const v1::Delivery asked = ReceiveAll("q", 1, absl::Seconds(200))[0];
  EXPECT_NEAR(absl::ToDoubleSeconds(FromProto(asked.lease_expires_at()) - now), 200, 5);
}

TEST_F(ReceiveTest, CancelledWaitTakesNothing) {
  MakeQueue("q");
  auto context = NewContext();
  v1::ReceiveRequest request;
  request.set_queue("q");
  *request.mutable_wait() = ToProto(absl::Seconds(15));
  v1::ReceiveResponse response;
  std::jthread receiver([&] { client_->queues->Receive(context.get(), request, &response); });
  ASSERT_TRUE(WaitUntil([&] { return Stats("q").consumers() == 1; }));
  context->TryCancel();
  receiver.join();
  ASSERT_TRUE(WaitUntil([&] { return Stats("q").consumers() == 0; }));
  Publish("q", {"m"});
  EXPECT_EQ(Stats("q").ready(), 1);
}

}  // namespace
}  // namespace sluice::testing
