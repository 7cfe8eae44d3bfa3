// Priorities: what is more urgent leaves first, and with aging nothing waits for ever.
#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;

class PriorityTest : public FeatureTest {};

TEST_F(PriorityTest, AllTenLeaveInOrderAndTheDefaultIsFour) {
  MakeQueue("q");
  std::vector<v1::Message> messages = {MessageOf("none")};
  for (const int priority : {3, 9, 0, 5, 8, 4, 1, 7, 2, 6}) {
    messages.push_back(WithPriority(std::to_string(priority), priority));
  }
  SendAll("q", messages);
  EXPECT_THAT(Drain("q"),
              ElementsAre("9", "8", "7", "6", "5", "none", "4", "3", "2", "1", "0"));
}

TEST_F(PriorityTest, OneThatComesLaterOvertakesABacklog) {
  MakeQueue("q");
  for (const char* body : {"low 1", "low 2"}) Send("q", WithPriority(body, 0));
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_max_in_flight(1);
  Subscription subscription(*client_, request);
  const v1::Delivery first = subscription.Next().value();
  EXPECT_EQ(first.message().body(), "low 1");
  Send("q", WithPriority("high", 9));
  Ack("q", {first.receipt()});
  const v1::Delivery second = subscription.Next().value();
  EXPECT_EQ(second.message().body(), "high");
  EXPECT_EQ(second.message().priority(), 9);
  Ack("q", {second.receipt()});
  EXPECT_EQ(subscription.Next()->message().body(), "low 2");
}

TEST_F(PriorityTest, ARetryKeepsItsPriorityAndItsPlace) {
  MakeQueue("q");
  SendAll("q", {WithPriority("low", 1), WithPriority("high", 8), WithPriority("next", 8)});
  const v1::Delivery first = ReceiveAll("q", 1)[0];
  ASSERT_EQ(first.message().body(), "high");
  Nack("q", first.receipt(), v1::NACK_ACTION_RETRY);
  EXPECT_THAT(Drain("q"), ElementsAre("high", "next", "low"));
}

TEST_F(PriorityTest, TheOrderOutlastsRestarts) {
  MakeQueue("q");
  SendAll("q", {WithPriority("0", 0), WithPriority("9", 9), MessageOf("4")});
  KillAndRestart();
  Send("q", WithPriority("9 again", 9));
  TerminateAndRestart();
  EXPECT_THAT(Drain("q"), ElementsAre("9", "9 again", "4", "0"));
}

TEST_F(PriorityTest, WithAgingALowOneGoesFirstOnceItHasWaitedLongEnough) {
  v1::QueueConfig config = QueueNamed("ages");
  *config.mutable_priority_aging() = ToProto(absl::Milliseconds(100));
  Create(config);
  MakeQueue("strict");
  for (const char* queue : {"ages", "strict"}) Send(queue, WithPriority("low", 3));
  // Two periods make it one more than the default.
  for (const char* queue : {"ages", "strict"}) {
    ASSERT_TRUE(WaitUntil([&] { return Stats(queue).oldest_ready_age().nanos() > 250'000'000 ||
                                       Stats(queue).oldest_ready_age().seconds() > 0; }));
    Send(queue, MessageOf("high"));
  }
  EXPECT_THAT(Drain("ages"), ElementsAre("low", "high"));
  EXPECT_THAT(Drain("strict"), ElementsAre("high", "low"));
}

TEST_F(PriorityTest, ADelayedMessageAgesFromWhenItIsDue) {
  v1::QueueConfig config = QueueNamed("q");
  *config.mutable_priority_aging() = ToProto(absl::Milliseconds(500));
  Create(config);
  v1::Message low = After("low", absl::Seconds(3));
  low.set_priority(0);
  Send("q", low);
  AwaitReady("q", 1);
  const v1::QueueStats stats = Stats("q");
  EXPECT_LT(stats.oldest_ready_age().seconds(), 2) << "it was not ready before";
  Send("q", WithPriority("high", 4));
  EXPECT_THAT(Drain("q"), ElementsAre("high", "low"));
}

TEST_F(PriorityTest, AgingHasItsBounds) {
  v1::QueueConfig config = QueueNamed("q");
  *config.mutable_priority_aging() = ToProto(absl::Milliseconds(99));
  EXPECT_THAT(TryCreate(config), FailsWithField(grpc::StatusCode::INVALID_ARGUMENT,
                                                "INVALID_FIELD", "config.priority_aging"));
  *config.mutable_priority_aging() = ToProto(absl::Hours(366 * 24) + absl::Milliseconds(1));
  EXPECT_THAT(TryCreate(config), FailsWithField(grpc::StatusCode::INVALID_ARGUMENT,
                                                "INVALID_FIELD", "config.priority_aging"));
  for (const absl::Duration aging :
       {absl::ZeroDuration(), absl::Milliseconds(100), absl::Hours(366 * 24)}) {
    config.set_name("q" + std::to_string(absl::ToInt64Milliseconds(aging)));
    *config.mutable_priority_aging() = ToProto(aging);
    EXPECT_THAT(TryCreate(config), IsOk());
  }
}

}  // namespace
}  // namespace sluice::testing
