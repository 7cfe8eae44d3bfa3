#include "server/api/server.h"

#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "server/model/error.h"
#include "server/model/server_fields.h"
#include "tests/unit/api/server_fixture.h"

namespace sluice::api {
namespace {

TEST_F(ServerTest, PublishIsAnsweredWhenTheShardHasStoredIt) {
  v1::PublishResponse response;
  grpc::Status status;
  std::thread client([&] {
    grpc::ClientContext context;
    v1::PublishRequest request;
    request.set_queue("work");
    request.add_messages()->set_body("one");
    request.add_messages()->set_body("two");
    status = queue_stub_->Publish(&context, request, &response);
  });
  auto command = shard_.Take<broker::PublishCommand>();
  EXPECT_EQ(command.publish.queue, "work");
  ASSERT_EQ(command.publish.messages.size(), 2u);
  v1::Message stored;
  const auto& payload = command.publish.messages[1].payload;
  ASSERT_TRUE(stored.ParseFromArray(payload.data(),
                                    static_cast<int>(payload.size() - kServerFieldsBytes)));
  EXPECT_EQ(stored.body(), "two");
  command.done(std::vector<broker::PublishedMessage>{{{0, 7, 5, 1}}, {{0, 7, 5, 2}, true}});
  client.join();
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.results_size(), 2);
  EXPECT_EQ(response.results(0).message_id(), FormatMessageId({0, 7, 5, 1}));
  EXPECT_FALSE(response.results(0).duplicate());
  EXPECT_TRUE(response.results(1).duplicate());
  EXPECT_EQ(response.results(1).routed_queues(), 1);
}

TEST_F(ServerTest, WaitForAFullQueueEndsBeforeTheDeadline) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  std::thread client([&] {
    v1::PublishRequest request;
    request.set_queue("work");
    request.add_messages();
    request.mutable_wait_when_full()->set_seconds(60);
    v1::PublishResponse response;
    EXPECT_EQ(queue_stub_->Publish(&context, request, &response).error_code(),
              grpc::StatusCode::RESOURCE_EXHAUSTED);
  });
  auto command = shard_.Take<broker::PublishCommand>();
  EXPECT_LE(command.publish.wait_when_full_ms, 9'950);
  EXPECT_GT(command.publish.wait_when_full_ms, 5'000);
  command.done(MakeError(ErrorReason::kQueueFull, "queue 'work' is full"));
  client.join();
}

TEST_F(ServerTest, MessageWithoutARouteHasNoId) {
  v1::PublishResponse response;
  std::thread client([&] {
    grpc::ClientContext context;
    v1::PublishRequest request;
    request.set_exchange("events");
    request.add_messages();
    EXPECT_TRUE(queue_stub_->Publish(&context, request, &response).ok());
  });
  auto command = shard_.Take<broker::PublishCommand>();
  EXPECT_EQ(command.publish.exchange, "events");
  broker::PublishedMessage unrouted;
  unrouted.routed_queues = 0;
  command.done(std::vector<broker::PublishedMessage>{unrouted});
  client.join();
  ASSERT_EQ(response.results_size(), 1);
  EXPECT_EQ(response.results(0).message_id(), "");
  EXPECT_EQ(response.results(0).routed_queues(), 0);
}

TEST_F(ServerTest, RefusalOfTheShardReachesTheClientWithItsReason) {
  grpc::Status status;
  std::thread client([&] {
    grpc::ClientContext context;
    v1::PublishRequest request;
    request.set_queue("missing");
    request.add_messages();
    v1::PublishResponse response;
    status = queue_stub_->Publish(&context, request, &response);
  });
  shard_.Take<broker::PublishCommand>().done(
      MakeError(ErrorReason::kQueueNotFound, "no queue 'missing'"));
  client.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(ReasonIn(status), "QUEUE_NOT_FOUND");
}

TEST_F(ServerTest, SubscriptionCarriesStartedThenDeliveriesAndEndsAsTheShardSays) {
  grpc::ClientContext context;
  v1::SubscribeRequest request;
  request.set_queue("work");
  request.set_max_in_flight(1'000'000);
  auto reader = queue_stub_->Subscribe(&context, request);
  auto command = shard_.Take<broker::SubscribeCommand>();
  EXPECT_EQ(command.max_in_flight, kMaxInFlightCeiling);
  reader->WaitForInitialMetadata();  // headers come before anything is delivered

  command.sink->OnStarted({42, "work", 30'000, command.max_in_flight, 1 << 20});
  v1::SubscribeResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.started().consumer_id(), "42");
  EXPECT_EQ(response.started().max_in_flight(), kMaxInFlightCeiling);

  std::vector<broker::OutgoingDelivery> deliveries;
  deliveries.push_back(DeliveryOf(1, "small"));
  deliveries.push_back(DeliveryOf(2, std::string(100'000, 'x')));
  command.sink->OnDeliveries(std::move(deliveries));
  ASSERT_TRUE(reader->Read(&response));
  ASSERT_EQ(response.deliveries_size(), 2);
  EXPECT_EQ(response.deliveries(0).receipt(), Text(codec_, ReceiptOf(1)));
  EXPECT_EQ(response.deliveries(0).message().body(), "small");
  EXPECT_EQ(response.deliveries(1).message().body().size(), 100'000u);

  command.sink->OnLeaseLost({ReceiptOf(1)}, ErrorReason::kLeaseExpired);
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.lease_lost().receipts(0), Text(codec_, ReceiptOf(1)));
  EXPECT_EQ(response.lease_lost().reason(), v1::ERROR_REASON_LEASE_EXPIRED);

  command.sink->OnEnd(MakeError(ErrorReason::kQueueDeleted, "queue 'work' was deleted"));
  EXPECT_FALSE(reader->Read(&response));
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(ReasonIn(status), "QUEUE_DELETED");
  EXPECT_GT(shard_.Take<broker::WrittenCommand>().bytes, 100'000u);
  EXPECT_TRUE(shard_.Take<broker::CloseSubscriptionCommand>().unwritten.empty());
}

TEST_F(ServerTest, CancelledSubscriptionIsClosedWithWhatWasNeverWritten) {
  grpc::ClientContext context;
  v1::SubscribeRequest request;
  request.set_queue("work");
  auto reader = queue_stub_->Subscribe(&context, request);
  auto command = shard_.Take<broker::SubscribeCommand>();
  command.sink->OnStarted({1, "work", 30'000, 100, 1 << 20});
  v1::SubscribeResponse response;
  ASSERT_TRUE(reader->Read(&response));
  context.TryCancel();
  auto close = shard_.Take<broker::CloseSubscriptionCommand>();
  EXPECT_EQ(close.sink, command.sink);
  // The shard had granted before it heard of the end.
  std::vector<broker::OutgoingDelivery> deliveries;
  deliveries.push_back(DeliveryOf(9, "late"));
  command.sink->OnDeliveries(std::move(deliveries));
  close = shard_.Take<broker::CloseSubscriptionCommand>();
  ASSERT_EQ(close.unwritten.size(), 1u);
  EXPECT_EQ(close.unwritten[0], ReceiptOf(9));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(ServerTest, AutoAckIsReportedAsWrittenAndCarriesNoReceipt) {
  grpc::ClientContext context;
  v1::SubscribeRequest request;
  request.set_queue("work");
  request.set_auto_ack(true);
  auto reader = queue_stub_->Subscribe(&context, request);
  auto command = shard_.Take<broker::SubscribeCommand>();
  command.sink->OnStarted({1, "work", 30'000, 100, 1 << 20});
  v1::SubscribeResponse response;
  ASSERT_TRUE(reader->Read(&response));
  std::vector<broker::OutgoingDelivery> deliveries;
  for (uint64_t seq = 1; seq <= 3; ++seq) deliveries.push_back(DeliveryOf(seq, "x"));
  command.sink->OnDeliveries(std::move(deliveries));
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.deliveries(0).receipt(), "");
  EXPECT_FALSE(response.deliveries(0).has_lease_expires_at());
  const auto written = shard_.Take<broker::WrittenCommand>();
  EXPECT_EQ(written.sink, command.sink.get());
  EXPECT_EQ(written.deliveries, 3u);
  command.sink->OnEnd(absl::OkStatus());
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(ServerTest, GarbledReceiptFailsAloneAndKeepsItsPlace) {
  v1::AckResponse response;
  grpc::Status status;
  std::thread client([&] {
    grpc::ClientContext context;
    v1::AckRequest request;
    request.set_queue("work");
    request.add_receipts(Text(codec_, ReceiptOf(1)));
    request.add_receipts("garbled");
    request.add_receipts(Text(codec_, ReceiptOf(2)));
    status = queue_stub_->Ack(&context, request, &response);
  });
  auto command = shard_.Take<broker::SettleCommand>();
  ASSERT_EQ(command.items.size(), 2u);
  EXPECT_EQ(command.items[1].receipt, ReceiptOf(2));
  broker::SettleOutcome outcome;
  outcome.settled = 1;
  outcome.failures.push_back({1, MakeError(ErrorReason::kLeaseExpired, "granted again")});
  command.done(outcome);
  client.join();
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.acked(), 1);
  ASSERT_EQ(response.failures_size(), 2);
  EXPECT_EQ(response.failures(0).index(), 1);
  EXPECT_EQ(response.failures(0).status().reason(), v1::ERROR_REASON_RECEIPT_INVALID);
  EXPECT_EQ(response.failures(1).index(), 2);
  EXPECT_EQ(response.failures(1).status().reason(), v1::ERROR_REASON_LEASE_EXPIRED);
}

TEST_F(ServerTest, NackCarriesActionsAndDelays) {
  std::thread client([&] {
    grpc::ClientContext context;
    v1::NackRequest request;
    request.set_queue("work");
    request.add_items()->set_receipt(Text(codec_, ReceiptOf(1)));
    auto* delayed = request.add_items();
    delayed->set_receipt(Text(codec_, ReceiptOf(2)));
    delayed->set_action(v1::NACK_ACTION_DELAY);
    delayed->mutable_delay()->set_nanos(1);
    v1::NackResponse response;
    EXPECT_TRUE(queue_stub_->Nack(&context, request, &response).ok());
  });
  auto command = shard_.Take<broker::SettleCommand>();
  ASSERT_EQ(command.items.size(), 2u);
  EXPECT_EQ(command.items[0].action, broker::SettleAction::kRetry);
  EXPECT_EQ(command.items[1].action, broker::SettleAction::kDelay);
  EXPECT_EQ(command.items[1].delay_ms, 1);  // never early
  EXPECT_EQ(command.items[1].receipt, ReceiptOf(2));
  command.done(broker::SettleOutcome{});
  client.join();
}

TEST_F(ServerTest, ReceiveAnswersBeforeTheDeadlineAndIsCancelledWithTheCall) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  std::thread client([&] {
    v1::ReceiveRequest request;
    request.set_queue("work");
    request.mutable_wait()->set_seconds(60);
    v1::ReceiveResponse response;
    EXPECT_EQ(queue_stub_->Receive(&context, request, &response).error_code(),
              grpc::StatusCode::CANCELLED);
  });
  auto command = shard_.Take<broker::ReceiveCommand>();
  EXPECT_LE(command.wait_ms, 9'950);
  EXPECT_GT(command.wait_ms, 5'000);
  context.TryCancel();
  EXPECT_EQ(shard_.Take<broker::CancelReceiveCommand>().call_id, command.call_id);
  // What was granted in the meantime could not be written.
  std::vector<broker::OutgoingDelivery> deliveries;
  deliveries.push_back(DeliveryOf(3, "x"));
  command.done(std::move(deliveries));
  const auto written = shard_.Take<broker::ReceiveWrittenCommand>();
  EXPECT_FALSE(written.written);
  ASSERT_EQ(written.receipts.size(), 1u);
  client.join();
}

TEST_F(ServerTest, DrainRefusesNewWorkEndsPublishStreamsAndStillSettles) {
  grpc::ClientContext stream_context;
  auto stream = queue_stub_->PublishStream(&stream_context);
  v1::PublishStreamRequest init;
  init.mutable_init()->set_queue("work");
  ASSERT_TRUE(stream->Write(init));
  AcceptStreamTarget();
  v1::PublishStreamResponse response;
  ASSERT_TRUE(stream->Read(&response));

  server_->BeginDrain();
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(ReasonIn(stream->Finish()), "DRAINING");
  {
    grpc::ClientContext context;
    v1::PublishRequest request;
    request.set_queue("work");
    request.add_messages();
    v1::PublishResponse published;
    EXPECT_EQ(ReasonIn(queue_stub_->Publish(&context, request, &published)), "DRAINING");
  }
  std::thread client([&] {
    grpc::ClientContext context;
    v1::AckRequest request;
    request.set_queue("work");
    request.add_receipts(Text(codec_, ReceiptOf(1)));
    v1::AckResponse acked;
    EXPECT_TRUE(queue_stub_->Ack(&context, request, &acked).ok());
  });
  shard_.Take<broker::SettleCommand>().done(broker::SettleOutcome{{}, 1});
  client.join();
}

TEST_F(ServerTest, ShutdownEndsCallsThatTheShardNeverAnswers) {
  grpc::Status status;
  std::thread client([&] {
    grpc::ClientContext context;
    v1::PublishRequest request;
    request.set_queue("work");
    request.add_messages();
    v1::PublishResponse response;
    status = queue_stub_->Publish(&context, request, &response);
  });
  auto command = shard_.Take<broker::PublishCommand>();
  server_->Shutdown(0);
  client.join();
  EXPECT_FALSE(status.ok());
  command.done(std::vector<broker::PublishedMessage>(1));  // dropped
}

TEST_F(ServerTest, CreateQueueCarriesOnlyWhatWasSet) {
  v1::CreateQueueResponse response;
  std::thread client([&] {
    grpc::ClientContext context;
    v1::CreateQueueRequest request;
    request.mutable_config()->set_name("work");
    request.mutable_config()->mutable_lease()->set_seconds(5);
    EXPECT_TRUE(admin_stub_->CreateQueue(&context, request, &response).ok());
  });
  auto command = shard_.Take<broker::CreateQueueCommand>();
  EXPECT_EQ(command.config.name, "work");
  EXPECT_EQ(command.config.lease_ms, 5'000);
  EXPECT_FALSE(command.config.labels.has_value());
  broker::CreateQueueOutcome outcome;
  outcome.queue.config.name = "work";
  outcome.queue.revision = 3;
  outcome.created = true;
  command.done(outcome);
  client.join();
  EXPECT_TRUE(response.created());
  EXPECT_EQ(response.queue().etag(), "r3");
}

TEST_F(ServerTest, BackupsAreNotBuiltAndSaySo) {
  grpc::ClientContext context;
  auto backup = admin_stub_->CreateBackup(&context, v1::CreateBackupRequest());
  v1::CreateBackupResponse progress;
  EXPECT_FALSE(backup->Read(&progress));
  const grpc::Status status = backup->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_NE(status.error_message().find("CreateBackup"), std::string::npos);
  EXPECT_EQ(ReasonIn(status), "INVALID_FIELD");
}

TEST_F(ServerTest, ATakenAddressIsRefused) {
  ServerOptions options;
  options.listen = absl::StrCat("127.0.0.1:", server_->port());
  const auto second = Server::Start(options, &shard_, codec_, hash_, Clock::System(), nullptr);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ServerTest, AgedStreamsEndBeforeTheirConnectionIsCut) {
  ServerOptions options;
  options.connection_age_ms_max = 60'000;
  options.connection_age_grace_ms = 100;
  Start(options);
  grpc::ClientContext context;
  v1::SubscribeRequest request;
  request.set_queue("work");
  auto reader = queue_stub_->Subscribe(&context, request);
  v1::SubscribeResponse response;
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(ReasonIn(reader->Finish()), "STREAM_AGED");
}

TEST_F(ServerTest, WrittenDeliveriesAreReportedByBytes) {
  grpc::ClientContext context;
  v1::SubscribeRequest request;
  request.set_queue("work");
  auto reader = queue_stub_->Subscribe(&context, request);
  auto command = shard_.Take<broker::SubscribeCommand>();
  command.sink->OnStarted({1, "work", 30'000, 100, 1 << 20});
  v1::SubscribeResponse response;
  ASSERT_TRUE(reader->Read(&response));
  // One byte below the bound waits for more.
  const size_t envelope = DeliveryOf(1, std::string(kUnwrittenReportBytes, 'x')).payload.size() -
                          kUnwrittenReportBytes;
  std::vector<broker::OutgoingDelivery> deliveries;
  deliveries.push_back(DeliveryOf(1, std::string(kUnwrittenReportBytes - envelope - 1, 'x')));
  const size_t bytes = deliveries[0].payload.size();
  command.sink->OnDeliveries(std::move(deliveries));
  ASSERT_TRUE(reader->Read(&response));
  deliveries.clear();
  deliveries.push_back(DeliveryOf(2, "y"));
  const size_t more_bytes = deliveries[0].payload.size();
  command.sink->OnDeliveries(std::move(deliveries));
  ASSERT_TRUE(reader->Read(&response));
  const auto written = shard_.Take<broker::WrittenCommand>();
  EXPECT_EQ(written.bytes, bytes + more_bytes);
  EXPECT_EQ(written.deliveries, 0u);
  command.sink->OnEnd(absl::OkStatus());
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_TRUE(reader->Finish().ok());
}

// A publish whose request never comes.
class StalledPublish {
 public:
  explicit StalledPublish(const std::shared_ptr<grpc::Channel>& channel) : stub_(channel) {
    call_ = stub_.PrepareCall(&context_, "/sluice.v1.QueueService/Publish", &queue_);
    call_->StartCall(this);
    Wait();
  }
  ~StalledPublish() {
    queue_.Shutdown();
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) continue;
  }
  grpc::Status Cancel() {
    context_.TryCancel();
    return Finish();
  }
  grpc::Status Finish() {
    grpc::Status status;
    call_->Finish(&status, this);
    Wait();
    return status;
  }

 private:
  void Wait() {
    void* tag;
    bool ok;
    queue_.Next(&tag, &ok);
  }
  grpc::ClientContext context_;
  grpc::GenericStub stub_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

TEST_F(ServerTest, PublishesWaitUnreadForEarlierOnesToArriveAndAcksDoNot) {
  ServerOptions options;
  options.server_bytes_max = kRequestBytesMax;  // one at a time
  Start(options);
  StalledPublish stalled(channel_);
  v1::PublishRequest publish;
  publish.set_queue("work");
  publish.add_messages();
  v1::PublishResponse response;
  // Until the stalled call has been taken up, ours may overtake it.
  grpc::Status status;
  for (int i = 0; i < 100 && status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED; ++i) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
    std::thread shard([&] {
      if (auto command = shard_.TryTake<broker::PublishCommand>(absl::Milliseconds(400))) {
        command->done(std::vector<broker::PublishedMessage>{{{0, 7, 5, 1}}});
      }
    });
    status = queue_stub_->Publish(&context, publish, &response);
    shard.join();
  }
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);

  std::thread acking([&] {
    grpc::ClientContext context;
    v1::AckRequest ack;
    ack.set_queue("work");
    ack.add_receipts(Text(codec_, ReceiptOf(1)));
    v1::AckResponse acked;
    EXPECT_TRUE(queue_stub_->Ack(&context, ack, &acked).ok());
  });
  shard_.Take<broker::SettleCommand>().done(broker::SettleOutcome{});
  acking.join();

  EXPECT_EQ(stalled.Cancel().error_code(), grpc::StatusCode::CANCELLED);
  std::thread publishing([&] {
    grpc::ClientContext context;
    EXPECT_TRUE(queue_stub_->Publish(&context, publish, &response).ok());
  });
  shard_.Take<broker::PublishCommand>().done(
      std::vector<broker::PublishedMessage>{{{0, 7, 5, 1}}});
  publishing.join();
}

TEST_F(ServerTest, APublishThatDoesNotArriveIsRefusedOnceOthersWaitForItsPlace) {
  ServerOptions options;
  options.server_bytes_max = kRequestBytesMax;  // one at a time
  options.receive_patience_ms = 50;
  Start(options);
  StalledPublish stalled(channel_);
  v1::PublishRequest publish;
  publish.set_queue("work");
  publish.add_messages();
  // Until the stalled call has been taken up, ours may overtake it.
  std::atomic<bool> refused{false};
  std::thread publishing([&] {
    while (!refused) {
      grpc::ClientContext context;
      v1::PublishResponse response;
      const grpc::Status status = queue_stub_->Publish(&context, publish, &response);
      EXPECT_TRUE(status.ok()) << status.error_message();
    }
  });
  std::thread shard([&] {
    while (!refused) {
      if (auto command = shard_.TryTake<broker::PublishCommand>(absl::Milliseconds(20))) {
        command->done(std::vector<broker::PublishedMessage>{{{0, 7, 5, 1}}});
      }
    }
  });
  const grpc::Status status = stalled.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_EQ(ReasonIn(status), "MEMORY_FULL");
  // The last publish still wants its answer.
  refused = true;
  shard.join();
  if (auto command = shard_.TryTake<broker::PublishCommand>(absl::Milliseconds(500))) {
    command->done(std::vector<broker::PublishedMessage>{{{0, 7, 5, 1}}});
  }
  publishing.join();
}

TEST_F(ServerTest, AFloodOfLargePublishesIsRefusedWithAReasonAndNothingRefusedIsTaken) {
  ServerOptions options;
  options.body_bytes_max = kBodyBytesMaxCeiling;
  options.server_bytes_max = 2 * kRequestBytesMax;
  options.transport_bytes_max = 128 * kMiB;  // less than the flood
  Start(options);
  constexpr int kCalls = 16;
  v1::PublishRequest request;
  request.set_queue("work");
  request.add_messages()->set_body(std::string(14 * kMiB, 'x'));
  std::vector<grpc::Status> statuses(kCalls);
  std::vector<std::thread> clients;
  std::atomic<int> answered{0};
  for (int i = 0; i < kCalls; ++i) {
    clients.emplace_back([&, i] {
      grpc::ClientContext context;
      v1::PublishResponse response;
      statuses[i] = queue_stub_->Publish(&context, request, &response);
      ++answered;
    });
  }
  // Three fill the budget, one more may have begun to arrive before.
  std::vector<broker::PublishCommand> taken;
  while (answered + static_cast<int>(taken.size()) < kCalls) {
    if (auto command = shard_.TryTake<broker::PublishCommand>(absl::Milliseconds(50))) {
      taken.push_back(*std::move(command));
    }
  }
  EXPECT_GE(taken.size(), 3u);
  EXPECT_LE(taken.size(), 4u);
  for (auto& command : taken) {
    command.done(std::vector<broker::PublishedMessage>{{{0, 7, 5, 1}}});
  }
  for (auto& client : clients) client.join();
  size_t stored = 0;
  for (const auto& status : statuses) {
    if (status.ok()) {
      ++stored;
    } else {
      EXPECT_EQ(ReasonIn(status), "MEMORY_FULL") << status.error_message();
    }
  }
  EXPECT_EQ(stored, taken.size());
}

TEST_F(ServerTest, ReceiveCallsBeyondTheLimitAreRefused) {
  ServerOptions options;
  options.receives_max = 1;
  Start(options);
  v1::ReceiveRequest request;
  request.set_queue("work");
  v1::ReceiveResponse response;
  std::thread first([&] {
    grpc::ClientContext context;
    v1::ReceiveResponse first_response;
    EXPECT_TRUE(queue_stub_->Receive(&context, request, &first_response).ok());
  });
  auto command = shard_.Take<broker::ReceiveCommand>();
  grpc::ClientContext context;
  const auto status = queue_stub_->Receive(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonIn(status), "TOO_MANY_STREAMS");
  command.done(std::vector<broker::OutgoingDelivery>());
  first.join();
  std::thread third([&] {
    grpc::ClientContext third_context;
    EXPECT_TRUE(queue_stub_->Receive(&third_context, request, &response).ok());
  });
  shard_.Take<broker::ReceiveCommand>().done(std::vector<broker::OutgoingDelivery>());
  third.join();
}

TEST_F(ServerTest, AnswersToReceiveThatNobodyReadsAreBounded) {
  ServerOptions options;
  options.receive_bytes_max = 0;
  Start(options);
  std::thread client([&] {
    grpc::ClientContext context;
    v1::ReceiveRequest request;
    request.set_queue("work");
    v1::ReceiveResponse response;
    EXPECT_EQ(ReasonIn(queue_stub_->Receive(&context, request, &response)), "MEMORY_FULL");
  });
  std::vector<broker::OutgoingDelivery> deliveries;
  deliveries.push_back(DeliveryOf(3, "x"));
  shard_.Take<broker::ReceiveCommand>().done(std::move(deliveries));
  const auto written = shard_.Take<broker::ReceiveWrittenCommand>();
  EXPECT_FALSE(written.written) << "the refusal did not happen";
  EXPECT_EQ(written.receipts.size(), 1u);
  client.join();
}

TEST_F(ServerTest, UnknownFieldsAreRefusedAlsoInsideOfOthers) {
  v1::CreateQueueRequest request;
  request.mutable_config()->set_name("work");
  auto* const retry = request.mutable_config()->mutable_retry();
  retry->GetReflection()->MutableUnknownFields(retry)->AddVarint(99, 1);
  grpc::ClientContext context;
  v1::CreateQueueResponse response;
  const auto status = admin_stub_->CreateQueue(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_NE(status.error_message().find("field 99 of config.retry"), std::string::npos)
      << status.error_message();

  grpc::ClientContext nack_context;
  v1::NackRequest nack;
  nack.set_queue("work");
  nack.add_items();
  auto* const item = nack.add_items();
  item->GetReflection()->MutableUnknownFields(item)->AddVarint(98, 1);
  v1::NackResponse nacked;
  const auto refused = queue_stub_->Nack(&nack_context, nack, &nacked);
  EXPECT_NE(refused.error_message().find("field 98 of items[1]"), std::string::npos)
      << refused.error_message();
}

TEST_F(ServerTest, StreamsBeyondTheLimitAreRefused) {
  ServerOptions options;
  options.streams_max = 1;
  Start(options);
  v1::SubscribeRequest request;
  request.set_queue("work");
  grpc::ClientContext first_context;
  auto first = queue_stub_->Subscribe(&first_context, request);
  auto command = shard_.Take<broker::SubscribeCommand>();
  grpc::ClientContext second_context;
  auto second = queue_stub_->Subscribe(&second_context, request);
  v1::SubscribeResponse response;
  EXPECT_FALSE(second->Read(&response));
  EXPECT_EQ(ReasonIn(second->Finish()), "TOO_MANY_STREAMS");
  first_context.TryCancel();
  first->Finish();
}

}  // namespace
}  // namespace sluice::api
