// Limits of queues: what is refused, what makes room, and who waits for it.
#include <thread>

#include "absl/time/clock.h"
#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr grpc::StatusCode kExhausted = grpc::StatusCode::RESOURCE_EXHAUSTED;

v1::QueueConfig Limited(const std::string& name, int64_t max_length,
                        v1::Overflow overflow = v1::OVERFLOW_REJECT) {
  v1::QueueConfig config = QueueNamed(name);
  config.set_max_length(max_length);
  config.set_overflow(overflow);
  return config;
}

class LimitsTest : public FeatureTest {
 protected:
  // Publishes in a thread of its own, waiting for room; joined by the destructor.
  class WaitingPublish {
   public:
    WaitingPublish(Client& client, const std::string& queue, const std::string& body,
                   absl::Duration wait, absl::Duration deadline = kCallTimeout)
        : thread_([&client, queue, body, wait, deadline, this] {
            v1::PublishRequest request;
            request.set_queue(queue);
            request.add_messages()->set_body(body);
            *request.mutable_wait_when_full() = ToProto(wait);
            v1::PublishResponse response;
            status_ = Call(client.queues, &QueueService::Stub::Publish, request, &response,
                           deadline);
          }) {}
    ~WaitingPublish() {
      if (thread_.joinable()) thread_.join();
    }
    grpc::Status Wait() {
      thread_.join();
      return status_;
    }

   private:
    grpc::Status status_;
    std::thread thread_;
  };
};

TEST_F(LimitsTest, MaxLengthCountsEveryMessageThatIsNotSettled) {
  Create(Limited("q", 3));
  SendAll("q", {MessageOf("leased"), MessageOf("waits for a retry")});
  const std::vector<v1::Delivery> deliveries = ReceiveAll("q", 2);
  Nack("q", deliveries[1].receipt(), v1::NACK_ACTION_DELAY, absl::Hours(1));
  Send("q", After("delayed", absl::Hours(1)));
  const grpc::Status full = TrySend("q", MessageOf("one too many"));
  EXPECT_THAT(full, FailsWith(kExhausted, "QUEUE_FULL"));
  EXPECT_THAT(full.error_message(), HasSubstr("'q'"));
  EXPECT_TRUE(DetailsOf(full).has_retry_delay);
  EXPECT_GT(DetailsOf(full).retry_delay, absl::ZeroDuration());
  KillAndRestart();
  EXPECT_THAT(TrySend("q", MessageOf("one too many")), FailsWith(kExhausted, "QUEUE_FULL"));
  EXPECT_EQ(Ack("q", {deliveries[0].receipt()}).acked(), 1) << "acks are always taken";
  Send("q", MessageOf("fits"));
}

TEST_F(LimitsTest, ABatchIsTakenWholeOrNotAtAll) {
  Create(Limited("q", 3));
  Send("q", MessageOf("0"));
  v1::PublishRequest request;
  request.set_queue("q");
  for (const char* body : {"1", "2", "3"}) request.add_messages()->set_body(body);
  EXPECT_THAT(TryPublish(request), FailsWith(kExhausted, "QUEUE_FULL"));
  EXPECT_EQ(Stats("q").ready(), 1);
  request.mutable_messages()->RemoveLast();
  EXPECT_THAT(TryPublish(request), IsOk());
  for (const char* body : {"3", "4"}) request.add_messages()->set_body(body);
  const grpc::Status never = TryPublish(request);
  EXPECT_THAT(never, FailsWith(kExhausted, "QUEUE_FULL"));
  EXPECT_FALSE(DetailsOf(never).has_retry_delay) << "waiting does not help";
}

TEST_F(LimitsTest, MaxBytesCountsBodiesAndWhatComesWithThem) {
  v1::QueueConfig config = QueueNamed("q");
  config.set_max_bytes(3000);
  Create(config);
  Send("q", MessageOf(std::string(1000, 'x')));
  const int64_t one = Stats("q").bytes();
  EXPECT_GE(one, 1000);
  Send("q", MessageOf(std::string(1000, 'x')));
  // The rest to the byte, and one more.
  const auto rest = static_cast<size_t>(3000 - 3 * one + 1000);
  EXPECT_THAT(TrySend("q", MessageOf(std::string(rest + 1, 'x'))),
              FailsWith(kExhausted, "QUEUE_FULL"));
  EXPECT_THAT(TrySend("q", MessageOf(std::string(rest, 'x'))), IsOk());
  EXPECT_EQ(Stats("q").bytes(), 3000);
  EXPECT_THAT(TrySend("q", MessageOf("")), FailsWith(kExhausted, "QUEUE_FULL"));
}

TEST_F(LimitsTest, ZeroIsNoLimitAndNegativeIsRefused) {
  Create(Limited("q", 0));
  Publish("q", Numbered("m", 1000));
  EXPECT_THAT(TryCreate(Limited("negative", -1)),
              FailsWithField(grpc::StatusCode::INVALID_ARGUMENT, "INVALID_FIELD",
                             "config.max_length"));
  v1::QueueConfig config = QueueNamed("negative");
  config.set_max_bytes(-1);
  EXPECT_THAT(TryCreate(config), FailsWithField(grpc::StatusCode::INVALID_ARGUMENT,
                                                "INVALID_FIELD", "config.max_bytes"));
}

TEST_F(LimitsTest, DropHeadTakesTheOldestOfTheLowestPriority) {
  MakeQueue("dead");
  v1::QueueConfig config = Limited("q", 3, v1::OVERFLOW_DROP_HEAD);
  config.set_dead_letter_queue("dead");
  Create(config);
  SendAll("q", {WithPriority("high", 9), WithPriority("low 1", 1), WithPriority("low 2", 1)});
  Send("q", WithPriority("high 2", 9));
  const v1::Delivery dropped = ReceiveAll("dead", 1)[0];
  EXPECT_EQ(dropped.message().body(), "low 1");
  EXPECT_EQ(dropped.deaths(0).reason(), v1::DEATH_REASON_OVERFLOW);
  EXPECT_THAT(BodiesOf(List("q")), ElementsAre("high", "high 2", "low 2"));
  EXPECT_EQ(Total("dropped", "q"), 1);
  EXPECT_EQ(Total("dead_lettered", "q"), 1);
}

TEST_F(LimitsTest, DropHeadLeavesWhatIsLeasedAndRefusesWhereThereIsNoneElse) {
  Create(Limited("q", 2, v1::OVERFLOW_DROP_HEAD));
  SendAll("q", {MessageOf("1"), MessageOf("2")});
  const std::vector<v1::Delivery> leased = ReceiveAll("q", 2);
  const grpc::Status full = TrySend("q", MessageOf("3"));
  EXPECT_THAT(full, FailsWith(kExhausted, "QUEUE_FULL"));
  EXPECT_TRUE(DetailsOf(full).has_retry_delay);
  Nack("q", leased[1].receipt(), v1::NACK_ACTION_RELEASE);
  Send("q", MessageOf("3"));
  EXPECT_THAT(Ack("q", ReceiptsOf(leased)).failures(),
              ElementsAre(ItemFails(1, grpc::StatusCode::FAILED_PRECONDITION,
                                    v1::ERROR_REASON_LEASE_EXPIRED)))
      << "the one that was dropped";
  EXPECT_THAT(Drain("q"), ElementsAre("3"));
}

TEST_F(LimitsTest, DropHeadTakesDelayedMessagesWhereNothingElseIsLeft) {
  Create(Limited("q", 2, v1::OVERFLOW_DROP_HEAD));
  SendAll("q", {After("delayed 1", absl::Hours(2)), After("delayed 2", absl::Hours(1))});
  Send("q", MessageOf("ready 1"));
  EXPECT_THAT(BodiesOf(List("q")), ElementsAre("ready 1", "delayed 2"));
  Send("q", MessageOf("ready 2"));
  EXPECT_THAT(BodiesOf(List("q")), ElementsAre("ready 2", "delayed 2"));
  KillAndRestart();
  EXPECT_THAT(BodiesOf(List("q")), ElementsAre("ready 2", "delayed 2"));
}

TEST_F(LimitsTest, DropHeadKeepsTheLastOfABatchThatIsLargerThanTheQueue) {
  MakeQueue("dead");
  v1::QueueConfig config = Limited("q", 3, v1::OVERFLOW_DROP_HEAD);
  config.set_dead_letter_queue("dead");
  Create(config);
  Send("q", MessageOf("old"));
  Publish("q", Numbered("m", 1000));
  EXPECT_THAT(BodiesOf(List("q")), ElementsAre("m997", "m998", "m999"));
  EXPECT_EQ(Total("dropped", "q"), 998);
  AwaitReady("dead", 998);
  KillAndRestart();
  EXPECT_THAT(Drain("q"), ElementsAre("m997", "m998", "m999"));
  std::vector<std::string> dropped = Numbered("m", 997);
  dropped.insert(dropped.begin(), "old");
  EXPECT_THAT(Drain("dead"), ElementsAreArray(dropped));
}

TEST_F(LimitsTest, APublishWaitsForRoom) {
  Create(Limited("q", 1));
  Send("q", MessageOf("first"));
  WaitingPublish second(*client_, "q", "second", absl::Seconds(15));
  // Nothing tells that it waits but that it is not refused; whoever wants no wait is.
  EXPECT_THAT(TrySend("q", MessageOf("impatient")), FailsWith(kExhausted, "QUEUE_FULL"));
  for (const char* body : {"first", "second"}) {
    const v1::Delivery delivery = ReceiveAll("q", 1)[0];
    EXPECT_EQ(delivery.message().body(), body);
    Ack("q", {delivery.receipt()});
  }
  EXPECT_THAT(second.Wait(), IsOk());
}

TEST_F(LimitsTest, AWaitEndsWhenItIsOverAndBeforeTheDeadlineOfTheCall) {
  Create(Limited("q", 1));
  Send("q", MessageOf("first"));
  absl::Time begin = absl::Now();
  EXPECT_THAT(WaitingPublish(*client_, "q", "m", absl::Milliseconds(200)).Wait(),
              FailsWith(kExhausted, "QUEUE_FULL"));
  EXPECT_GE(absl::Now(), begin + absl::Milliseconds(190));
  begin = absl::Now();
  EXPECT_THAT(WaitingPublish(*client_, "q", "m", absl::Minutes(5), absl::Seconds(1)).Wait(),
              FailsWith(kExhausted, "QUEUE_FULL"))
      << "not DEADLINE_EXCEEDED, which leaves open what happened";
  EXPECT_LT(absl::Now(), begin + absl::Seconds(1));

  v1::PublishRequest request;
  request.set_queue("q");
  request.add_messages();
  *request.mutable_wait_when_full() = ToProto(absl::Minutes(5) + absl::Milliseconds(1));
  EXPECT_THAT(TryPublish(request), FailsWithField(grpc::StatusCode::INVALID_ARGUMENT,
                                                  "INVALID_FIELD", "wait_when_full"));
}

TEST_F(LimitsTest, ACallerThatGoesTakesItsWaitingPublishWithIt) {
  Create(Limited("q", 1));
  Send("q", MessageOf("first"));
  const auto started = [&](const std::string& method) {
    return Metric("grpc_server_started_total", {"grpc_method=\"" + method + "\""});
  };
  const auto handled = [&](const std::string& method) {
    return Metric("grpc_server_handled_total",
                  {"grpc_method=\"" + method + "\"", "grpc_code=\"Canceled\""});
  };
  {
    auto context = NewContext();
    v1::PublishRequest request;
    request.set_queue("q");
    request.add_messages()->set_body("of a caller that has gone");
    *request.mutable_wait_when_full() = ToProto(absl::Minutes(1));
    grpc::CompletionQueue queue;
    auto call = client_->queues->AsyncPublish(context.get(), request, &queue);
    v1::PublishResponse response;
    grpc::Status status;
    call->Finish(&response, &status, nullptr);
    ASSERT_TRUE(WaitUntil([&] { return started("Publish") >= 2; }));
    context->TryCancel();
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  }
  ASSERT_TRUE(WaitUntil([&] { return handled("Publish") >= 1; }));
  {
    auto context = NewContext();
    auto stream = client_->queues->PublishStream(context.get());
    v1::PublishStreamRequest request;
    request.mutable_init()->set_queue("q");
    *request.mutable_init()->mutable_wait_when_full() = ToProto(absl::Minutes(1));
    stream->Write(request);
    v1::PublishStreamResponse response;
    ASSERT_TRUE(stream->Read(&response));
    v1::PublishStreamRequest batch;
    batch.mutable_batch()->set_first_sequence(1);
    batch.mutable_batch()->add_messages()->set_body("of a stream that has gone");
    stream->Write(batch);
    const auto received = [&] {
      return Metric("grpc_server_msg_received_total", {"grpc_method=\"PublishStream\""});
    };
    ASSERT_TRUE(WaitUntil([&] { return received() >= 2; }));
    context->TryCancel();
    stream->Finish();
  }
  ASSERT_TRUE(WaitUntil([&] { return handled("PublishStream") >= 1; }));
  EXPECT_THAT(Drain("q"), ElementsAre("first"));
  Send("q", MessageOf("second"));
  EXPECT_THAT(Drain("q"), ElementsAre("second"));
}

TEST_F(LimitsTest, AStopEndsTheWaitAndSaysThatItDidNotHappen) {
  Create(Limited("q", 1));
  Send("q", MessageOf("first"));
  WaitingPublish waiting(*client_, "q", "m", absl::Seconds(15));
  // Only a publish that has arrived can be answered by the drain.
  ASSERT_TRUE(WaitUntil([&] {
    return Metric("grpc_server_started_total", {"grpc_method=\"Publish\""}) >= 2;
  }));
  server_.SignalTerminate();
  EXPECT_THAT(waiting.Wait(), FailsWith(grpc::StatusCode::UNAVAILABLE, "DRAINING"));
  ASSERT_TRUE(server_.WaitForExit(absl::Seconds(20)).ok());
  StartServer();
  EXPECT_THAT(Drain("q"), ElementsAre("first"));
}

TEST_F(LimitsTest, AFanOutIsRefusedWholeNamingTheFullQueue) {
  Create(Limited("small", 1));
  MakeQueue("large");
  CreateExchange("all", v1::EXCHANGE_TYPE_FANOUT);
  Bind(ToQueue("all", "small"));
  Bind(ToQueue("all", "large"));
  Send("small", MessageOf("in the way"));
  v1::PublishRequest request;
  request.set_exchange("all");
  request.add_messages()->set_body("m");
  const grpc::Status full = TryPublish(request);
  EXPECT_THAT(full, FailsWith(kExhausted, "QUEUE_FULL"));
  EXPECT_THAT(full.error_message(), HasSubstr("'small'"));
  EXPECT_EQ(Stats("large").ready(), 0);
}

TEST_F(LimitsTest, OneFullQueueOfAnExchangeHoldsUpNoOther) {
  Create(Limited("small", 1));
  MakeQueue("large");
  CreateExchange("by-key", v1::EXCHANGE_TYPE_DIRECT);
  Bind(ToQueue("by-key", "small", "s"));
  Bind(ToQueue("by-key", "large", "l"));
  const auto request_for = [](const std::string& key, absl::Duration wait) {
    v1::PublishRequest request;
    request.set_exchange("by-key");
    request.add_messages()->set_routing_key(key);
    if (wait > absl::ZeroDuration()) *request.mutable_wait_when_full() = ToProto(wait);
    return request;
  };
  Send("small", MessageOf("in the way"));
  grpc::Status waited;
  std::jthread waiting([&] { waited = TryPublish(request_for("s", absl::Seconds(20))); });
  // Once it waits, others that want to wait are behind it; until then this one would be stored.
  ASSERT_TRUE(WaitUntil([&] {
    return TryPublish(request_for("l", absl::ZeroDuration())).ok() && Stats("small").ready() == 1;
  }));
  for (int i = 0; i < 20; ++i) {
    EXPECT_THAT(TryPublish(request_for("l", absl::ZeroDuration())), IsOk());
    EXPECT_THAT(TryPublish(request_for("l", absl::Seconds(1))), IsOk());
    EXPECT_THAT(TryPublish(request_for("nowhere", absl::ZeroDuration())), IsOk());
  }
  Drain("small");
  waiting.join();
  EXPECT_THAT(waited, IsOk());
}

}  // namespace
}  // namespace sluice::testing
