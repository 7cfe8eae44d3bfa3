#include "server/api/consume.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/field_checks.h"
#include "server/api/item_failures.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

// Requests of one stream that are not answered yet: enough to keep a consumer busy that settles one
// message at a time while each waits for a sync.
constexpr int kRequestsMax = 256;
// Items of these requests; the one that reaches it may go beyond by as many as one request holds.
// About 100 bytes each until they are settled.
constexpr int64_t kItemsMax = kReceiptsPerCallMax;

}  // namespace

void ConsumeCall::Arm(const MethodBinding& binding, EventLoop* loop) {
  auto call = std::make_shared<ConsumeCall>(binding, loop);
  call->context_.AsyncNotifyWhenDone(call->ArmDone());
  void* const tag = call->read_tag_.Arm<&ConsumeCall::OnRequested>(call);
  binding.service->RequestBidiStream(binding.method->index, &call->context_, &call->stream_,
                                     loop->queue(), tag);
}

ConsumeCall::ConsumeCall(const MethodBinding& binding, EventLoop* loop)
    : ConsumerStream(binding, loop), stream_(&context_) {}

std::shared_ptr<ConsumeCall> ConsumeCall::consume_self() {
  return std::static_pointer_cast<ConsumeCall>(shared_from_this());
}

void ConsumeCall::OnRequested(bool ok) {
  if (!ok) return ReleaseDone();
  Arm(binding_, loop_);
  Begin();
  if (auto status = Admit(); !status.ok()) return EndWith(std::move(status));
  Open();
  Advance();
}

bool ConsumeCall::MayRead() const {
  // What follows a drain, such as new credit, is not mixed up with it: it waits for the shard's word.
  return !reading_ && !half_closed_ && !end() && !over() && !draining_ &&
         requests_ < kRequestsMax && items_ < kItemsMax;
}

void ConsumeCall::Advance() {
  if (half_closed_ && started_told() && requests_ == 0) Leave();
  ConsumerStream::Advance();
  if (!MayRead()) return;
  reading_ = true;
  stream_.Read(&request_, read_tag_.Arm<&ConsumeCall::OnRead>(consume_self()));
}

void ConsumeCall::OnRead(bool ok) {
  reading_ = false;
  if (end() || over()) return;
  if (!ok) {
    // Half-closed, cancelled or broken; in the last two cases the end of the call will tell.
    half_closed_ = true;
    if (!subscribed()) {
      return EndWith(MakeFieldError("init", "must be the first message of the stream"));
    }
    // Its end is told by that of the stream.
    api_->sink->Submit(broker::DrainSubscriptionCommand{this});
    return Advance();
  }
  CountReceived();
  auto parsed = ParseConsumeRequest(request_, api_->receipts);
  request_.Clear();
  const absl::Status status = parsed.ok() ? TakeRequest(*std::move(parsed)) : parsed.status();
  if (!status.ok()) return EndWith(status);
  Advance();
}

absl::Status ConsumeCall::TakeRequest(ParsedConsume parsed) {
  const bool is_init = parsed.other.has_init();
  if (is_init && subscribed()) return MakeFieldError("init", "must come once");
  if (!is_init && !subscribed()) {
    return MakeFieldError("init", "must be the first message of the stream");
  }
  if (parsed.ack) {
    if (auto status = CheckQueue("ack.queue", parsed.ack->queue); !status.ok()) return status;
    SubmitSettle(ToAcks(*std::move(parsed.ack)), parsed.request_id);
    return absl::OkStatus();
  }
  switch (parsed.other.request_case()) {
    case v1::ConsumeRequest::kInit: return Subscribe(parsed.other.init(), "init");
    case v1::ConsumeRequest::kCredit: return TakeCredit(parsed.other.credit());
    case v1::ConsumeRequest::kNack: return TakeNack(parsed.other.nack(), parsed.request_id);
    case v1::ConsumeRequest::kExtend: return TakeExtend(parsed.other.extend(), parsed.request_id);
    case v1::ConsumeRequest::kDrain: TakeDrain(); return absl::OkStatus();
    case v1::ConsumeRequest::kAck:
    case v1::ConsumeRequest::REQUEST_NOT_SET: break;
  }
  return MakeError(ErrorReason::kInvalidField, "the message carries no request");
}

absl::Status ConsumeCall::TakeCredit(const v1::Credit& credit) {
  if (credit.max_in_flight() < 0) {
    return MakeFieldError("credit.max_in_flight", "must not be negative");
  }
  if (credit.max_bytes_in_flight() < 0) {
    return MakeFieldError("credit.max_bytes_in_flight", "must not be negative");
  }
  api_->sink->Submit(broker::SetCreditCommand{
      this, std::min(credit.max_in_flight(), kMaxInFlightCeiling),
      std::min<int64_t>(credit.max_bytes_in_flight(), kMaxBytesInFlightCeiling)});
  return absl::OkStatus();
}

absl::Status ConsumeCall::CheckQueue(const char* path, const std::string& name) const {
  if (name.empty() || name == queue()) return absl::OkStatus();
  return MakeFieldError(path, "must be empty or the queue of this stream");
}

absl::Status ConsumeCall::TakeNack(const v1::NackRequest& nack, int64_t request_id) {
  if (auto status = CheckQueue("nack.queue", nack.queue()); !status.ok()) return status;
  auto settle = ToNacks(nack, "nack", api_->receipts);
  if (!settle.ok()) return settle.status();
  SubmitSettle(*std::move(settle), request_id);
  return absl::OkStatus();
}

void ConsumeCall::SubmitSettle(ParsedSettle settle, int64_t request_id) {
  settle.receipts.queue = queue();
  const int32_t items = settle.receipts.count();
  settle.receipts.receipts.clear();  // they are in the items
  CountAsked(items);
  broker::SettleCommand command;
  command.queue = queue();
  command.items = std::move(settle.items);
  command.done = [call = consume_self(), asked = Asked{std::move(settle.receipts), items,
                                                       request_id}](SettleResult result) mutable {
    EventLoop& loop = call->loop();
    loop.Post([call = std::move(call), asked = std::move(asked), result = std::move(result)] {
      call->OnSettled(asked, result);
    });
  };
  api_->sink->Submit(std::move(command));
}

absl::Status ConsumeCall::TakeExtend(const v1::ExtendLeaseRequest& extend, int64_t request_id) {
  if (auto status = CheckQueue("extend.queue", extend.queue()); !status.ok()) return status;
  const auto lease_ms = LeaseMs(extend.has_lease(), extend.lease(), "extend.lease");
  if (!lease_ms.ok()) return lease_ms.status();
  auto parsed = ToReceipts(extend, "extend", api_->receipts);
  if (!parsed.ok()) return parsed.status();
  parsed->queue = queue();
  const int32_t items = parsed->count();
  CountAsked(items);
  broker::ExtendLeaseCommand command;
  command.queue = queue();
  command.receipts = std::move(parsed->receipts);
  command.lease_ms = *lease_ms;
  parsed->receipts.clear();
  Asked extended{*std::move(parsed), items, request_id};
  command.done = [call = consume_self(),
                  asked = std::move(extended)](ExtendResult result) mutable {
    EventLoop& loop = call->loop();
    loop.Post([call = std::move(call), asked = std::move(asked), result = std::move(result)] {
      call->OnExtended(asked, result);
    });
  };
  api_->sink->Submit(std::move(command));
  return absl::OkStatus();
}

void ConsumeCall::TakeDrain() {
  ++requests_;
  draining_ = true;
  api_->sink->Submit(broker::DrainSubscriptionCommand{this});
}

void ConsumeCall::CountAsked(int32_t items) {
  ++requests_;
  ++requests_out_;
  items_ += items;
}

void ConsumeCall::OnSettled(const Asked& asked, const SettleResult& result) {
  v1::ItemResults results;
  if (result.ok()) AddFailures(*this, asked.receipts, result->failures, results.mutable_failures());
  AddAnswer(asked, result.status(), std::move(results));
}

void ConsumeCall::OnExtended(const Asked& asked, const ExtendResult& result) {
  v1::ItemResults results;
  if (result.ok()) {
    AddFailures(*this, asked.receipts, result->failures, results.mutable_failures());
    if (result->lease_expires_at_ms > 0) {
      SetTimestamp(result->lease_expires_at_ms, results.mutable_lease_expires_at());
    }
  }
  AddAnswer(asked, result.status(), std::move(results));
}

void ConsumeCall::AddAnswer(const Asked& asked, const absl::Status& status,
                            v1::ItemResults results) {
  --requests_out_;
  if (status.ok()) {
    results.set_request_id(asked.request_id);
    answers_.push_back({std::move(results), asked.items});
    return Advance();
  }
  --requests_;
  items_ -= asked.items;
  EndWith(status);
}

void ConsumeCall::TakeDrained() {
  if (!draining_) return;  // it answers the half-close
  draining_ = false;
  ++drained_;
  drained_behind_ = waiting();
}

bool ConsumeCall::BuildResponse(grpc::ByteBuffer* response) {
  if (!started_told()) {
    if (!flowing() || !started_waits()) return false;
    v1::ConsumeResponse started;
    TakeStarted(started.mutable_started());
    *response = Serialize(started);
    return true;
  }
  for (int i = 0; i < kKinds; ++i) {
    const int kind = (next_kind_ + i) % kKinds;
    if (!BuildKind(static_cast<Kind>(kind), response)) continue;
    next_kind_ = (kind + 1) % kKinds;
    return true;
  }
  return false;
}

bool ConsumeCall::BuildKind(Kind kind, grpc::ByteBuffer* response) {
  switch (kind) {
    case kAnswers:
      if (answers_.empty()) return false;
      *response = BuildAnswer();
      return true;
    case kLost: {
      if (!flowing() || !has_lost()) return false;
      v1::ConsumeResponse lost;
      TakeLost(lost.mutable_lease_lost());
      *response = Serialize(lost);
      return true;
    }
    case kDeliveries:
      if (!flowing() || half_closed_ || !has_deliveries()) return false;
      *response = BuildDeliveries();
      return true;
    case kDrained: {
      // Lost leases may have thinned out what waits.
      drained_behind_ = std::min(drained_behind_, waiting());
      if (drained_ == 0 || (drained_behind_ > 0 && flowing() && !half_closed_)) return false;
      --drained_;
      --requests_;
      v1::ConsumeResponse drained;
      drained.mutable_drained();
      *response = Serialize(drained);
      return true;
    }
    case kKinds: break;
  }
  return false;
}

grpc::ByteBuffer ConsumeCall::BuildAnswer() {
  v1::ConsumeResponse response;
  Answer& answer = answers_.front();
  *response.mutable_results() = std::move(answer.results);
  --requests_;
  items_ -= answer.items;
  answers_.pop_front();
  return Serialize(response);
}

grpc::ByteBuffer ConsumeCall::BuildDeliveries() {
  const size_t before = waiting();
  grpc::ByteBuffer response =
      TakeDeliveries({}, v1::ConsumeResponse::kDeliveriesFieldNumber);
  drained_behind_ -= std::min(drained_behind_, before - waiting());
  return response;
}

bool ConsumeCall::MayFinish() const {
  // Without a subscription there is nobody to tell.
  if (!started_told()) return true;
  return requests_out_ == 0 && answers_.empty();
}

}  // namespace sluice::api
