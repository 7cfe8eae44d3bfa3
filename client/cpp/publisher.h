// Publishes at full speed over one PublishStream.
#ifndef SLUICE_CLIENT_CPP_PUBLISHER_H_
#define SLUICE_CLIENT_CPP_PUBLISHER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "sluice/v1/message.pb.h"

namespace sluice::client {

class Client;

// What to do when the stream breaks and nobody refused anything (ReopenHelps in status.h). Whatever
// is chosen, a stream that the server ends for its age is followed by another, without a word: what
// such an end leaves unanswered was not stored and is sent again.
enum class AfterBreak {
  // Report what was in flight as maybe stored, and end the publisher. The default.
  kStop,
  // Report what may be stored as such; go on with the rest on a new stream. No duplicates.
  kReopen,
  // Send what was in flight again on a new stream. May store messages twice, as the first sending
  // may have arrived.
  kResend,
};

// INVALID_ARGUMENT / MESSAGE_TOO_LARGE if no request can carry the message (16 MiB: a rule of the
// API). The server may allow less, and tells so.
absl::Status CheckMessageSize(const v1::Message& message);

struct PublisherOptions {
  // Where to: exactly one of the two.
  std::string queue = {};
  std::string exchange = {};
  // The window: Publish waits while this many messages, or this many bytes of them, have no
  // outcome. The server may lower it. More is faster up to about 10,000, and more to lose track of.
  int max_in_flight = 1000;
  size_t max_bytes_in_flight = 16 << 20;
  // Upper bounds of one stream message. Batches form from what is waiting whenever the stream can
  // write; nothing waits for a batch to fill. At most 1,000 (a rule of the API).
  int max_batch_messages = 1000;
  size_t max_batch_bytes = 1 << 20;
  // Makes publishing idempotent: the n-th message of this publisher has sequence n, and the server
  // stores no sequence of one (target, producer_id) twice. So kResend makes no duplicates (kReopen
  // is taken as kResend), and a new publisher that is given the same messages again from the first
  // on gets those that are stored already answered as confirmed. The first refusal ends the
  // publisher, and so does the end of its target. Empty: none of this.
  std::string producer_id = {};
  // As in PublishStreamInit.
  bool mandatory = false;
  absl::Duration wait_when_full = absl::ZeroDuration();
  // Report ids (PublishOutcome::message_id). Costs a little speed.
  bool return_results = false;
  AfterBreak after_break = AfterBreak::kStop;
  // With kReopen and kResend: give up when nothing could be stored for this long.
  absl::Duration reopen_timeout = absl::Seconds(60);
};

struct PublishOutcome {
  // OK: on stable storage. Otherwise client::MaybeHappened(status) tells whether it may be stored
  // all the same, and IsNotSent(status) whether it never left.
  absl::Status status;
  // With return_results, and OK only.
  std::string message_id;
  bool duplicate = false;
};

// Called exactly once per accepted message, in order of publishing within each answer of the
// server, by one thread at a time: the client's (see Client), or one of the publisher's own. Must
// not end a publisher, of whatever client; Publish, Flush and Close of any return
// FAILED_PRECONDITION there where they would have to wait.
using PublishCallback = std::function<void(const PublishOutcome&)>;

// All methods may be called from any thread. Messages published by one thread keep their order.
class Publisher {
 public:
  // Opens its stream with the first message. `client` must outlive the publisher.
  Publisher(Client& client, PublisherOptions options);
  // Close(), without telling the result.
  ~Publisher();
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  // Takes the message and waits only for room in the window; if nothing is being written it writes
  // what waits, which may be what other threads have published. An error means that it was not taken
  // and `callback` is never called: MESSAGE_TOO_LARGE of CheckMessageSize concerns this message
  // alone; after any other the publisher has ended, with this status.
  absl::Status Publish(v1::Message message, PublishCallback callback = nullptr);

  // Waits until every message taken before has its outcome and its callback has returned.
  // DEADLINE_EXCEEDED if that takes longer; otherwise the status with which the publisher ended, OK
  // while it lives. Refusals of single messages are told by callbacks only.
  absl::Status Flush(absl::Duration timeout = absl::InfiniteDuration());

  // Flushes and ends the stream. What has no outcome at `timeout` is reported as maybe stored.
  absl::Status Close(absl::Duration timeout = absl::InfiniteDuration());

  struct Counts {
    int64_t confirmed = 0;
    // Of those, what the server had stored before: by its deduplication id, or as a sequence of the
    // producer.
    int64_t duplicates = 0;
    int64_t refused = 0;   // certainly not stored, those that Publish found too large included
    int64_t not_sent = 0;  // certainly not stored, as the publisher ended before
    int64_t unknown = 0;   // maybe stored
    int64_t resent = 0;    // maybe stored more than once, with kResend
    int64_t in_flight = 0;
  };
  Counts counts() const;

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CPP_PUBLISHER_H_
