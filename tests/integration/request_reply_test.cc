// Request and reply: temporary queues that go with their stream, and queues that go when idle.
#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

using ::testing::StartsWith;

constexpr grpc::StatusCode kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
constexpr grpc::StatusCode kNotFound = grpc::StatusCode::NOT_FOUND;

class RequestReplyTest : public FeatureTest {
 protected:
  static v1::SubscribeRequest Temporary() {
    v1::SubscribeRequest request;
    request.mutable_temporary_queue();
    return request;
  }
  bool Exists(const std::string& queue) {
    v1::GetQueueRequest request;
    request.set_queue(queue);
    v1::GetQueueResponse response;
    return CallAdmin(&AdminService::Stub::GetQueue, request, &response).ok();
  }
};

TEST_F(RequestReplyTest, ARequestIsAnsweredIntoTheQueueOfTheOneWhoAsked) {
  MakeQueue("upper");
  Subscription replies(*client_, Temporary());
  EXPECT_THAT(replies.started().queue(), StartsWith("sluice.tmp."));
  v1::Message question = MessageOf("hello");
  question.set_reply_to(replies.started().queue());
  question.set_correlation_id("c-1");
  Send("upper", question);

  const v1::Delivery asked = ReceiveAll("upper", 1)[0];
  v1::Message answer = MessageOf("HELLO");
  answer.set_correlation_id(asked.message().correlation_id());
  Send(asked.message().reply_to(), answer);
  const v1::Delivery answered = replies.Next().value();
  EXPECT_EQ(answered.message().body(), "HELLO");
  EXPECT_EQ(answered.message().correlation_id(), "c-1");
}

TEST_F(RequestReplyTest, ATemporaryQueueGoesWithItsStream) {
  std::string name;
  {
    Subscription replies(*client_, Temporary());
    name = replies.started().queue();
    EXPECT_TRUE(Exists(name));
    Send(name, MessageOf("m"));
  }
  EXPECT_TRUE(WaitUntil([&] { return !Exists(name); }));
  EXPECT_THAT(TrySend(name, MessageOf("late")), FailsWith(kNotFound, "QUEUE_NOT_FOUND"));
  // A stream that ends in good order takes it along as well.
  ConsumeStream replies(*client_, Temporary());
  name = replies.started().queue();
  replies.HalfClose();
  EXPECT_THAT(replies.Finish(), IsOk());
  EXPECT_TRUE(WaitUntil([&] { return !Exists(name); }));
}

TEST_F(RequestReplyTest, NoRestartLeavesATemporaryQueueBehind) {
  Subscription killed(*client_, Temporary());
  std::string name = killed.started().queue();
  KillAndRestart();
  EXPECT_FALSE(Exists(name));
  Subscription stopped(*client_, Temporary());
  name = stopped.started().queue();
  TerminateAndRestart();
  EXPECT_FALSE(Exists(name));
  v1::ListQueuesResponse list;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::ListQueues, v1::ListQueuesRequest(), &list), IsOk());
  EXPECT_EQ(list.queues_size(), 0);
}

TEST_F(RequestReplyTest, ItMayHaveAConfigAndBindingsOfItsOwn) {
  CreateExchange("events", v1::EXCHANGE_TYPE_TOPIC);
  v1::SubscribeRequest request = Temporary();
  request.mutable_temporary_queue()->mutable_config()->set_max_length(1);
  v1::Binding& binding = *request.mutable_temporary_queue()->add_bindings();
  binding.set_exchange("events");
  binding.set_binding_key("user.*");
  v1::PublishRequest publish;
  publish.set_exchange("events");
  publish.set_mandatory(true);
  publish.add_messages()->set_routing_key("user.3");
  {
    Subscription mine(*client_, request);
    EXPECT_THAT(TryPublish(publish), IsOk());
    EXPECT_EQ(mine.Next()->message().routing_key(), "user.3");
    EXPECT_THAT(TrySend(mine.started().queue(), MessageOf("m")),
                FailsWith(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUEUE_FULL"));
  }
  EXPECT_TRUE(WaitUntil([&] { return TryPublish(publish).error_code() == kNotFound; }))
      << "its bindings go with it";
}

TEST_F(RequestReplyTest, RefusesWhatIsNotItsOwnToChoose) {
  v1::SubscribeRequest request = Temporary();
  request.set_queue("q");
  EXPECT_THAT(TrySubscribe(request), FailsWithField(kInvalid, "INVALID_FIELD", "queue"));
  request = Temporary();
  request.mutable_temporary_queue()->mutable_config()->set_name("mine");
  EXPECT_THAT(TrySubscribe(request),
              FailsWithField(kInvalid, "INVALID_FIELD", "temporary_queue.config.name"));
  request = Temporary();
  v1::Binding& binding = *request.mutable_temporary_queue()->add_bindings();
  binding.set_exchange("nowhere");
  EXPECT_THAT(TrySubscribe(request), FailsWith(kNotFound, "EXCHANGE_NOT_FOUND"));
  request = Temporary();
  for (int i = 0; i < 101; ++i) request.mutable_temporary_queue()->add_bindings();
  EXPECT_THAT(TrySubscribe(request),
              FailsWithField(kInvalid, "INVALID_FIELD", "temporary_queue.bindings"));
}

TEST_F(RequestReplyTest, AQueueThatNobodyUsesGoesAndOneInUseStays) {
  v1::QueueConfig config = QueueNamed("idle");
  *config.mutable_idle_expiry() = ToProto(absl::Seconds(1));
  Create(config);
  config.set_name("used");
  Create(config);
  Subscription user(*client_, SubscribeTo("used"));
  Send("idle", MessageOf("goes with it"));
  // To ask for one queue is no use of it, or dashboards would keep all of them.
  EXPECT_TRUE(WaitUntil([&] { return !Exists("idle"); }));
  EXPECT_TRUE(Exists("used"));
  config.set_name("short");
  *config.mutable_idle_expiry() = ToProto(absl::Milliseconds(999));
  EXPECT_THAT(TryCreate(config), FailsWithField(kInvalid, "INVALID_FIELD", "config.idle_expiry"));
}

}  // namespace
}  // namespace sluice::testing
