#include "server/api/error_mapping.h"

#include <optional>
#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/api/field_checks.h"
#include "server/api/utf8.h"
#include "server/base/check.h"
#include "server/base/strings.h"
#include "server/model/error.h"

namespace sluice::api {
namespace {

constexpr char kDomain[] = "sluice";
// Four texts at most (the message twice, a field, a reason), all within kErrorDetailsBytesMax.
constexpr size_t kMessageBytesMax = 1024;
constexpr size_t kFieldBytesMax = 512;

grpc::StatusCode ToGrpcCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk: return grpc::StatusCode::OK;
    case absl::StatusCode::kCancelled: return grpc::StatusCode::CANCELLED;
    case absl::StatusCode::kUnknown: return grpc::StatusCode::UNKNOWN;
    case absl::StatusCode::kInvalidArgument: return grpc::StatusCode::INVALID_ARGUMENT;
    case absl::StatusCode::kDeadlineExceeded: return grpc::StatusCode::DEADLINE_EXCEEDED;
    case absl::StatusCode::kNotFound: return grpc::StatusCode::NOT_FOUND;
    case absl::StatusCode::kAlreadyExists: return grpc::StatusCode::ALREADY_EXISTS;
    case absl::StatusCode::kPermissionDenied: return grpc::StatusCode::PERMISSION_DENIED;
    case absl::StatusCode::kResourceExhausted: return grpc::StatusCode::RESOURCE_EXHAUSTED;
    case absl::StatusCode::kFailedPrecondition: return grpc::StatusCode::FAILED_PRECONDITION;
    case absl::StatusCode::kAborted: return grpc::StatusCode::ABORTED;
    case absl::StatusCode::kOutOfRange: return grpc::StatusCode::OUT_OF_RANGE;
    case absl::StatusCode::kUnimplemented: return grpc::StatusCode::UNIMPLEMENTED;
    case absl::StatusCode::kInternal: return grpc::StatusCode::INTERNAL;
    case absl::StatusCode::kUnavailable: return grpc::StatusCode::UNAVAILABLE;
    case absl::StatusCode::kDataLoss: return grpc::StatusCode::DATA_LOSS;
    case absl::StatusCode::kUnauthenticated: return grpc::StatusCode::UNAUTHENTICATED;
    case absl::StatusCode::kDoNotUseReservedForFutureExpansionUseDefaultInSwitchInstead_: break;
  }
  return grpc::StatusCode::UNKNOWN;
}

// A valid field whose feature this server lacks has no reason of its own: errors.proto gives it
// INVALID_FIELD.
ErrorReason WireReason(const absl::Status& status, const std::string& field) {
  const ErrorReason reason = ReasonOf(status);
  if (reason == ErrorReason::kUnspecified && !field.empty()) return ErrorReason::kInvalidField;
  return reason;
}

std::string WireMessage(const absl::Status& status) {
  return std::string(Utf8Prefix(ToStd(status.message()), kMessageBytesMax));
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const grpc::StatusCode code = ToGrpcCode(status.code());
  const std::string message = WireMessage(status);
  const std::string field = FieldOf(status);
  const ErrorReason reason = WireReason(status, field);
  const std::optional<int64_t> retry_after_ms = RetryAfterMsOf(status);

  google::rpc::Status details;
  // Also without a reason: clients tell by the domain that Sluice refused, and not a transport that
  // cannot know what became of the call.
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(ErrorReasonName(reason)));
  info.set_domain(kDomain);
  details.add_details()->PackFrom(info);
  if (!field.empty()) {
    google::rpc::BadRequest bad_request;
    auto* violation = bad_request.add_field_violations();
    violation->set_field(std::string(Utf8Prefix(field, kFieldBytesMax)));
    violation->set_description(message);
    details.add_details()->PackFrom(bad_request);
  }
  if (retry_after_ms) {
    google::rpc::RetryInfo retry;
    SetDuration(*retry_after_ms, retry.mutable_retry_delay());
    details.add_details()->PackFrom(retry);
  }
  details.set_code(code);
  details.set_message(message);
  std::string bytes = details.SerializeAsString();
  SLUICE_CHECK(bytes.size() <= kErrorDetailsBytesMax);
  return grpc::Status(code, message, std::move(bytes));
}

void ToItemStatus(const absl::Status& status, v1::ItemStatus* out) {
  out->set_code(ToGrpcCode(status.code()));
  out->set_reason(static_cast<v1::ErrorReason>(WireReason(status, FieldOf(status))));
  out->set_message(WireMessage(status));
  if (const auto retry_after_ms = RetryAfterMsOf(status)) {
    SetDuration(*retry_after_ms, out->mutable_retry_after());
  }
}

}  // namespace sluice::api
