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

// The status of a call. One without a reason of Sluice's is marked, see MaybeHappened.
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

// True if what failed with this status may nevertheless have happened: whatever a call ended with
// that does not carry Sluice's own reason, since a transport or a proxy that gives up on a call
// cannot know what became of it; and of Sluice's reasons UNAVAILABLE (but DRAINING and STREAM_AGED,
// which refuse before they act), DEADLINE_EXCEEDED, CANCELLED, UNKNOWN and INTERNAL. False for OK,
// for refusals and for what was never sent.
bool MaybeHappened(const absl::Status& status);

// True if no connection was made at all, so that nothing can have happened.
bool NotConnected(const absl::Status& status);

// True if the stream or call broke or its server goes away, so that another may fare better: any
// UNAVAILABLE, and without a reason of Sluice's also RESOURCE_EXHAUSTED, INTERNAL, UNKNOWN,
// CANCELLED and DEADLINE_EXCEEDED. False for OK and for what would only be refused again.
bool ReopenHelps(const absl::Status& status);

// ABORTED: the message did not leave this process, because of `cause`.
absl::Status NotSent(const absl::Status& cause);
bool IsNotSent(const absl::Status& status);

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CPP_STATUS_H_
