#include "server/model/error.h"

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/base/strings.h"

namespace sluice {
namespace {

// Keys of absl::Status payloads; they never leave the process.
constexpr char kReasonKey[] = "sluice/reason";
constexpr char kFieldKey[] = "sluice/field";
constexpr char kRetryAfterKey[] = "sluice/retry_after_ms";
// About what a server with little to do needs to end and start.
constexpr int64_t kDrainingRetryMs = 1000;

}  // namespace

std::string_view ErrorReasonName(ErrorReason reason) {
  switch (reason) {
    case ErrorReason::kUnspecified: return "UNSPECIFIED";
    case ErrorReason::kInvalidField: return "INVALID_FIELD";
    case ErrorReason::kMessageTooLarge: return "MESSAGE_TOO_LARGE";
    case ErrorReason::kBatchTooLarge: return "BATCH_TOO_LARGE";
    case ErrorReason::kPageTokenInvalid: return "PAGE_TOKEN_INVALID";
    case ErrorReason::kQueueNotFound: return "QUEUE_NOT_FOUND";
    case ErrorReason::kExchangeNotFound: return "EXCHANGE_NOT_FOUND";
    case ErrorReason::kBindingNotFound: return "BINDING_NOT_FOUND";
    case ErrorReason::kMessageNotFound: return "MESSAGE_NOT_FOUND";
    case ErrorReason::kNoRoute: return "NO_ROUTE";
    case ErrorReason::kConfigConflict: return "CONFIG_CONFLICT";
    case ErrorReason::kEtagMismatch: return "ETAG_MISMATCH";
    case ErrorReason::kInUse: return "IN_USE";
    case ErrorReason::kNotEmpty: return "NOT_EMPTY";
    case ErrorReason::kExclusive: return "EXCLUSIVE";
    case ErrorReason::kReceiptInvalid: return "RECEIPT_INVALID";
    case ErrorReason::kLeaseExpired: return "LEASE_EXPIRED";
    case ErrorReason::kMessageRemoved: return "MESSAGE_REMOVED";
    case ErrorReason::kQueueDeleted: return "QUEUE_DELETED";
    case ErrorReason::kQueueFull: return "QUEUE_FULL";
    case ErrorReason::kStorageFull: return "STORAGE_FULL";
    case ErrorReason::kMemoryFull: return "MEMORY_FULL";
    case ErrorReason::kTooManyStreams: return "TOO_MANY_STREAMS";
    case ErrorReason::kRateLimited: return "RATE_LIMITED";
    case ErrorReason::kProducerFenced: return "PRODUCER_FENCED";
    case ErrorReason::kSequenceRefused: return "SEQUENCE_REFUSED";
    case ErrorReason::kCrossShard: return "CROSS_SHARD";
    case ErrorReason::kDraining: return "DRAINING";
    case ErrorReason::kStreamAged: return "STREAM_AGED";
    case ErrorReason::kStoreFailed: return "STORE_FAILED";
    case ErrorReason::kDataDamaged: return "DATA_DAMAGED";
    case ErrorReason::kCredentialsMissing: return "CREDENTIALS_MISSING";
    case ErrorReason::kCredentialsInvalid: return "CREDENTIALS_INVALID";
    case ErrorReason::kNotAllowed: return "NOT_ALLOWED";
    case ErrorReason::kConsumerNotFound: return "CONSUMER_NOT_FOUND";
    case ErrorReason::kConsumerClosed: return "CONSUMER_CLOSED";
    case ErrorReason::kRouteTooLarge: return "ROUTE_TOO_LARGE";
    case ErrorReason::kLimitReached: return "LIMIT_REACHED";
  }
  return "UNSPECIFIED";
}

absl::StatusCode CodeOf(ErrorReason reason) {
  switch (reason) {
    case ErrorReason::kUnspecified: return absl::StatusCode::kUnknown;
    case ErrorReason::kInvalidField:
    case ErrorReason::kMessageTooLarge:
    case ErrorReason::kBatchTooLarge:
    case ErrorReason::kPageTokenInvalid:
    case ErrorReason::kReceiptInvalid: return absl::StatusCode::kInvalidArgument;
    case ErrorReason::kQueueNotFound:
    case ErrorReason::kExchangeNotFound:
    case ErrorReason::kBindingNotFound:
    case ErrorReason::kMessageNotFound:
    case ErrorReason::kNoRoute:
    case ErrorReason::kConsumerNotFound:
    case ErrorReason::kQueueDeleted: return absl::StatusCode::kNotFound;
    case ErrorReason::kConfigConflict: return absl::StatusCode::kAlreadyExists;
    case ErrorReason::kInUse:
    case ErrorReason::kNotEmpty:
    case ErrorReason::kExclusive:
    case ErrorReason::kLeaseExpired:
    case ErrorReason::kMessageRemoved:
    case ErrorReason::kSequenceRefused:
    case ErrorReason::kRouteTooLarge:
    case ErrorReason::kCrossShard: return absl::StatusCode::kFailedPrecondition;
    case ErrorReason::kEtagMismatch:
    case ErrorReason::kConsumerClosed:
    case ErrorReason::kProducerFenced: return absl::StatusCode::kAborted;
    case ErrorReason::kQueueFull:
    case ErrorReason::kStorageFull:
    case ErrorReason::kMemoryFull:
    case ErrorReason::kTooManyStreams:
    case ErrorReason::kLimitReached:
    case ErrorReason::kRateLimited: return absl::StatusCode::kResourceExhausted;
    case ErrorReason::kDraining:
    case ErrorReason::kStreamAged:
    case ErrorReason::kStoreFailed: return absl::StatusCode::kUnavailable;
    case ErrorReason::kDataDamaged: return absl::StatusCode::kDataLoss;
    case ErrorReason::kCredentialsMissing:
    case ErrorReason::kCredentialsInvalid: return absl::StatusCode::kUnauthenticated;
    case ErrorReason::kNotAllowed: return absl::StatusCode::kPermissionDenied;
  }
  return absl::StatusCode::kUnknown;
}

absl::Status MakeError(ErrorReason reason, std::string_view message) {
  absl::Status status(CodeOf(reason), ToAbsl(message));
  status.SetPayload(kReasonKey, absl::Cord(absl::StrCat(static_cast<int>(reason))));
  return status;
}

absl::Status MakeFieldError(std::string_view field, std::string_view problem, ErrorReason reason) {
  absl::Status status =
      MakeError(reason, absl::StrCat(ToAbsl(field), ": ", ToAbsl(problem)));
  status.SetPayload(kFieldKey, absl::Cord(ToAbsl(field)));
  return status;
}

absl::Status MakeNotBuiltError(std::string_view field) {
  absl::Status status = absl::UnimplementedError(
      absl::StrCat(ToAbsl(field), " is not supported by this version of the server"));
  status.SetPayload(kFieldKey, absl::Cord(ToAbsl(field)));
  return status;
}

absl::Status WithRetryAfter(absl::Status status, int64_t retry_after_ms) {
  status.SetPayload(kRetryAfterKey, absl::Cord(absl::StrCat(retry_after_ms)));
  return status;
}

absl::Status MakeDrainingError() {
  return WithRetryAfter(
      MakeError(ErrorReason::kDraining, "the server is shutting down; try another, or again later"),
      kDrainingRetryMs);
}

ErrorReason ReasonOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kReasonKey);
  int value = 0;
  if (!payload || !absl::SimpleAtoi(std::string(*payload), &value)) {
    return ErrorReason::kUnspecified;
  }
  return static_cast<ErrorReason>(value);
}

std::string FieldOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kFieldKey);
  return payload ? std::string(*payload) : std::string();
}

std::optional<int64_t> RetryAfterMsOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kRetryAfterKey);
  int64_t value = 0;
  if (!payload || !absl::SimpleAtoi(std::string(*payload), &value)) return std::nullopt;
  return value;
}

}  // namespace sluice
