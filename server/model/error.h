// Errors that users act on: a reason, a sentence, and where it helps the field or a time to wait.
#ifndef SLUICE_SERVER_MODEL_ERROR_H_
#define SLUICE_SERVER_MODEL_ERROR_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace sluice {

// The values of sluice.v1.ErrorReason, same numbers.
enum class ErrorReason : uint8_t {
  kUnspecified = 0,
  kInvalidField,
  kMessageTooLarge,
  kBatchTooLarge,
  kPageTokenInvalid,
  kQueueNotFound,
  kExchangeNotFound,
  kBindingNotFound,
  kMessageNotFound,
  kNoRoute,
  kConfigConflict,
  kEtagMismatch,
  kInUse,
  kNotEmpty,
  kExclusive,
  kReceiptInvalid,
  kLeaseExpired,
  kMessageRemoved,
  kQueueDeleted,
  kQueueFull,
  kStorageFull,
  kMemoryFull,
  kTooManyStreams,
  kRateLimited,
  kProducerFenced,
  kSequenceRefused,
  kCrossShard,
  kDraining,
  kStreamAged,
  kStoreFailed,
  kDataDamaged,
  kCredentialsMissing,
  kCredentialsInvalid,
  kNotAllowed,
  kConsumerNotFound,
  kConsumerClosed,
  kRouteTooLarge,
  kLimitReached,
};

// "QUEUE_NOT_FOUND" and so on: the names of the proto enum without its prefix.
std::string_view ErrorReasonName(ErrorReason reason);

// The one map from reason to status code.
absl::StatusCode CodeOf(ErrorReason reason);

// An error with a reason; `message` says what happened and what the user can do.
absl::Status MakeError(ErrorReason reason, std::string_view message);
// The same for one field of a request, named by its path ("messages[3].body").
absl::Status MakeFieldError(std::string_view field, std::string_view problem,
                            ErrorReason reason = ErrorReason::kInvalidField);
// UNIMPLEMENTED, naming the field or call.
absl::Status MakeNotBuiltError(std::string_view field);

absl::Status WithRetryAfter(absl::Status status, int64_t retry_after_ms);
// The call did not happen because the server is going; the one that takes its place may serve it.
absl::Status MakeDrainingError();

// What MakeError and its relatives put in. kUnspecified, empty, nothing: none.
ErrorReason ReasonOf(const absl::Status& status);
std::string FieldOf(const absl::Status& status);
std::optional<int64_t> RetryAfterMsOf(const absl::Status& status);

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_ERROR_H_
