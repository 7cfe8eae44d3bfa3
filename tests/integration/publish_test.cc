// Publish and PublishStream: what is stored, all or nothing, confirmed in order.
#include "tests/integration/fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

class PublishTest : public ServerTest {};

TEST_F(PublishTest, MessageComesBackAsItWasPublishedWithWhatTheServerSets) {
  MakeQueue("orders");
  v1::PublishRequest request;
  request.set_queue("orders");
  v1::Message& message = *request.add_messages();
  message.set_body(std::string("binary\0body\xff", 12));
  (*message.mutable_attributes())["colour"] = "red";
  (*message.mutable_attributes())["empty"] = "";
  message.set_routing_key("a.b");
  message.set_content_type("text/plain");
  message.set_correlation_id("c-1");
  message.set_reply_to("answers");
  v1::PublishResponse response;
  ASSERT_THAT(CallQueues(&QueueService::Stub::Publish, request, &response), IsOk());
  ASSERT_EQ(response.results_size(), 1);
  EXPECT_EQ(response.results(0).routed_queues(), 1);
  EXPECT_FALSE(response.results(0).duplicate());

  const v1::Delivery delivery = ReceiveAll("orders", 1)[0];
  EXPECT_EQ(delivery.queue(), "orders");
  EXPECT_EQ(delivery.attempt(), 1);
  EXPECT_EQ(delivery.delivery_count(), 1);
  EXPECT_FALSE(delivery.maybe_redelivered());
  EXPECT_EQ(delivery.message().body(), message.body());
  EXPECT_EQ(delivery.message().attributes().at("colour"), "red");
  EXPECT_EQ(delivery.message().attributes().count("empty"), 1u);
  EXPECT_EQ(delivery.message().routing_key(), "a.b");
  EXPECT_EQ(delivery.message().content_type(), "text/plain");
  EXPECT_EQ(delivery.message().correlation_id(), "c-1");
  EXPECT_EQ(delivery.message().reply_to(), "answers");
  EXPECT_EQ(delivery.message().id(), response.results(0).message_id());
  EXPECT_GT(delivery.message().publish_time().seconds(), 0);
}

TEST_F(PublishTest, ReceivedMessageForwardsAsItIs) {
  MakeQueue("from");
  MakeQueue("to");
  Publish("from", {"body"});
  v1::PublishRequest request;
  request.set_queue("to");
  *request.add_messages() = ReceiveAll("from", 1)[0].message();
  const std::string old_id = request.messages(0).id();
  EXPECT_THAT(TryPublish(request), IsOk());
  const v1::Delivery forwarded = ReceiveAll("to", 1)[0];
  EXPECT_EQ(forwarded.message().body(), "body");
  EXPECT_NE(forwarded.message().id(), old_id) << "the id is the server's, not the publisher's";
}

TEST_F(PublishTest, BatchKeepsItsOrder) {
  MakeQueue("q");
  const std::vector<std::string> bodies = Numbered("m", 1000);
  Publish("q", bodies);
  EXPECT_THAT(BodiesOf(ReceiveAll("q", bodies.size())), ElementsAreArray(bodies));
}

TEST_F(PublishTest, BatchWithOneBadMessageStoresNothing) {
  MakeQueue("q");
  v1::PublishRequest request;
  request.set_queue("q");
  request.add_messages()->set_body("good");
  request.add_messages()->set_body(std::string((1 << 20) + 1, 'x'));
  EXPECT_THAT(TryPublish(request), FailsWithField(grpc::StatusCode::INVALID_ARGUMENT,
                                                  "MESSAGE_TOO_LARGE", "messages[1].body"));
  EXPECT_EQ(Stats("q").ready(), 0);
}

TEST_F(PublishTest, BodyOfExactlyTheLimitAndEmptyBodyAreTaken) {
  MakeQueue("q");
  const std::string largest(1 << 20, 'x');
  Publish("q", {largest});
  Publish("q", {""});
  EXPECT_THAT(BodiesOf(ReceiveAll("q", 2)), ElementsAre(largest, ""));
}

TEST_F(PublishTest, HigherPriorityIsDeliveredFirst) {
  MakeQueue("q");
  v1::PublishRequest request;
  request.set_queue("q");
  for (int priority : {0, 9, 4, 9}) {
    v1::Message& message = *request.add_messages();
    message.set_priority(priority);
    message.set_body(std::to_string(priority));
  }
  const grpc::Status status = TryPublish(request);
  if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
    EXPECT_THAT(status, FailsWithField(grpc::StatusCode::UNIMPLEMENTED, "INVALID_FIELD",
                                       "messages[0].priority"));
    return;
  }
  ASSERT_THAT(status, IsOk());
  EXPECT_THAT(BodiesOf(ReceiveAll("q", 4)), ElementsAre("9", "9", "4", "0"));
}

class Stream {
 public:
  explicit Stream(Client& client) : context_(NewContext()) {
    stream_ = client.queues->PublishStream(context_.get());
  }
  ~Stream() { context_->TryCancel(); }
  bool Init(const std::string& queue, bool return_results = false) {
    v1::PublishStreamRequest request;
    request.mutable_init()->set_queue(queue);
    request.mutable_init()->set_return_results(return_results);
    return stream_->Write(request);
  }
  bool Send(int64_t first_sequence, const std::vector<std::string>& bodies) {
    v1::PublishStreamRequest request;
    request.mutable_batch()->set_first_sequence(first_sequence);
    for (const std::string& body : bodies) request.mutable_batch()->add_messages()->set_body(body);
    return stream_->Write(request);
  }
  v1::PublishStreamResponse Read() {
    v1::PublishStreamResponse response;
    stream_->Read(&response);
    return response;
  }
  bool TryRead(v1::PublishStreamResponse* response) { return stream_->Read(response); }
  void Done() { stream_->WritesDone(); }
  grpc::Status Finish() { return stream_->Finish(); }

 private:
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::PublishStreamRequest, v1::PublishStreamResponse>>
      stream_;
};

TEST_F(PublishTest, StreamConfirmsCumulativelyAndEndsOkAfterHalfClose) {
  MakeQueue("q");
  Stream stream(*client_);
  ASSERT_TRUE(stream.Init("q"));
  const v1::PublishStreamResponse started = stream.Read();
  ASSERT_TRUE(started.has_started());
  EXPECT_EQ(started.started().last_sequence(), 0);
  EXPECT_GT(started.started().max_in_flight(), 0);
  EXPECT_GT(started.started().max_bytes_in_flight(), 0);
  std::vector<std::string> bodies;
  for (int batch = 0; batch < 10; ++batch) {
    const std::vector<std::string> some = Numbered("b" + std::to_string(batch) + "-", 10);
    ASSERT_TRUE(stream.Send(batch * 10 + 1, some));
    bodies.insert(bodies.end(), some.begin(), some.end());
  }
  stream.Done();
  int64_t through = 0;
  for (v1::PublishStreamResponse response; stream.TryRead(&response);) {
    ASSERT_TRUE(response.has_stored()) << response.ShortDebugString();
    EXPECT_GT(response.stored().through_sequence(), through);
    EXPECT_EQ(response.stored().results_size(), 0);
    through = response.stored().through_sequence();
  }
  EXPECT_THAT(stream.Finish(), IsOk());
  EXPECT_EQ(through, 100);
  EXPECT_THAT(BodiesOf(ReceiveAll("q", 100)), ElementsAreArray(bodies));
}

TEST_F(PublishTest, StreamReturnsResultsWhenAsked) {
  MakeQueue("q");
  Stream stream(*client_);
  ASSERT_TRUE(stream.Init("q", /*return_results=*/true));
  ASSERT_TRUE(stream.Read().has_started());
  ASSERT_TRUE(stream.Send(1, {"a", "b"}));
  const v1::PublishStreamResponse stored = stream.Read();
  ASSERT_TRUE(stored.has_stored());
  ASSERT_EQ(stored.stored().results_size(), 2);
  const std::vector<v1::Delivery> deliveries = ReceiveAll("q", 2);
  EXPECT_EQ(deliveries[0].message().id(), stored.stored().results(0).message_id());
  EXPECT_EQ(deliveries[1].message().id(), stored.stored().results(1).message_id());
}

TEST_F(PublishTest, StreamRefusesABadBatchAndGoesOn) {
  MakeQueue("q");
  Stream stream(*client_);
  ASSERT_TRUE(stream.Init("q"));
  ASSERT_TRUE(stream.Read().has_started());
  ASSERT_TRUE(stream.Send(1, {"good", std::string((1 << 20) + 1, 'x')}));
  const v1::PublishStreamResponse refused = stream.Read();
  ASSERT_TRUE(refused.has_refused()) << refused.ShortDebugString();
  EXPECT_EQ(refused.refused().first_sequence(), 1);
  EXPECT_EQ(refused.refused().last_sequence(), 2);
  EXPECT_EQ(refused.refused().status().reason(), v1::ERROR_REASON_MESSAGE_TOO_LARGE);
  ASSERT_TRUE(stream.Send(3, {"later"}));
  v1::PublishStreamResponse response;
  do {
    ASSERT_TRUE(stream.TryRead(&response));
  } while (response.stored().through_sequence() < 3);
  EXPECT_THAT(BodiesOf(Receive("q", 10)), ElementsAre("later"));
}

TEST_F(PublishTest, StreamRefusesASequenceThatDoesNotRise) {
  MakeQueue("q");
  Stream stream(*client_);
  ASSERT_TRUE(stream.Init("q"));
  ASSERT_TRUE(stream.Read().has_started());
  ASSERT_TRUE(stream.Send(5, {"five"}));
  ASSERT_TRUE(stream.Read().has_stored());
  ASSERT_TRUE(stream.Send(5, {"five again"}));
  const v1::PublishStreamResponse refused = stream.Read();
  ASSERT_TRUE(refused.has_refused()) << refused.ShortDebugString();
  EXPECT_EQ(refused.refused().status().reason(), v1::ERROR_REASON_SEQUENCE_REFUSED);
  EXPECT_EQ(Stats("q").ready(), 1);
}

TEST_F(PublishTest, StreamToAnUnknownQueueEndsNotFound) {
  Stream stream(*client_);
  ASSERT_TRUE(stream.Init("nowhere"));
  v1::PublishStreamResponse response;
  while (stream.TryRead(&response)) {
  }
  EXPECT_THAT(stream.Finish(), FailsWith(grpc::StatusCode::NOT_FOUND, "QUEUE_NOT_FOUND"));
}

TEST_F(PublishTest, StreamThatBeginsWithoutInitIsRefused) {
  MakeQueue("q");
  Stream stream(*client_);
  ASSERT_TRUE(stream.Send(1, {"x"}));
  v1::PublishStreamResponse response;
  while (stream.TryRead(&response)) {
  }
  EXPECT_THAT(stream.Finish(), FailsWith(grpc::StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
  EXPECT_EQ(Stats("q").ready(), 0);
}

}  // namespace
}  // namespace sluice::testing
