#include "server/api/consume.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "server/model/error.h"
#include "server/model/limits.h"
#include "tests/unit/api/server_fixture.h"

namespace sluice::api {
namespace {

using Stream = grpc::ClientReaderWriter<v1::ConsumeRequest, v1::ConsumeResponse>;

class ConsumeTest : public ServerTest {
 protected:
  // Opens a stream on "work" and reads `started`.
  void Open(bool auto_ack = false) {
    stream_ = queue_stub_->Consume(&context_);
    v1::ConsumeRequest request;
    request.mutable_init()->set_queue("work");
    request.mutable_init()->set_auto_ack(auto_ack);
    ASSERT_TRUE(stream_->Write(request));
    sink_ = shard_.Take<broker::SubscribeCommand>().sink;
    sink_->OnStarted({42, "work", 30'000, 100, 1 << 20});
    v1::ConsumeResponse response;
    ASSERT_TRUE(stream_->Read(&response));
    ASSERT_EQ(response.started().consumer_id(), "42");
  }
  void Deliver(std::vector<uint64_t> seqs) {
    std::vector<broker::OutgoingDelivery> deliveries;
    for (const uint64_t seq : seqs) deliveries.push_back(DeliveryOf(seq, "body"));
    sink_->OnDeliveries(std::move(deliveries));
  }
  void SendAck(int64_t request_id, std::vector<std::string> receipts) {
    v1::ConsumeRequest request;
    request.set_request_id(request_id);
    for (auto& receipt : receipts) request.mutable_ack()->add_receipts(std::move(receipt));
    ASSERT_TRUE(stream_->Write(request));
  }
  std::string TextOf(uint64_t seq) { return Text(codec_, ReceiptOf(seq)); }
  v1::ConsumeResponse Read() {
    v1::ConsumeResponse response;
    EXPECT_TRUE(stream_->Read(&response));
    return response;
  }
  grpc::Status End() {
    v1::ConsumeResponse response;
    EXPECT_FALSE(stream_->Read(&response)) << response.DebugString();
    return stream_->Finish();
  }
  // The end of a stream that the client spoilt by `request`.
  grpc::Status EndAfter(const v1::ConsumeRequest& request) {
    EXPECT_TRUE(stream_->Write(request));
    return End();
  }

  grpc::ClientContext context_;
  std::unique_ptr<Stream> stream_;
  std::shared_ptr<broker::SubscriptionSink> sink_;
};

TEST_F(ConsumeTest, DeliversAndAnswersEachSettlingRequestByItsId) {
  Open();
  Deliver({1, 2});
  auto response = Read();
  ASSERT_EQ(response.deliveries().deliveries_size(), 2);
  EXPECT_EQ(response.deliveries().deliveries(1).receipt(), TextOf(2));
  SendAck(7, {TextOf(1), "garbled", TextOf(2)});
  auto ack = shard_.Take<broker::SettleCommand>();
  EXPECT_EQ(ack.queue, "work");
  ASSERT_EQ(ack.items.size(), 2u);
  EXPECT_EQ(ack.items[1].receipt, ReceiptOf(2));
  EXPECT_EQ(ack.items[1].action, broker::SettleAction::kAck);
  broker::SettleOutcome outcome;
  outcome.settled = 1;
  outcome.failures.push_back({1, MakeError(ErrorReason::kLeaseExpired, "granted again")});
  ack.done(outcome);
  response = Read();
  EXPECT_EQ(response.results().request_id(), 7);
  ASSERT_EQ(response.results().failures_size(), 2);
  EXPECT_EQ(response.results().failures(0).index(), 1);
  EXPECT_EQ(response.results().failures(0).status().reason(), v1::ERROR_REASON_RECEIPT_INVALID);
  EXPECT_EQ(response.results().failures(1).index(), 2);
  EXPECT_EQ(response.results().failures(1).status().reason(), v1::ERROR_REASON_LEASE_EXPIRED);
  EXPECT_FALSE(response.results().has_lease_expires_at());

  v1::ConsumeRequest request;
  request.set_request_id(8);
  auto* item = request.mutable_nack()->add_items();
  request.mutable_nack()->set_queue("work");
  item->set_receipt(TextOf(3));
  item->set_action(v1::NACK_ACTION_DEAD_LETTER);
  item->set_reason("bad");
  ASSERT_TRUE(stream_->Write(request));
  auto nack = shard_.Take<broker::SettleCommand>();
  EXPECT_EQ(nack.items[0].action, broker::SettleAction::kDeadLetter);
  EXPECT_EQ(nack.items[0].reason, "bad");
  nack.done(broker::SettleOutcome{{}, 1});
  EXPECT_EQ(Read().results().request_id(), 8);

  request.Clear();
  request.set_request_id(9);
  request.mutable_extend()->add_receipts(TextOf(4));
  request.mutable_extend()->mutable_lease()->set_seconds(5);
  ASSERT_TRUE(stream_->Write(request));
  auto extend = shard_.Take<broker::ExtendLeaseCommand>();
  EXPECT_EQ(extend.lease_ms, 5'000);
  extend.done(broker::ExtendOutcome{{}, 1'700'000'000'000});
  response = Read();
  EXPECT_EQ(response.results().request_id(), 9);
  EXPECT_EQ(response.results().lease_expires_at().seconds(), 1'700'000'000);
}

TEST_F(ConsumeTest, CreditIsPassedOnUpToItsCeiling) {
  Open();
  v1::ConsumeRequest request;
  request.mutable_credit();
  ASSERT_TRUE(stream_->Write(request));
  auto hold = shard_.Take<broker::SetCreditCommand>();
  EXPECT_EQ(hold.sink, sink_.get());
  EXPECT_EQ(hold.max_in_flight, 0);
  EXPECT_EQ(hold.max_bytes_in_flight, 0);
  request.mutable_credit()->set_max_in_flight(kMaxInFlightCeiling + 1);
  request.mutable_credit()->set_max_bytes_in_flight(kMaxBytesInFlightCeiling + 1);
  ASSERT_TRUE(stream_->Write(request));
  auto ceiling = shard_.Take<broker::SetCreditCommand>();
  EXPECT_EQ(ceiling.max_in_flight, kMaxInFlightCeiling);
  EXPECT_EQ(ceiling.max_bytes_in_flight, kMaxBytesInFlightCeiling);
  request.mutable_credit()->set_max_in_flight(-1);
  EXPECT_EQ(EndAfter(request).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ConsumeTest, LostLeasesArePushed) {
  Open();
  Deliver({1});
  Read();
  sink_->OnLeaseLost({ReceiptOf(1)}, ErrorReason::kLeaseExpired);
  const auto response = Read();
  ASSERT_EQ(response.lease_lost().receipts_size(), 1);
  EXPECT_EQ(response.lease_lost().receipts(0), TextOf(1));
  EXPECT_EQ(response.lease_lost().reason(), v1::ERROR_REASON_LEASE_EXPIRED);
}

TEST_F(ConsumeTest, DrainedComesBehindWhatWasDeliveredBeforeAndTheStreamStillSettles) {
  Open();
  v1::ConsumeRequest request;
  request.mutable_drain();
  ASSERT_TRUE(stream_->Write(request));
  EXPECT_EQ(shard_.Take<broker::DrainSubscriptionCommand>().sink, sink_.get());
  Deliver({1, 2, 3});
  sink_->OnDrained();
  EXPECT_EQ(Read().deliveries().deliveries_size(), 3);
  EXPECT_TRUE(Read().has_drained());
  SendAck(1, {TextOf(1)});
  shard_.Take<broker::SettleCommand>().done(broker::SettleOutcome{{}, 1});
  EXPECT_EQ(Read().results().request_id(), 1);
}

TEST_F(ConsumeTest, NothingIsReadBehindADrainUntilTheShardHasAnsweredIt) {
  Open();
  v1::ConsumeRequest drain;
  drain.mutable_drain();
  v1::ConsumeRequest credit;
  credit.mutable_credit()->set_max_in_flight(5);
  for (const auto& request : {drain, credit, drain}) ASSERT_TRUE(stream_->Write(request));
  shard_.Take<broker::DrainSubscriptionCommand>();
  sink_->OnDrained();
  EXPECT_TRUE(Read().has_drained());
  EXPECT_EQ(shard_.Take<broker::SetCreditCommand>().max_in_flight, 5);
  shard_.Take<broker::DrainSubscriptionCommand>();
  sink_->OnDrained();
  EXPECT_TRUE(Read().has_drained());
  ASSERT_TRUE(stream_->WritesDone());
  EXPECT_TRUE(End().ok());
}

TEST_F(ConsumeTest, HalfCloseIsAnsweredInFullAndLeavesTheLeases) {
  Open();
  Deliver({1});
  Read();
  SendAck(1, {TextOf(1)});
  ASSERT_TRUE(stream_->WritesDone());
  auto ack = shard_.Take<broker::SettleCommand>();
  shard_.Take<broker::DrainSubscriptionCommand>();
  // Granted before the shard heard of it: the client cannot settle it here any more.
  Deliver({2});
  sink_->OnDrained();
  ack.done(broker::SettleOutcome{{}, 1});
  EXPECT_EQ(Read().results().request_id(), 1);
  EXPECT_TRUE(End().ok());
  const auto close = shard_.Take<broker::CloseSubscriptionCommand>();
  EXPECT_EQ(close.sink, sink_);
  EXPECT_TRUE(close.keep_leases);
  ASSERT_EQ(close.unwritten.size(), 1u);
  EXPECT_EQ(close.unwritten[0], ReceiptOf(2));
}

TEST_F(ConsumeTest, CancelEndsTheLeases) {
  Open();
  context_.TryCancel();
  EXPECT_EQ(stream_->Finish().error_code(), grpc::StatusCode::CANCELLED);
  // The read that the cancel broke may look like a half-close, but is none.
  broker::Command command = shard_.TakeAny();
  if (std::holds_alternative<broker::DrainSubscriptionCommand>(command)) {
    command = shard_.TakeAny();
  }
  EXPECT_FALSE(std::get<broker::CloseSubscriptionCommand>(command).keep_leases);
}

TEST_F(ConsumeTest, HalfCloseRightBehindInitIsStillToldHowItStarted) {
  stream_ = queue_stub_->Consume(&context_);
  v1::ConsumeRequest request;
  request.mutable_init()->set_queue("work");
  ASSERT_TRUE(stream_->Write(request));
  ASSERT_TRUE(stream_->WritesDone());
  sink_ = shard_.Take<broker::SubscribeCommand>().sink;
  shard_.Take<broker::DrainSubscriptionCommand>();
  sink_->OnStarted({42, "work", 30'000, 100, 1 << 20});
  EXPECT_EQ(Read().started().queue(), "work");
  EXPECT_TRUE(End().ok());
}

TEST_F(ConsumeTest, EndsAsTheShardSaysAndAnswersWhatWasAskedBefore) {
  Open();
  SendAck(1, {TextOf(1)});
  auto ack = shard_.Take<broker::SettleCommand>();
  Deliver({2});
  Read();
  sink_->OnEnd(MakeError(ErrorReason::kDraining, "stopping"));
  ack.done(broker::SettleOutcome{{}, 1});
  EXPECT_EQ(Read().results().request_id(), 1);
  EXPECT_EQ(ReasonIn(End()), "DRAINING");
  EXPECT_FALSE(shard_.Take<broker::CloseSubscriptionCommand>().keep_leases);
}

TEST_F(ConsumeTest, ShardEndWithOkWritesWhatWaits) {
  Open();
  Deliver({1});
  sink_->OnEnd(absl::OkStatus());
  EXPECT_EQ(Read().deliveries().deliveries_size(), 1);
  EXPECT_TRUE(End().ok());
}

TEST_F(ConsumeTest, RefusedSubscriptionEndsTheStream) {
  stream_ = queue_stub_->Consume(&context_);
  v1::ConsumeRequest request;
  request.mutable_init()->set_queue("missing");
  ASSERT_TRUE(stream_->Write(request));
  shard_.Take<broker::SubscribeCommand>().sink->OnEnd(
      MakeError(ErrorReason::kQueueNotFound, "none"));
  EXPECT_EQ(ReasonIn(End()), "QUEUE_NOT_FOUND");
}

TEST_F(ConsumeTest, RefusedSettleAsAWholeEndsTheStream) {
  Open();
  SendAck(1, {TextOf(1)});
  shard_.Take<broker::SettleCommand>().done(MakeError(ErrorReason::kQueueNotFound, "deleted"));
  EXPECT_EQ(End().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ConsumeTest, InitMustComeFirst) {
  stream_ = queue_stub_->Consume(&context_);
  v1::ConsumeRequest request;
  request.mutable_drain();
  EXPECT_EQ(EndAfter(request).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ConsumeTest, InitMustCome) {
  stream_ = queue_stub_->Consume(&context_);
  ASSERT_TRUE(stream_->WritesDone());
  EXPECT_EQ(End().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ConsumeTest, InitMustComeOnce) {
  Open();
  v1::ConsumeRequest request;
  request.mutable_init()->set_queue("work");
  EXPECT_EQ(EndAfter(request).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_FALSE(shard_.Take<broker::CloseSubscriptionCommand>().keep_leases);
}

TEST_F(ConsumeTest, AnotherQueueIsRefused) {
  Open();
  v1::ConsumeRequest request;
  request.mutable_ack()->set_queue("other");
  request.mutable_ack()->add_receipts(TextOf(1));
  EXPECT_EQ(EndAfter(request).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ConsumeTest, AutoAckIsReportedAsWritten) {
  Open(/*auto_ack=*/true);
  Deliver({1, 2});
  EXPECT_EQ(Read().deliveries().deliveries(0).receipt(), "");
  EXPECT_EQ(shard_.Take<broker::WrittenCommand>().deliveries, 2u);
}

TEST_F(ConsumeTest, IsNotReadOnWhileTooMuchIsUnanswered) {
  Open();
  // As many items as may be unanswered in one request: the next waits for its answer.
  SendAck(1, std::vector<std::string>(kReceiptsPerCallMax, TextOf(1)));
  auto first = shard_.Take<broker::SettleCommand>();
  SendAck(2, {TextOf(2)});
  // Were the second read now, it would be in line before this call's command.
  std::thread other([&] {
    grpc::ClientContext context;
    v1::GetQueueRequest get;
    get.set_queue("work");
    v1::GetQueueResponse response;
    EXPECT_TRUE(admin_stub_->GetQueue(&context, get, &response).ok());
  });
  shard_.Take<broker::GetQueueCommand>().done(broker::QueueInfo{});
  other.join();
  first.done(broker::SettleOutcome{{}, kReceiptsPerCallMax});
  EXPECT_EQ(Read().results().request_id(), 1);
  shard_.Take<broker::SettleCommand>().done(broker::SettleOutcome{{}, 1});
  EXPECT_EQ(Read().results().request_id(), 2);
}

}  // namespace
}  // namespace sluice::api
