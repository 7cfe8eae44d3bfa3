#include "server/api/subscribe.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/delivery_assembly.h"
#include "server/api/error_mapping.h"
#include "server/api/field_checks.h"
#include "sluice/v1/delivery.pb.h"

namespace sluice::api {
namespace {

// Receipts of one LeaseLost: about 500 KiB, so that deliveries still fit beside it.
constexpr size_t kLostReceiptsMax = 10'000;
// Idle timeouts and the like beyond a year are mistakes.
constexpr int64_t kIdleTimeoutMsMax = 366 * kDayMs;

absl::Status RefuseNotBuilt(const v1::SubscribeRequest& request) {
  if (request.exclusive()) return MakeNotBuiltError("exclusive");
  if (request.consumer_priority() != 0) return MakeNotBuiltError("consumer_priority");
  if (request.has_delivery_rate()) return MakeNotBuiltError("delivery_rate");
  if (request.has_temporary_queue()) return MakeNotBuiltError("temporary_queue");
  return absl::OkStatus();
}

absl::StatusOr<broker::SubscribeCommand> ToCommand(const v1::SubscribeRequest& request) {
  if (auto status = RefuseNotBuilt(request); !status.ok()) return status;
  if (auto status = CheckName("queue", request.queue()); !status.ok()) return status;
  if (auto status = CheckShortString("consumer", request.consumer()); !status.ok()) return status;
  const auto in_flight = CountOr("max_in_flight", request.max_in_flight(), kMaxInFlightDefault,
                                 kMaxInFlightCeiling);
  if (!in_flight.ok()) return in_flight.status();
  const auto bytes = CountOr("max_bytes_in_flight", request.max_bytes_in_flight(),
                             kMaxBytesInFlightDefault, kMaxBytesInFlightCeiling);
  if (!bytes.ok()) return bytes.status();
  const auto lease_ms = LeaseMs(request.has_lease(), request.lease());
  if (!lease_ms.ok()) return lease_ms.status();
  const auto idle_ms = ToMs("idle_timeout", request.idle_timeout(), 0, kIdleTimeoutMsMax);
  if (!idle_ms.ok()) return idle_ms.status();
  if (request.max_messages() < 0) return MakeFieldError("max_messages", "must not be negative");
  broker::SubscribeCommand command;
  command.queue = request.queue();
  command.consumer = request.consumer();
  command.max_in_flight = static_cast<int32_t>(*in_flight);
  command.max_bytes_in_flight = *bytes;
  command.lease_ms = *lease_ms;
  command.auto_ack = request.auto_ack();
  command.max_messages = request.max_messages();
  command.idle_timeout_ms = *idle_ms;
  command.keep_leases_on_close = request.keep_leases_on_close();
  return command;
}

}  // namespace

void SubscribeCall::Arm(const MethodBinding& binding, EventLoop* loop) {
  auto call = std::make_shared<SubscribeCall>(binding, loop);
  call->context_.AsyncNotifyWhenDone(call->done_tag_.Arm<&SubscribeCall::OnDone>(call));
  void* const tag = call->call_tag_.Arm<&SubscribeCall::OnRequested>(call);
  binding.service->RequestServerStream(binding.method->index, &call->context_, &call->request_,
                                       &call->writer_, loop->queue(), tag);
}

SubscribeCall::SubscribeCall(const MethodBinding& binding, EventLoop* loop)
    : Call(binding, loop), armed_(binding), writer_(&context_) {}

std::shared_ptr<SubscribeCall> SubscribeCall::self() {
  return std::static_pointer_cast<SubscribeCall>(shared_from_this());
}

void SubscribeCall::OnRequested(bool ok) {
  if (!ok) {
    done_tag_.Release();
    return;
  }
  Arm(armed_, loop_);
  Begin();
  CountReceived();
  if (auto status = Open(); !status.ok()) EndWith(std::move(status));
}

absl::Status SubscribeCall::Open() {
  if (auto status = CheckAdmission(false); !status.ok()) return status;
  v1::SubscribeRequest request;
  if (auto status = ParseMessage(request_, &request); !status.ok()) return status;
  request_.Clear();
  auto command = ToCommand(request);
  if (!command.ok()) return command.status();
  if (auto status = slot_.Take(api_); !status.ok()) return status;
  queue_ = command->queue;
  auto_ack_ = command->auto_ack;
  command->peer = context_.peer();
  command->sink = self();
  subscribed_ = true;
  // The age is not counted against the client: it ends the stream long before the transport would.
  age_.Start<&SubscribeCall::OnAged>(StreamAgeMsMax(api_->options), self());
  busy_ = true;
  writer_.SendInitialMetadata(call_tag_.Arm<&SubscribeCall::OnHeadersSent>(self()));
  api_->sink->Submit(*std::move(command));
  return absl::OkStatus();
}

void SubscribeCall::OnStarted(const Started& started) {
  loop_->Post([call = self(), started] {
    call->started_ = started;
    call->Advance();
  });
}

void SubscribeCall::OnDeliveries(std::vector<broker::OutgoingDelivery> deliveries) {
  loop_->Post([call = self(), deliveries = std::move(deliveries)]() mutable {
    for (auto& delivery : deliveries) call->waiting_.push_back(std::move(delivery));
    if (call->closed_) {
      // Granted before the shard heard of the end.
      call->closed_ = false;
      call->Close();
    } else {
      call->Advance();
    }
  });
}

void SubscribeCall::OnLeaseLost(std::vector<Receipt> receipts, ErrorReason reason) {
  loop_->Post([call = self(), receipts = std::move(receipts), reason]() mutable {
    if (call->closed_) return;
    call->DropLost(&receipts);
    if (!receipts.empty()) call->lost_.push_back({std::move(receipts), reason});
    call->Advance();
  });
}

void SubscribeCall::OnEnd(absl::Status status) {
  loop_->Post([call = self(), status = std::move(status)]() mutable {
    call->EndWith(std::move(status));
  });
}

void SubscribeCall::DropLost(std::vector<Receipt>* receipts) {
  // The shard counts written deliveries of auto_ack in order: none may be missing.
  if (auto_ack_ || waiting_.empty()) return;
  const auto key = [](const Receipt& receipt) {
    return std::make_tuple(receipt.position.lane, receipt.position.seq, receipt.delivery_count);
  };
  std::sort(receipts->begin(), receipts->end(),
            [&](const Receipt& a, const Receipt& b) { return key(a) < key(b); });
  std::vector<bool> dropped(receipts->size(), false);
  uint64_t dropped_bytes = 0;
  const auto is_lost = [&](const broker::OutgoingDelivery& delivery) {
    const auto it = std::lower_bound(
        receipts->begin(), receipts->end(), delivery.receipt,
        [&](const Receipt& a, const Receipt& b) { return key(a) < key(b); });
    if (it == receipts->end() || !(*it == delivery.receipt)) return false;
    dropped[it - receipts->begin()] = true;
    dropped_bytes += delivery.payload.size();
    return true;
  };
  waiting_.erase(std::remove_if(waiting_.begin(), waiting_.end(), is_lost), waiting_.end());
  ReportWritten(0, dropped_bytes);
  size_t kept = 0;
  for (size_t i = 0; i < receipts->size(); ++i) {
    if (!dropped[i]) (*receipts)[kept++] = (*receipts)[i];
  }
  receipts->resize(kept);
}

void SubscribeCall::OnHeadersSent(bool ok) {
  busy_ = false;
  if (!ok) gone_ = true;
  Advance();
}

void SubscribeCall::EndWith(absl::Status status) {
  if (!end_) end_ = std::move(status);
  Advance();
}

void SubscribeCall::Advance() {
  if (busy_ || finishing_) return;
  if (gone_) {
    Close();
    return;
  }
  const bool flush = !end_ || end_->ok();
  const bool can_write = started_ || open_for_deliveries_;
  if (flush && can_write && (started_ || !waiting_.empty() || !lost_.empty())) {
    Write();
    return;
  }
  if (!end_) return;
  finishing_ = true;
  busy_ = true;
  Close();
  writer_.Finish(ToGrpcStatus(*end_), call_tag_.Arm<&SubscribeCall::OnFinished>(self()));
}

std::string SubscribeCall::TakeFields() {
  v1::SubscribeResponse fields;
  if (started_) {
    auto* started = fields.mutable_started();
    started->set_consumer_id(absl::StrCat(started_->id));
    started->set_queue(started_->queue);
    SetDuration(started_->lease_ms, started->mutable_lease());
    started->set_max_in_flight(started_->max_in_flight);
    started->set_max_bytes_in_flight(started_->max_bytes_in_flight);
    started_.reset();
    open_for_deliveries_ = true;
  }
  if (!lost_.empty()) {
    Lost& lost = lost_.front();
    auto* lease_lost = fields.mutable_lease_lost();
    lease_lost->set_reason(static_cast<v1::ErrorReason>(lost.reason));
    const size_t count = std::min(lost.receipts.size(), kLostReceiptsMax);
    for (size_t i = 0; i < count; ++i) {
      char text[kReceiptBytes];
      api_->receipts.Encode(lost.receipts[lost.receipts.size() - 1 - i], text);
      lease_lost->add_receipts(text, kReceiptBytes);
    }
    lost.receipts.resize(lost.receipts.size() - count);
    if (lost.receipts.empty()) lost_.pop_front();
  }
  return fields.SerializeAsString();
}

void SubscribeCall::Write() {
  DeliveryAssembly assembly(queue_, auto_ack_, &api_->receipts);
  assembly.AddFields(TakeFields());
  size_t taken = 0;
  while (taken < waiting_.size() && assembly.Add(waiting_[taken])) ++taken;
  grpc::ByteBuffer response = assembly.Finish();
  for (; taken > 0; --taken) {
    writing_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  busy_ = true;
  CountSent();
  writer_.Write(response, call_tag_.Arm<&SubscribeCall::OnWritten>(self()));
}

void SubscribeCall::OnWritten(bool ok) {
  busy_ = false;
  if (!ok) {
    gone_ = true;
  } else {
    uint64_t bytes = 0;
    for (const auto& delivery : writing_) bytes += delivery.payload.size();
    ReportWritten(static_cast<uint32_t>(writing_.size()), bytes);
    writing_.clear();
  }
  Advance();
}

void SubscribeCall::ReportWritten(uint32_t deliveries, uint64_t bytes) {
  unreported_bytes_ += bytes;
  const bool settles = auto_ack_ && deliveries > 0;
  if (!settles && unreported_bytes_ < kUnwrittenReportBytes) return;
  api_->sink->Submit(broker::WrittenCommand{this, settles ? deliveries : 0,
                                            std::exchange(unreported_bytes_, 0)});
}

void SubscribeCall::OnFinished(bool ok) {
  busy_ = false;
  End(ok ? static_cast<int>(end_->code()) : static_cast<int>(grpc::StatusCode::CANCELLED));
}

void SubscribeCall::OnDone(bool) {
  if (!finishing_) {
    // The client cancelled, its deadline passed, or the transport broke.
    gone_ = true;
    Close();
    End(static_cast<int>(grpc::StatusCode::CANCELLED));
  }
  age_.Cancel();
}

void SubscribeCall::OnAged(bool fired) {
  if (fired) EndWith(StreamAge::Status());
}

void SubscribeCall::Close() {
  age_.Cancel();
  if (!subscribed_ || closed_) return;
  // While a write is out its fate is not known: wait, so that `unwritten` is complete.
  if (!writing_.empty() && busy_) return;
  closed_ = true;
  broker::CloseSubscriptionCommand command;
  command.sink = self();
  for (const auto* deliveries : {&writing_, &waiting_}) {
    for (const auto& delivery : *deliveries) command.unwritten.push_back(delivery.receipt);
  }
  writing_.clear();
  waiting_.clear();
  lost_.clear();
  api_->sink->Submit(std::move(command));
}

}  // namespace sluice::api
