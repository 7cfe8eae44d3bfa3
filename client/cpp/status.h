// Errors of the client library: absl::Status that keeps everything the server said.
//
// Every google.rpc detail of a refused call becomes a payload under its type URL; the functions
// here read the ones that Sluice sends. All are pure and safe from any thread.
#ifndef SLUICE_CLIENT_CPP_STATUS_H_
#define SLUICE_CLIENT_CPP_STATUS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "sluice/v1/errors.pb.h"

namespace grpc {
class Status;
}

namespace sluice::client {

absl::Status FromGrpc(const grpc::Status& status);
absl::Status FromItem(const v1::ItemStatus& item);

// Why the server refused, for example ERROR_REASON_QUEUE_FULL. UNSPECIFIED: it did not say.
v1::ErrorReason ReasonOf(const absl::Status& status);

struct FieldViolation {
  std::string field;  // path in the request, for example `messages[3].body`
  std::string description;
};
std::vector<FieldViolation> FieldViolationsOf(const absl::Status& status);

// How long to wait before trying again, where the server said that waiting helps.
std::optional<absl::Duration> RetryAfterOf(const absl::Status& status);

// True if what failed with this status may nevertheless have happened: UNAVAILABLE (but not from a
// draining server, which refuses before it acts), DEADLINE_EXCEEDED, CANCELLED, UNKNOWN, INTERNAL.
// False for OK and for refusals.
bool MaybeHappened(const absl::Status& status);

// True if no connection was made at all, so that nothing can have happened.
bool NotConnected(const absl::Status& status);

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CPP_STATUS_H_
