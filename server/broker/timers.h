// What is due when: one ordered set for a whole shard.
#ifndef SLUICE_SERVER_BROKER_TIMERS_H_
#define SLUICE_SERVER_BROKER_TIMERS_H_

#include <cstdint>
#include <optional>
#include <tuple>

#include "absl/container/btree_set.h"
#include "server/model/ids.h"

namespace sluice::broker {

enum class TimerKind : uint8_t {
  kLease,
  kRetry,
  kIdle,
  kReceiveWait,
  kPublishWait,   // a parked publish gives up
  kDue,           // delayed messages of a queue
  kQueueRate,     // a token for a queue
  kConsumerRate,  // a token for a consumer
  kQueueIdle,     // a queue that goes when it is not used
};

struct Timer {
  int64_t due = 0;  // in the unit of the set it is in
  TimerKind kind = TimerKind::kLease;
  Lane lane = 0;
  QueueId qid = 0;
  uint64_t id = 0;  // seq of a message, or id of a consumer

  friend bool operator<(const Timer& a, const Timer& b) {
    return std::tie(a.due, a.qid, a.lane, a.id, a.kind) <
           std::tie(b.due, b.qid, b.lane, b.id, b.kind);
  }
};

// Exact: what is cancelled is taken out, so memory follows what is really waiting. O(log n).
// Not thread-safe.
class Timers {
 public:
  void Add(const Timer& timer) { timers_.insert(timer); }
  void Cancel(const Timer& timer) { timers_.erase(timer); }
  size_t size() const { return timers_.size(); }

  std::optional<int64_t> NextDue() const {
    if (timers_.empty()) return std::nullopt;
    return timers_.begin()->due;
  }
  // Takes the first one that is due.
  std::optional<Timer> PopDue(int64_t now) {
    if (timers_.empty() || timers_.begin()->due > now) return std::nullopt;
    const Timer timer = *timers_.begin();
    timers_.erase(timers_.begin());
    return timer;
  }

 private:
  absl::btree_set<Timer> timers_;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_TIMERS_H_
