#include "server/api/call.h"

#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/api/error_mapping.h"
#include "server/api/wire_format.h"
#include "server/model/error.h"

namespace sluice::api {
namespace {

constexpr double kNsPerSecond = 1e9;
// The answer leaves this long before the client's deadline, so that it arrives in time.
constexpr int64_t kDeadlineMarginMs = 50;
// A grpc-timeout travels with three digits, rounded up: of 10 s the server may see 10.1 s.
constexpr int64_t kTimeoutDigits = 1000;
// A refused stream may be tried again after this long.
constexpr int64_t kStreamsRetryMs = 1 * kSecondMs;
// The same for a request that was too slow.
constexpr int64_t kSlowRetryMs = 1 * kSecondMs;

// `path` of `message` in the request: empty, or it ends in a dot.
absl::Status RefuseUnknownFieldsIn(const google::protobuf::Message& message,
                                   const std::string& path) {
  const auto& reflection = *message.GetReflection();
  const auto& unknown = reflection.GetUnknownFields(message);
  if (!unknown.empty()) {
    const std::string where = path.empty() ? "the request" : path.substr(0, path.size() - 1);
    return MakeNotBuiltError(absl::StrCat("field ", unknown.field(0).number(), " of ", where));
  }
  const auto& descriptor = *message.GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const auto* field = descriptor.field(i);
    // The maps of this API hold nothing but scalars.
    if (field->cpp_type() != field->CPPTYPE_MESSAGE || field->is_map()) continue;
    if (!field->is_repeated()) {
      if (!reflection.HasField(message, field)) continue;
      auto status = RefuseUnknownFieldsIn(reflection.GetMessage(message, field),
                                          absl::StrCat(path, field->name(), "."));
      if (!status.ok()) return status;
      continue;
    }
    for (int j = 0; j < reflection.FieldSize(message, field); ++j) {
      auto status = RefuseUnknownFieldsIn(reflection.GetRepeatedMessage(message, field, j),
                                          absl::StrCat(path, field->name(), "[", j, "]."));
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace

Call::~Call() { End(static_cast<int>(grpc::StatusCode::UNAVAILABLE)); }

int64_t Call::RemainingMs() const {
  const auto deadline = context_.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) {
    return std::numeric_limits<int64_t>::max();
  }
  return std::chrono::duration_cast<std::chrono::milliseconds>(deadline.time_since_epoch())
             .count() -
         api_->clock->WallMs();
}

int64_t Call::WaitMsMax() const {
  const int64_t remaining_ms = RemainingMs();
  int64_t rounding_ms = 1;
  while (remaining_ms / rounding_ms >= kTimeoutDigits) rounding_ms *= 10;
  return std::max<int64_t>(0, remaining_ms - rounding_ms - kDeadlineMarginMs);
}

void Call::Begin() {
  begun_ = true;
  holds_up_shutdown_ = true;
  loop_->CallStarted();
  if (!api_->observer) return;
  begin_ns_ = api_->clock->MonotonicNs();
  api_->observer->OnStarted(method());
}

void Call::End(int code) {
  if (!begun_ || ended_) return;
  ended_ = true;
  LetShutdownPass();
  if (!api_->observer) return;
  const double seconds =
      static_cast<double>(api_->clock->MonotonicNs() - begin_ns_) / kNsPerSecond;
  api_->observer->OnHandled(method(), code, seconds);
}

void Call::LetShutdownPass() {
  if (std::exchange(holds_up_shutdown_, false)) loop_->CallEnded();
}

void Call::CountReceived() {
  if (api_->observer) api_->observer->OnMessageReceived(method());
}

void Call::CountSent() {
  if (api_->observer) api_->observer->OnMessageSent(method());
}

absl::Status Call::CheckAdmission(bool taken_while_draining) const {
  if (!taken_while_draining && api_->draining.load(std::memory_order_relaxed)) {
    return MakeDrainingError();
  }
  if (RemainingMs() <= 0) {
    return absl::DeadlineExceededError("the deadline had passed when the call was taken up");
  }
  return absl::OkStatus();
}

StreamSlot::~StreamSlot() {
  if (open_) open_->fetch_sub(1, std::memory_order_relaxed);
}

absl::Status StreamSlot::Take(ApiContext* api) {
  return TakeOneOf(&api->streams, api->options.streams_max, " streams");
}

absl::Status StreamSlot::TakeReceive(ApiContext* api) {
  return TakeOneOf(&api->receives, api->options.receives_max, " waiting Receive calls");
}

absl::Status StreamSlot::TakeWatch(ApiContext* api) {
  return TakeOneOf(&api->health_watches, api->options.health_watches_max, " health watches");
}

absl::Status StreamSlot::TakeOneOf(std::atomic<int>* open, int open_max, const char* what) {
  if (open->fetch_add(1, std::memory_order_relaxed) >= open_max) {
    open->fetch_sub(1, std::memory_order_relaxed);
    return WithRetryAfter(
        MakeError(ErrorReason::kTooManyStreams,
                  absl::StrCat("the server has its ", open_max, what,
                               "; close some or use another server")),
        kStreamsRetryMs);
  }
  open_ = open;
  return absl::OkStatus();
}

void UnaryCall::Arm(const Binding& binding, EventLoop* loop) {
  auto call = std::make_shared<UnaryCall>(binding, loop);
  if (binding.watched) {
    call->context_.AsyncNotifyWhenDone(call->done_tag_.Arm<&UnaryCall::OnDone>(call));
  }
  void* const tag = call->call_tag_.Arm<&UnaryCall::OnRequested>(call);
  binding.service->RequestBidiStream(binding.method->index, &call->context_, &call->stream_,
                                     loop->queue(), tag);
}

UnaryCall::UnaryCall(const Binding& binding, EventLoop* loop)
    : Call(binding, loop), unary_(&binding), stream_(&context_) {}

std::shared_ptr<UnaryCall> UnaryCall::self() {
  return std::static_pointer_cast<UnaryCall>(shared_from_this());
}

void UnaryCall::OnRequested(bool ok) {
  if (!ok) {
    done_tag_.Release();  // no call, so no end of it either
    return;
  }
  Arm(*unary_, loop_);
  Begin();
  counts_as_short_ = unary_->is_short;
  if (counts_as_short_) loop_->ShortCallCame();
  unary_->line->Join(self());
}

bool UnaryCall::StartReceiving() {
  absl::Status status = CheckAdmission(unary_->taken_while_draining);
  if (status.ok() && unary_->admit) status = unary_->admit(*api_);
  if (!status.ok()) {
    Fail(status);
    return false;
  }
  stream_.Read(&request_, call_tag_.Arm<&UnaryCall::OnReceived>(self()));
  return true;
}

void UnaryCall::RefuseSlow(int64_t patience_ms) {
  Fail(WithRetryAfter(
      MakeError(ErrorReason::kMemoryFull,
                absl::StrCat("the request had not arrived ",
                             absl::FormatDuration(absl::Milliseconds(patience_ms)),
                             " after its call while others waited for its place; send it again, if "
                             "it is large in smaller parts")),
      kSlowRetryMs));
}

void UnaryCall::OnReceived(bool ok) {
  if (answered_) {
    request_.Clear();  // refused meanwhile
  } else if (ok) {
    CountReceived();
    unary_->handler(self());
    request_.Clear();  // parsed; the answer may take long
  } else {
    // The client has gone, or gRPC has refused what it sent; then this status goes nowhere.
    Fail(MakeError(ErrorReason::kInvalidField, "the call carries no request"));
  }
  unary_->line->Leave(this);
}

bool UnaryCall::Parse(google::protobuf::Message* request) {
  const absl::Status status = ParseMessage(request_, request);
  if (!status.ok()) Fail(status);
  return status.ok();
}

void UnaryCall::SetLong() {
  if (std::exchange(counts_as_short_, false)) loop_->ShortCallWent();
}

// The answer follows.
void UnaryCall::SetAnswered() {
  answered_ = true;
  SetLong();
  loop_->HoldAnswer(context_);
}

void UnaryCall::Reply(const google::protobuf::MessageLite& response) {
  Reply(Serialize(response));
}

void UnaryCall::Reply(const grpc::ByteBuffer& response) {
  if (answered_) return;
  SetAnswered();
  CountSent();
  stream_.WriteAndFinish(response, grpc::WriteOptions(), grpc::Status::OK,
                         answer_tag_.Arm<&UnaryCall::OnFinished>(self()));
}

void UnaryCall::Fail(const absl::Status& status) {
  if (answered_) return;
  SetAnswered();
  code_ = static_cast<int>(status.code());
  stream_.Finish(ToGrpcStatus(status), answer_tag_.Arm<&UnaryCall::OnFinished>(self()));
}

void UnaryCall::OnFinished(bool ok) {
  finished_ = true;
  finished_ok_ = ok;
  End(ok ? code_ : static_cast<int>(grpc::StatusCode::CANCELLED));
  ReportWritten();
}

void UnaryCall::OnCancelled(absl::AnyInvocable<void()> handler) {
  if (done_ && context_.IsCancelled()) return handler();
  on_cancelled_ = std::move(handler);
}

void UnaryCall::OnDone(bool) {
  done_ = true;
  if (context_.IsCancelled() && !answered_ && on_cancelled_) std::exchange(on_cancelled_, {})();
  ReportWritten();
}

void UnaryCall::ReportWritten() {
  // gRPC may call a write good that the client never saw; the end of the call knows better.
  if (!finished_ || !done_ || !on_written_) return;
  std::exchange(on_written_, {})(finished_ok_ && !context_.IsCancelled());
}

absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message* message) {
  grpc::ByteBuffer buffer = bytes;
  grpc::ProtoBufferReader reader(&buffer);
  if (!reader.status().ok() || !message->ParseFromZeroCopyStream(&reader)) {
    return MalformedRequest();
  }
  return RefuseUnknownFields(*message);
}

absl::Status RefuseUnknownFields(const google::protobuf::Message& message) {
  return RefuseUnknownFieldsIn(message, "");
}

grpc::ByteBuffer Serialize(const google::protobuf::MessageLite& message) {
  const size_t bytes = message.ByteSizeLong();
  grpc_slice raw = grpc_slice_malloc(bytes);
  message.SerializeWithCachedSizesToArray(GRPC_SLICE_START_PTR(raw));
  const grpc::Slice slice(raw, grpc::Slice::STEAL_REF);
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace sluice::api
