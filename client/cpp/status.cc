#include "client/cpp/status.h"

#include <grpcpp/support/status.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace sluice::client {
namespace {

constexpr char kDomain[] = "sluice";
constexpr char kReasonPrefix[] = "ERROR_REASON_";

// Payloads of ours; never on the wire.
constexpr char kUnexplained[] = "sluice.client/unexplained";  // a call that Sluice did not end
constexpr char kNotSent[] = "sluice.client/not_sent";

template <typename Detail>
std::string TypeUrl() {
  return absl::StrCat("type.googleapis.com/", Detail::descriptor()->full_name());
}

template <typename Detail>
void SetDetail(const Detail& detail, absl::Status* status) {
  status->SetPayload(TypeUrl<Detail>(), absl::Cord(detail.SerializeAsString()));
}

template <typename Detail>
std::optional<Detail> GetDetail(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(TypeUrl<Detail>());
  Detail detail;
  if (!payload || !detail.ParseFromString(std::string(*payload))) return std::nullopt;
  return detail;
}

bool IsExplained(const absl::Status& status) {
  const auto info = GetDetail<google::rpc::ErrorInfo>(status);
  return info && info->domain() == kDomain;
}

}  // namespace

absl::Status FromGrpc(const grpc::Status& status) {
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status details;
  if (!status.ok() && details.ParseFromString(status.error_details())) {
    for (const auto& any : details.details()) {
      result.SetPayload(any.type_url(), absl::Cord(any.value()));
    }
  }
  if (!IsExplained(result)) result.SetPayload(kUnexplained, absl::Cord());
  return result;
}

absl::Status FromItem(const v1::ItemStatus& item) {
  absl::Status result(static_cast<absl::StatusCode>(item.code()), item.message());
  if (result.ok()) return result;
  google::rpc::ErrorInfo info;
  info.set_domain(kDomain);
  const std::string name = v1::ErrorReason_Name(item.reason());
  info.set_reason(name.substr(std::min(name.size(), sizeof(kReasonPrefix) - 1)));
  SetDetail(info, &result);
  if (item.has_retry_after()) {
    google::rpc::RetryInfo retry;
    *retry.mutable_retry_delay() = item.retry_after();
    SetDetail(retry, &result);
  }
  return result;
}

v1::ErrorReason ReasonOf(const absl::Status& status) {
  const auto info = GetDetail<google::rpc::ErrorInfo>(status);
  v1::ErrorReason reason = v1::ERROR_REASON_UNSPECIFIED;
  if (info && info->domain() == kDomain) {
    v1::ErrorReason_Parse(absl::StrCat(kReasonPrefix, info->reason()), &reason);
  }
  return reason;
}

std::vector<FieldViolation> FieldViolationsOf(const absl::Status& status) {
  std::vector<FieldViolation> violations;
  if (const auto bad = GetDetail<google::rpc::BadRequest>(status)) {
    for (const auto& violation : bad->field_violations()) {
      violations.push_back({violation.field(), violation.description()});
    }
  }
  return violations;
}

std::optional<absl::Duration> RetryAfterOf(const absl::Status& status) {
  const auto retry = GetDetail<google::rpc::RetryInfo>(status);
  if (!retry) return std::nullopt;
  return absl::Seconds(retry->retry_delay().seconds()) +
         absl::Nanoseconds(retry->retry_delay().nanos());
}

bool MaybeHappened(const absl::Status& status) {
  if (status.ok() || IsNotSent(status) || NotConnected(status)) return false;
  if (status.GetPayload(kUnexplained)) return true;
  switch (status.code()) {
    case absl::StatusCode::kUnavailable: {
      const v1::ErrorReason reason = ReasonOf(status);
      return reason != v1::ERROR_REASON_DRAINING && reason != v1::ERROR_REASON_STREAM_AGED;
    }
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kInternal:
      return true;
    default:
      return false;
  }
}

bool NotConnected(const absl::Status& status) {
  // gRPC has no code of its own for this: its texts are all there is.
  if (!absl::IsUnavailable(status) || IsExplained(status)) return false;
  const std::string text = absl::AsciiStrToLower(status.message());
  return absl::StrContains(text, "failed to connect") ||
         absl::StrContains(text, "connection refused") ||
         absl::StrContains(text, "dns resolution failed");
}

bool ReopenHelps(const absl::Status& status) {
  if (absl::IsUnavailable(status)) return true;
  if (!status.GetPayload(kUnexplained)) return false;
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:  // also how gRPC sheds streams when out of memory
    case absl::StatusCode::kInternal:           // RST_STREAM without a reason
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
      return true;
    default:
      return false;
  }
}

absl::Status NotSent(const absl::Status& cause) {
  absl::Status status = absl::AbortedError(absl::StrCat("not sent: ", cause.message()));
  status.SetPayload(kNotSent, absl::Cord());
  return status;
}

bool IsNotSent(const absl::Status& status) { return status.GetPayload(kNotSent).has_value(); }

}  // namespace sluice::client
