// What clients saw: every operation, recorded before it is sent and when it completes.
//
// Times are ticks of one counter: a < b means that a happened before b. Leases are compared in wall
// time, which server and clients share on one machine.
#ifndef SLUICE_TESTS_CRASH_HISTORY_H_
#define SLUICE_TESTS_CRASH_HISTORY_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace sluice::crash {

using Tick = uint64_t;  // from 1; 0: not yet

// How a call ended. Maybe: UNAVAILABLE, CANCELLED, DEADLINE_EXCEEDED, UNKNOWN or INTERNAL.
enum class Outcome { kMaybe, kOk, kRefused };

// One message of a publish. Bodies are unique over the whole run, so the body's id names it.
struct PublishRecord {
  std::string id;
  std::string queue;
  Tick begin = 0;
  Tick end = 0;
  int index = 0;  // within its batch: batches are stored in order
  Outcome outcome = Outcome::kMaybe;
};

struct DeliveryRecord {
  std::string id;
  std::string queue;
  std::string receipt;
  std::string message_id;
  uint64_t stream = 0;  // the subscription or Receive call it came by
  int generation = 0;   // of the server: rises with every start
  int attempt = 0;
  int delivery_count = 0;
  bool maybe_redelivered = false;
  bool body_intact = true;
  Tick at = 0;
  int64_t at_wall_ms = 0;
  int64_t lease_until_wall_ms = 0;
};

enum class Action { kAck, kRetry, kRelease, kDiscard, kExtend };

// One receipt of a settling call.
struct SettleRecord {
  std::string id;
  std::string receipt;
  Action action = Action::kAck;
  Tick begin = 0;
  Tick end = 0;
  Outcome outcome = Outcome::kMaybe;
  int64_t lease_until_wall_ms = 0;  // kExtend that was OK
};

// A stream that its client closed: from `at` on its leases may have ended.
struct CloseRecord {
  uint64_t stream = 0;
  Tick at = 0;
};

// The depth that the server reported while no client did anything.
struct DepthRecord {
  std::string queue;
  Tick at = 0;
  int64_t messages = 0;  // in all states
};

struct History {
  std::vector<PublishRecord> publishes;
  std::vector<DeliveryRecord> deliveries;
  std::vector<SettleRecord> settles;
  std::vector<CloseRecord> closes;
  std::vector<DepthRecord> depths;
  std::vector<Tick> kills;
  // Queues with a single consumer that never closes its stream by itself.
  std::vector<std::string> fifo_queues;
  bool drained = false;
};

// Collects a History from many threads.
class Recorder {
 public:
  Tick Now() { return next_.fetch_add(1); }

  void Add(PublishRecord record) { Append(history_.publishes, std::move(record)); }
  void Add(DeliveryRecord record) { Append(history_.deliveries, std::move(record)); }
  void Add(SettleRecord record) { Append(history_.settles, std::move(record)); }
  void Add(CloseRecord record) { Append(history_.closes, record); }
  void Add(DepthRecord record) { Append(history_.depths, std::move(record)); }
  void AddKill() {
    const Tick now = Now();
    Append(history_.kills, now);
  }
  void AddFifoQueue(std::string queue) { Append(history_.fifo_queues, std::move(queue)); }
  void SetDrained() {
    std::lock_guard lock(mutex_);
    history_.drained = true;
  }
  // Once all threads have stopped.
  History Take() {
    std::lock_guard lock(mutex_);
    return std::move(history_);
  }

 private:
  template <typename T>
  void Append(std::vector<T>& list, T record) {
    std::lock_guard lock(mutex_);
    list.push_back(std::move(record));
  }

  std::atomic<Tick> next_{1};
  std::mutex mutex_;
  History history_;
};

}  // namespace sluice::crash

#endif  // SLUICE_TESTS_CRASH_HISTORY_H_
