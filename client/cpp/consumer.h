// Consumes a queue: messages pushed over Subscribe, settled in gathered Ack and Nack calls.
#ifndef SLUICE_CLIENT_CPP_CONSUMER_H_
#define SLUICE_CLIENT_CPP_CONSUMER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cpp/settler.h"
#include "sluice/v1/delivery.pb.h"

namespace sluice::client {

class Client;

struct ConsumerOptions {
  std::string queue = {};
  // A name for people and metrics.
  std::string consumer = {};
  // Credit: how many messages, and bytes of them, may be delivered and not settled. 0: the server's
  // defaults, 100 and 2 MiB. More is faster when handling is quick; less shares better.
  int max_in_flight = 0;
  int64_t max_bytes_in_flight = 0;
  // Zero: the queue's.
  absl::Duration lease = absl::ZeroDuration();
  // Be the queue's only consumer, or be refused FAILED_PRECONDITION / EXCLUSIVE.
  bool exclusive = false;
  // Consumers of a higher number are served first, while they have credit.
  int consumer_priority = 0;
  // Messages per second in the long run, and at once after a pause (0: those of one second). 0: as
  // fast as the credit allows.
  double rate_per_second = 0;
  int rate_burst = 0;
  // When the stream breaks its leases stay, to be settled on another connection.
  bool keep_leases_on_close = false;
  // The server settles by handing out; what a broken connection swallows is lost.
  bool auto_ack = false;
  // Run returns OK after this many deliveries, over all streams. 0: no limit.
  int64_t max_messages = 0;
  // Run returns OK when nothing came for this long. Zero: never.
  absl::Duration idle_timeout = absl::ZeroDuration();
  // When the stream breaks or the server goes away (ReopenHelps in status.h): subscribe again, and
  // repeat acks whose outcome is unknown, for ever. Otherwise Run returns the error. A stream that
  // the server ends for its age is always opened again, without a word.
  bool reopen = false;
  // Receipts of one Ack or Nack call at most, 1 to 10,000 (a rule of the API). They gather only
  // while the call before is under way. More gains nothing, and delays the first outcome.
  int ack_batch = 1000;
  // How long Run waits, when it ends, for acks and nacks to be answered.
  absl::Duration close_timeout = absl::Seconds(5);

  // All optional, called on the thread of Run:
  // after the handler got every message that came together, before waiting for more;
  std::function<void()> after_batch = nullptr;
  // the server ended leases: stop working on these;
  std::function<void(const v1::LeaseLost&)> on_lease_lost = nullptr;
  // the stream broke and is opened again.
  std::function<void(const absl::Status&)> on_reopen = nullptr;
};

class Consumer {
 public:
  using Handler = std::function<void(const v1::Delivery&)>;

  // `client` must outlive the consumer.
  Consumer(Client& client, ConsumerOptions options);
  ~Consumer();
  Consumer(const Consumer&) = delete;
  Consumer& operator=(const Consumer&) = delete;

  // Calls `handler` for each delivery, on the calling thread, one at a time, until a limit of the
  // options is reached, Stop is called (both OK) or an error ends it. Then flushes acks and nacks.
  // The handler, or whoever it hands the work to, settles by Ack or Nack; an unsettled message
  // keeps its lease until that expires or the stream breaks. Call once.
  absl::Status Run(const Handler& handler);

  // From any thread, the handler's too; returns at once, and Run returns soon after. Deliveries
  // that the handler did not see are given back where possible. May be called before Run.
  void Stop();

  // From any thread, while or after the handler works on the message and until Run returns. The
  // receipt's outcome comes by callback, on the client's thread (see Client); it may be empty. What
  // is given while Run ends, after its last flush, is let fall without a word.
  void Ack(const std::string& receipt, SettleCallback callback = nullptr);
  void Nack(v1::NackItem item, SettleCallback callback = nullptr);

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CPP_CONSUMER_H_
