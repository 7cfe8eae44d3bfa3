// Gathers acks and nacks into few calls, for Consumer.
#ifndef SLUICE_CLIENT_CPP_SETTLER_H_
#define SLUICE_CLIENT_CPP_SETTLER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "sluice/v1/settle.pb.h"

namespace sluice::client {

class Client;

// OK: on stable storage. Called once per settled receipt, on the client's thread (see Client).
using SettleCallback = std::function<void(const absl::Status&)>;

// Whoever finds no call in flight makes one; while one is, what comes in waits and rides the next:
// no timers, and no thread. All methods may be called from any thread; in callbacks only Ack and
// Nack.
class Settler {
 public:
  // With `retry_acks`, acks whose call did not reach the server or has an unknown outcome are sent
  // again (which is safe) until Stop. Nacks never are: a second one may hit a newer state.
  // `receipts_per_call` is at most that many, as ConsumerOptions::ack_batch.
  Settler(Client& client, std::string queue, bool retry_acks, int receipts_per_call);
  ~Settler();

  void Ack(std::string receipt, SettleCallback callback);
  void Nack(v1::NackItem item, SettleCallback callback);

  // Waits until everything given so far has its outcome. False: `timeout` passed first.
  bool Flush(absl::Duration timeout);

  // Flush, then fails what is left as CANCELLED (maybe settled) and ends: what is given later is let
  // fall. Idempotent.
  void Stop(absl::Duration timeout);

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CPP_SETTLER_H_
