// How far the search for expired messages has come.
#ifndef SLUICE_SERVER_BROKER_EXPIRY_SWEEP_H_
#define SLUICE_SERVER_BROKER_EXPIRY_SWEEP_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "server/model/ids.h"

namespace sluice::broker {

// One sweep for all queues of a shard, along the expiry index: state only, shard_expiry.cc has the
// rules.
struct ExpirySweep {
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  struct Work {
    QueueId qid = 0;
    Lane lane = 0;
    std::vector<Seq> seqs;
  };

  // Nothing expires before it that has not been dealt with (engine time); may be too early.
  int64_t next_ms = kNever;
  int64_t not_before_ms = 0;  // the next sweep waits for it
  std::string from;           // first key of the index that has not been looked at
  int64_t cursor_ms = 0;      // what the stored cursor will be when the work is done
  Lsn last_lsn = 0;           // the batch that last stored what expires
  bool busy = false;          // reads are under way
  bool exhausted = false;     // the last page was
  std::deque<Work> work;      // found and not dealt with
  std::string held_back;      // first key of what had to stay; empty: none
  int64_t began_ms = 0;       // when it last began at the first key
  bool holding = false;       // the last one held something back
  bool room_made = false;     // since then, where what it held back is to go
  // Queues of which something was held back: by this sweep so far, and by the one before it.
  absl::flat_hash_set<QueueId> held_queues;
  absl::flat_hash_set<QueueId> held_queues_before;

  void HoldBack(QueueId qid, std::string key) {
    held_queues.insert(qid);
    if (held_back.empty() || key < held_back) held_back = std::move(key);
  }
  // Something of the queue has expired and waits for room: as of the last look, which is repeated
  // while there is any.
  bool Holds(QueueId qid) const {
    return held_queues.contains(qid) || held_queues_before.contains(qid);
  }
  // The last page of a sweep is done.
  void NoteHeld() { held_queues_before = std::exchange(held_queues, {}); }
  void RoomMade(int64_t now_ms) {
    room_made = true;
    if (holding && !busy) Expect(now_ms);
  }
  void Expect(int64_t expire_ms) { next_ms = std::min(next_ms, expire_ms); }
  int64_t DueMs() const { return std::max(next_ms, not_before_ms); }
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_EXPIRY_SWEEP_H_
