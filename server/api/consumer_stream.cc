#include "server/api/consumer_stream.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/error_mapping.h"
#include "server/api/field_checks.h"
#include "server/api/subscribe_request.h"

namespace sluice::api {
namespace {

// Receipts of one LeaseLost: about 500 KiB, so that deliveries still fit beside it.
constexpr size_t kLostReceiptsMax = 10'000;

}  // namespace

std::shared_ptr<ConsumerStream> ConsumerStream::self() {
  return std::static_pointer_cast<ConsumerStream>(shared_from_this());
}

absl::Status ConsumerStream::Admit() {
  if (auto status = CheckAdmission(false); !status.ok()) return status;
  return slot_.Take(api_);
}

void ConsumerStream::Open() {
  // The age is not counted against the client: it ends the stream long before the transport would.
  age_.Start<&ConsumerStream::OnAged>(StreamAgeMsMax(api_->options), self());
  busy_ = true;
  StartHeaders(call_tag_.Arm<&ConsumerStream::OnHeadersSent>(self()));
}

absl::Status ConsumerStream::Subscribe(const v1::SubscribeRequest& request,
                                       std::string_view path) {
  auto command = ToSubscribeCommand(request, path);
  if (!command.ok()) return command.status();
  queue_ = QueueOf(*command);
  auto_ack_ = command->auto_ack;
  command->peer = context_.peer();
  command->sink = self();
  subscribed_ = true;
  api_->sink->Submit(*std::move(command));
  return absl::OkStatus();
}

// All of one kind, so that they keep their order.
void ConsumerStream::Post(EventLoop::Task task) {
  loop_->Post(std::move(task), EventLoop::Kind::kDelivery);
}

void ConsumerStream::OnStarted(const Started& started) {
  Post([call = self(), started] {
    call->started_ = started;
    call->Advance();
  });
}

void ConsumerStream::OnDeliveries(std::vector<broker::OutgoingDelivery> deliveries) {
  Post([call = self(), deliveries = std::move(deliveries)]() mutable {
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

void ConsumerStream::OnLeaseLost(std::vector<Receipt> receipts, ErrorReason reason) {
  Post([call = self(), receipts = std::move(receipts), reason]() mutable {
    if (call->closed_) return;
    call->DropLost(&receipts);
    if (!receipts.empty()) call->lost_.push_back({std::move(receipts), reason});
    call->Advance();
  });
}

void ConsumerStream::OnDrained() {
  Post([call = self()] {
    call->TakeDrained();
    call->Advance();
  });
}

void ConsumerStream::OnEnd(absl::Status status) {
  Post([call = self(), status = std::move(status)]() mutable {
    call->shard_ended_ = true;
    call->EndWith(std::move(status));
  });
}

void ConsumerStream::DropLost(std::vector<Receipt>* receipts) {
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

void ConsumerStream::EndWith(absl::Status status) {
  if (!end_) end_ = std::move(status);
  Advance();
}

void ConsumerStream::Leave() {
  if (end_) return;
  end_ = absl::OkStatus();
  leaving_ = true;
}

void ConsumerStream::Advance() {
  if (busy_ || finishing_) return;
  if (gone_) {
    Close();
    return;
  }
  grpc::ByteBuffer response;
  if (BuildResponse(&response)) {
    busy_ = true;
    CountSent();
    StartWrite(response, call_tag_.Arm<&ConsumerStream::OnWritten>(self()));
    return;
  }
  if (!end_ || !MayFinish()) return;
  finishing_ = true;
  busy_ = true;
  if (leaving_) {
    age_.Cancel();
  } else {
    Close();
  }
  StartFinish(ToGrpcStatus(*end_), call_tag_.Arm<&ConsumerStream::OnFinished>(self()));
}

void ConsumerStream::TakeStarted(v1::SubscriptionStarted* out) {
  out->set_consumer_id(absl::StrCat(started_->id));
  out->set_queue(started_->queue);
  SetDuration(started_->lease_ms, out->mutable_lease());
  out->set_max_in_flight(started_->max_in_flight);
  out->set_max_bytes_in_flight(started_->max_bytes_in_flight);
  started_.reset();
  started_told_ = true;
}

void ConsumerStream::TakeLost(v1::LeaseLost* out) {
  Lost& lost = lost_.front();
  out->set_reason(static_cast<v1::ErrorReason>(lost.reason));
  const size_t count = std::min(lost.receipts.size(), kLostReceiptsMax);
  for (size_t i = 0; i < count; ++i) {
    char text[kReceiptBytes];
    api_->receipts.Encode(lost.receipts[lost.receipts.size() - 1 - i], text);
    out->add_receipts(text, kReceiptBytes);
  }
  lost.receipts.resize(lost.receipts.size() - count);
  if (lost.receipts.empty()) lost_.pop_front();
}

grpc::ByteBuffer ConsumerStream::TakeDeliveries(std::string_view fields, int wrap_in) {
  DeliveryAssembly assembly(queue_, auto_ack_, &api_->receipts);
  assembly.WrapIn(wrap_in);
  assembly.AddFields(fields);
  size_t taken = 0;
  while (taken < waiting_.size() && assembly.Add(waiting_[taken])) ++taken;
  grpc::ByteBuffer response = assembly.Finish();
  for (; taken > 0; --taken) {
    writing_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  return response;
}

void ConsumerStream::OnHeadersSent(bool ok) {
  busy_ = false;
  if (!ok) gone_ = true;
  Advance();
}

void ConsumerStream::OnWritten(bool ok) {
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

void ConsumerStream::ReportWritten(uint32_t deliveries, uint64_t bytes) {
  unreported_bytes_ += bytes;
  const bool settles = auto_ack_ && deliveries > 0;
  if (!settles && unreported_bytes_ < kUnwrittenReportBytes) return;
  api_->sink->Submit(broker::WrittenCommand{this, settles ? deliveries : 0,
                                            std::exchange(unreported_bytes_, 0)});
}

void ConsumerStream::OnFinished(bool ok) {
  busy_ = false;
  finished_ = true;
  End(ok ? static_cast<int>(end_->code()) : static_cast<int>(grpc::StatusCode::CANCELLED));
  CloseIfLeft();
}

void ConsumerStream::OnDone(bool) {
  done_ = true;
  if (!finishing_) {
    // The client cancelled, its deadline passed, or the transport broke.
    gone_ = true;
    leaving_ = false;
    Close();
    End(static_cast<int>(grpc::StatusCode::CANCELLED));
  }
  age_.Cancel();
  CloseIfLeft();
}

void ConsumerStream::OnAged(bool fired) {
  if (!fired) return;
  // No failure of the consumer: it settles what it holds on its next stream.
  keep_leases_ = true;
  EndWith(StreamAge::Status());
}

void ConsumerStream::CloseIfLeft() {
  if (!leaving_ || !finished_ || !done_) return;
  keep_leases_ = !context_.IsCancelled();
  Close();
}

void ConsumerStream::Close() {
  age_.Cancel();
  if (!subscribed_ || closed_) return;
  // While a write is out its fate is not known: wait, so that `unwritten` is complete.
  if (!writing_.empty() && busy_) return;
  closed_ = true;
  broker::CloseSubscriptionCommand command;
  command.sink = self();
  command.keep_leases = keep_leases_;
  for (const auto* deliveries : {&writing_, &waiting_}) {
    for (const auto& delivery : *deliveries) command.unwritten.push_back(delivery.receipt);
  }
  writing_.clear();
  waiting_.clear();
  lost_.clear();
  api_->sink->Submit(std::move(command));
}

}  // namespace sluice::api
