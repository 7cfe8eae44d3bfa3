// Gathers acks and nacks into few calls, for Consumer.
#ifndef SLUICE_CLIENT_CPP_SETTLER_H_
#define SLUICE_CLIENT_CPP_SETTLER_H_

#include <cstddef>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "sluice/v1/settle.pb.h"

namespace sluice::client {

class Client;

// OK: on stable storage. Called once per settled receipt, on the settler's thread.
using SettleCallback = std::function<void(const absl::Status&)>;

// While one call is in flight, what comes in waits and rides the next: no timers. All methods may
// be called from any thread but those of callbacks, which may only call Settle.
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

  // Flush, then fails what is left as CANCELLED (maybe settled) and ends. Idempotent.
  void Stop(absl::Duration timeout);

 private:
  struct WaitingAck {
    std::string receipt;
    SettleCallback callback;
  };
  struct WaitingNack {
    v1::NackItem nack;
    SettleCallback callback;
  };
  using Outcomes = std::vector<absl::Status>;

  void Run();
  // Sends some of `waiting` in one call and tells their outcomes. Without `lock`, which is held
  // again after it.
  template <typename Item>
  void SettleSome(std::deque<Item>& waiting, std::unique_lock<std::mutex>& lock);
  // Take what they send out of `items`, and give it back if it is to be sent again. True: it is.
  bool Send(std::vector<WaitingAck>& items, absl::Status* status, Outcomes* outcomes);
  bool Send(std::vector<WaitingNack>& items, absl::Status* status, Outcomes* outcomes);

  Client& client_;
  const std::string queue_;
  const bool retry_acks_;
  const size_t receipts_per_call_;
  absl::Duration pause_;  // before the next retry; only the settling thread's

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<WaitingAck> acks_;
  std::deque<WaitingNack> nacks_;
  size_t busy_ = 0;  // taken, callback not yet returned
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CPP_SETTLER_H_
