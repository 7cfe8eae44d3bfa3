#include "server/api/publish_stream.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <thread>
#include <vector>

#include "server/model/error.h"
#include "tests/unit/api/server_fixture.h"

namespace sluice::api {
namespace {

class PublishStreamTest : public ServerTest {
 protected:
  using Stream = grpc::ClientReaderWriter<v1::PublishStreamRequest, v1::PublishStreamResponse>;

  void Open(const v1::PublishStreamInit& init) {
    stream_ = queue_stub_->PublishStream(&context_);
    v1::PublishStreamRequest request;
    *request.mutable_init() = init;
    ASSERT_TRUE(stream_->Write(request));
  }
  // Opens an idempotent producer whose last sequence is stored.
  void OpenProducer(int64_t last_sequence) {
    v1::PublishStreamInit init;
    init.set_queue("work");
    init.set_producer_id("p");
    init.set_return_results(true);
    Open(init);
    auto command = shard_.Take<broker::OpenProducerCommand>();
    EXPECT_EQ(command.queue, "work");
    EXPECT_EQ(command.exchange, "");
    EXPECT_EQ(command.producer_id, "p");
    command.done(broker::ProducerOpened{77, last_sequence});
    EXPECT_EQ(Read().started().last_sequence(), last_sequence);
  }
  void Send(int64_t first_sequence, int messages, int priority = 4) {
    v1::PublishStreamRequest request;
    request.mutable_batch()->set_first_sequence(first_sequence);
    for (int i = 0; i < messages; ++i) {
      request.mutable_batch()->add_messages()->set_priority(priority);
    }
    ASSERT_TRUE(stream_->Write(request));
  }
  v1::PublishStreamResponse Read() {
    v1::PublishStreamResponse response;
    EXPECT_TRUE(stream_->Read(&response));
    return response;
  }
  grpc::Status End() {
    v1::PublishStreamResponse response;
    EXPECT_FALSE(stream_->Read(&response)) << response.DebugString();
    return stream_->Finish();
  }

  grpc::ClientContext context_;
  std::unique_ptr<Stream> stream_;
};

TEST_F(PublishStreamTest, ToAnExchangeCarriesRoutingAndHowToTreatNoRouteAndFullQueues) {
  v1::PublishStreamInit init;
  init.set_exchange("events");
  init.set_mandatory(true);
  init.mutable_wait_when_full()->set_seconds(2);
  init.set_return_results(true);
  Open(init);
  auto check = shard_.Take<broker::GetExchangeCommand>();
  EXPECT_EQ(check.exchange, "events");
  check.done(Exchange{});
  Read();
  v1::PublishStreamRequest request;
  request.mutable_batch()->set_first_sequence(1);
  request.mutable_batch()->add_messages()->set_routing_key("a.b");
  ASSERT_TRUE(stream_->Write(request));
  auto command = shard_.Take<broker::PublishCommand>();
  EXPECT_EQ(command.publish.exchange, "events");
  EXPECT_TRUE(command.publish.mandatory);
  EXPECT_EQ(command.publish.wait_when_full_ms, 2'000);
  EXPECT_EQ(command.publish.messages[0].options->routing_key, "a.b");
  EXPECT_EQ(command.producer_stream, 0u);
  broker::PublishedMessage unrouted;
  unrouted.routed_queues = 0;
  command.done(std::vector<broker::PublishedMessage>{unrouted});
  const auto response = Read();
  EXPECT_EQ(response.stored().results(0).message_id(), "");
  EXPECT_EQ(response.stored().results(0).routed_queues(), 0);
}

TEST_F(PublishStreamTest, MissingExchangeEndsTheStream) {
  v1::PublishStreamInit init;
  init.set_exchange("missing");
  Open(init);
  shard_.Take<broker::GetExchangeCommand>().done(
      MakeError(ErrorReason::kExchangeNotFound, "none"));
  EXPECT_EQ(ReasonIn(End()), "EXCHANGE_NOT_FOUND");
}

TEST_F(PublishStreamTest, ProducerIsToldItsLastSequenceAndWhatWasSentBefore) {
  OpenProducer(5);
  Send(5, 2);
  auto command = shard_.Take<broker::PublishCommand>();
  EXPECT_EQ(command.producer_stream, 77u);
  EXPECT_EQ(command.first_sequence, 5);
  broker::PublishedMessage before;
  before.duplicate = true;
  command.done(std::vector<broker::PublishedMessage>{before, {{0, 7, 5, 1}}});
  const auto response = Read();
  EXPECT_EQ(response.stored().through_sequence(), 6);
  EXPECT_EQ(response.stored().duplicates(), 1);
  EXPECT_EQ(response.stored().results(0).message_id(), "");
  EXPECT_TRUE(response.stored().results(0).duplicate());
  EXPECT_EQ(response.stored().results(1).message_id(), FormatMessageId({0, 7, 5, 1}));
}

TEST_F(PublishStreamTest, FirstRefusalOfAProducersShardEndsItsStream) {
  OpenProducer(0);
  Send(1, 1);
  Send(2, 1);
  auto first = shard_.Take<broker::PublishCommand>();
  auto second = shard_.Take<broker::PublishCommand>();
  first.done(MakeError(ErrorReason::kQueueFull, "full"));
  second.done(MakeError(ErrorReason::kSequenceRefused, "follows a refused one"));
  EXPECT_EQ(Read().refused().status().reason(), v1::ERROR_REASON_QUEUE_FULL);
  EXPECT_EQ(Read().refused().first_sequence(), 2);
  EXPECT_EQ(ReasonIn(End()), "QUEUE_FULL");
}

TEST_F(PublishStreamTest, NothingBehindABadMessageOfAProducerReachesTheShard) {
  OpenProducer(0);
  Send(1, 1, /*priority=*/10);
  v1::PublishStreamRequest behind;
  behind.mutable_batch()->set_first_sequence(2);
  behind.mutable_batch()->add_messages();
  stream_->Write(behind);  // fails where the end of the stream is quicker
  const auto refused = Read();
  EXPECT_EQ(refused.refused().first_sequence(), 1);
  EXPECT_EQ(End().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  // Were the second sent on, it would come before this.
  std::thread other([&] {
    grpc::ClientContext context;
    v1::GetQueueRequest get;
    get.set_queue("work");
    v1::GetQueueResponse response;
    EXPECT_TRUE(admin_stub_->GetQueue(&context, get, &response).ok());
  });
  shard_.Take<broker::GetQueueCommand>().done(broker::QueueInfo{});
  other.join();
}

TEST_F(PublishStreamTest, FencedProducerEndsAborted) {
  OpenProducer(0);
  Send(1, 1);
  shard_.Take<broker::PublishCommand>().done(MakeError(ErrorReason::kProducerFenced, "newer"));
  EXPECT_EQ(Read().refused().status().reason(), v1::ERROR_REASON_PRODUCER_FENCED);
  const auto status = End();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(ReasonIn(status), "PRODUCER_FENCED");
}

// The broker knows a producer for days after its stream, and many of them.
TEST_F(PublishStreamTest, WhatIsKeptOfAProducerDoesNotKeepTheMemoryOfItsCall) {
  constexpr int kStreams = 200;
  constexpr int64_t kBytesPerStreamMax = 256;
  std::vector<absl::AnyInvocable<void(const absl::Status&)>> kept;
  for (int i = 0; i < kStreams; ++i) {
    grpc::ClientContext context;
    auto stream = queue_stub_->PublishStream(&context);
    v1::PublishStreamRequest request;
    request.mutable_init()->set_queue("work");
    request.mutable_init()->set_producer_id(absl::StrCat("p", i));
    ASSERT_TRUE(stream->Write(request));
    auto command = shard_.Take<broker::OpenProducerCommand>();
    kept.push_back(std::move(command.ended));
    command.done(broker::ProducerOpened{static_cast<uint64_t>(i + 1), 0});
    stream->WritesDone();
    v1::PublishStreamResponse response;
    while (stream->Read(&response)) continue;
    ASSERT_TRUE(stream->Finish().ok());
  }
  server_.reset();  // and with it every call
  const auto bytes_in_use = [] { return static_cast<int64_t>(mallinfo2().uordblks); };
  const int64_t bytes_before = bytes_in_use();
  for (auto& tell : kept) {
    tell(absl::AbortedError("a newer one"));  // does nothing any more
    tell = nullptr;
  }
  EXPECT_LT(bytes_before - bytes_in_use(), kStreams * kBytesPerStreamMax);
}

TEST_F(PublishStreamTest, InitIsChecked) {
  v1::PublishStreamInit init;
  init.set_queue("work");
  init.set_producer_id(std::string(256, 'p'));
  Open(init);
  EXPECT_EQ(End().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(PublishStreamTest, ConfirmsInOrderAndRefusesBatchesAlone) {
  grpc::ClientContext context;
  auto stream = queue_stub_->PublishStream(&context);
  v1::PublishStreamRequest request;
  request.mutable_init()->set_queue("work");
  request.mutable_init()->set_return_results(true);
  ASSERT_TRUE(stream->Write(request));
  AcceptStreamTarget();
  v1::PublishStreamResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_GT(response.started().max_in_flight(), 0);

  const auto send = [&](int64_t first, int count, int priority = 4) {
    request.Clear();
    request.mutable_batch()->set_first_sequence(first);
    for (int i = 0; i < count; ++i) request.mutable_batch()->add_messages()->set_priority(priority);
    ASSERT_TRUE(stream->Write(request));
  };
  send(1, 2);
  send(3, 2, /*priority=*/10);
  send(3, 1);  // does not rise
  send(5, 1);
  ASSERT_TRUE(stream->WritesDone());
  auto first = shard_.Take<broker::PublishCommand>();
  auto second = shard_.Take<broker::PublishCommand>();
  EXPECT_EQ(second.publish.messages.size(), 1u);
  second.done(std::vector<broker::PublishedMessage>{{{0, 7, 5, 3}}});
  first.done(std::vector<broker::PublishedMessage>{{{0, 7, 5, 1}}, {{0, 7, 5, 2}}});

  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.stored().through_sequence(), 2);
  EXPECT_EQ(response.stored().results_size(), 2);
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.refused().first_sequence(), 3);
  EXPECT_EQ(response.refused().last_sequence(), 4);
  EXPECT_EQ(response.refused().status().reason(), v1::ERROR_REASON_INVALID_FIELD);
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.refused().status().reason(), v1::ERROR_REASON_SEQUENCE_REFUSED);
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.stored().through_sequence(), 5);
  EXPECT_EQ(response.stored().results(0).message_id(), FormatMessageId({0, 7, 5, 3}));
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(PublishStreamTest, ToAMissingQueueEndsNotFound) {
  grpc::ClientContext context;
  auto stream = queue_stub_->PublishStream(&context);
  v1::PublishStreamRequest request;
  request.mutable_init()->set_queue("missing");
  ASSERT_TRUE(stream->Write(request));
  shard_.Take<broker::GetQueueCommand>().done(MakeError(ErrorReason::kQueueNotFound, "none"));
  v1::PublishStreamResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(PublishStreamTest, EndsWithoutRefusalWhenTheOutcomeIsUnclear) {
  grpc::ClientContext context;
  auto stream = queue_stub_->PublishStream(&context);
  v1::PublishStreamRequest request;
  request.mutable_init()->set_queue("work");
  ASSERT_TRUE(stream->Write(request));
  AcceptStreamTarget();
  v1::PublishStreamResponse response;
  ASSERT_TRUE(stream->Read(&response));
  request.mutable_batch()->set_first_sequence(1);
  request.mutable_batch()->add_messages();
  ASSERT_TRUE(stream->Write(request));
  shard_.Take<broker::PublishCommand>().done(MakeError(ErrorReason::kStoreFailed, "sync failed"));
  EXPECT_FALSE(stream->Read(&response)) << response.DebugString();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

// Any other end says that what it leaves unanswered was not stored.
TEST_F(PublishStreamTest, AnUnclearOutcomeIsToldAlsoByAStreamThatEndsForAnotherReason) {
  grpc::ClientContext context;
  auto stream = queue_stub_->PublishStream(&context);
  v1::PublishStreamRequest request;
  request.mutable_init()->set_queue("work");
  ASSERT_TRUE(stream->Write(request));
  AcceptStreamTarget();
  v1::PublishStreamResponse response;
  ASSERT_TRUE(stream->Read(&response));
  request.mutable_batch()->set_first_sequence(1);
  request.mutable_batch()->add_messages();
  ASSERT_TRUE(stream->Write(request));
  auto command = shard_.Take<broker::PublishCommand>();
  server_->BeginDrain();
  command.done(MakeError(ErrorReason::kStoreFailed, "sync failed"));
  EXPECT_FALSE(stream->Read(&response)) << response.DebugString();
  EXPECT_EQ(ReasonIn(stream->Finish()), "STORE_FAILED");
}

TEST_F(PublishStreamTest, IsNotReadOnWhileItsWindowIsFull) {
  ServerOptions options;
  options.stream_messages_max = 2;
  Start(options);
  grpc::ClientContext context;
  auto stream = queue_stub_->PublishStream(&context);
  v1::PublishStreamRequest request;
  request.mutable_init()->set_queue("work");
  ASSERT_TRUE(stream->Write(request));
  AcceptStreamTarget();
  for (int64_t sequence = 1; sequence <= 3; ++sequence) {
    request.mutable_batch()->set_first_sequence(sequence);
    if (sequence == 1) request.mutable_batch()->add_messages();
    ASSERT_TRUE(stream->Write(request));
  }
  auto first = shard_.Take<broker::PublishCommand>();
  auto second = shard_.Take<broker::PublishCommand>();
  // Were the third read now, it would be in line before this call's command.
  std::thread other([&] {
    grpc::ClientContext context;
    v1::GetQueueRequest get;
    get.set_queue("work");
    v1::GetQueueResponse response;
    EXPECT_TRUE(admin_stub_->GetQueue(&context, get, &response).ok());
  });
  shard_.Take<broker::GetQueueCommand>().done(broker::QueueInfo{});
  other.join();
  first.done(std::vector<broker::PublishedMessage>(1));
  auto third = shard_.Take<broker::PublishCommand>();
  second.done(std::vector<broker::PublishedMessage>(1));
  third.done(std::vector<broker::PublishedMessage>(1));
  ASSERT_TRUE(stream->WritesDone());
  v1::PublishStreamResponse response;
  while (stream->Read(&response)) continue;
  EXPECT_EQ(response.stored().through_sequence(), 3);
  EXPECT_TRUE(stream->Finish().ok());
}

}  // namespace
}  // namespace sluice::api
