// Works through a queue on one Consume stream: takes messages, hands them to threads, keeps their
// leases for as long as that takes, and settles them, all on the same stream.
#ifndef SLUICE_CLIENT_CPP_WORKER_H_
#define SLUICE_CLIENT_CPP_WORKER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "sluice/v1/delivery.pb.h"
#include "sluice/v1/settle.pb.h"

namespace sluice::client {

class Client;

// For work that takes its time: a message is taken only when a thread is free for it. For messages
// that are handled in no time, Consumer is faster.
struct WorkerOptions {
  std::string queue = {};
  // A name for people and metrics.
  std::string consumer = {};
  // Messages that are worked on at the same time, each on a thread of its own.
  int threads = 1;
  // Zero: the queue's. Extended while the handler works, so it need not be longer than the work: it
  // is how long a message waits for another try when this process dies.
  absl::Duration lease = absl::ZeroDuration();
  // Consumers of a higher number are served first, while they have credit.
  int consumer_priority = 0;
  // Run returns OK after this many messages. 0: no limit.
  int64_t max_messages = 0;
  // Run returns OK when nothing was there for this long. Zero: never.
  absl::Duration idle_timeout = absl::ZeroDuration();

  // Both optional:
  // a message is settled (OK: on stable storage), or its receipt was refused, LEASE_EXPIRED for
  // example when a pause of this process was longer than the lease, or Run ends before it is known;
  // on the thread of Run;
  std::function<void(const v1::Delivery&, const absl::Status&)> on_settled = nullptr;
  // the stream broke and is opened again; on the thread of Run.
  std::function<void(const absl::Status&)> on_reopen = nullptr;
};

class Worker {
 public:
  // What becomes of the message: nothing said is an ack; of a nack the receipt is filled in.
  using Verdict = std::optional<v1::NackItem>;
  // On one of the worker's threads. Must not throw.
  using Handler = std::function<Verdict(const v1::Delivery&)>;

  // `client` must outlive the worker.
  Worker(Client& client, WorkerOptions options);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Until a limit of the options is reached, Stop is called (both OK) or the server refuses. What is
  // being worked on is finished and settled first. When the server goes away the work goes on, and
  // is settled when the server is back; what a crash of the server makes it hand out again meanwhile
  // is not begun again. Call once.
  absl::Status Run(const Handler& handler);

  // From any thread; takes nothing more, and returns at once. May be called before Run.
  void Stop();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CPP_WORKER_H_
