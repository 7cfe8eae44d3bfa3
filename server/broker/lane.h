// One lane of a queue: messages of one priority in commit order.
//
//   settled ... head ...... fetch_cursor ...... visible_end ...... next_seq
//                 |  in memory: window   |  on disk only   | not durable yet
//                 |  or open             |  (or in the window's tail when nothing was skipped)
#ifndef SLUICE_SERVER_BROKER_LANE_H_
#define SLUICE_SERVER_BROKER_LANE_H_

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "server/broker/consumer_commands.h"
#include "server/broker/due_window.h"
#include "server/broker/seq_set.h"
#include "server/broker/settled_set.h"
#include "server/model/ids.h"
#include "server/model/payload.h"
#include "server/storage/batch.h"
#include "server/storage/store.h"

namespace sluice::broker {

// A message that has been granted and is not settled.
//
//            grant                    fail / release (row durable)
//   window ---------> kLeased -----------------------------> kReturned --grant--> kLeased
//                      |  |  \-- fail with backoff --> kWaiting --due--^
//                      |  |                               |
//                      |  +----- last failure, reject, expiry ----> kDying --moved--+
//                      +-------- ack / discard -------------------------------------+--> settled
//                                                                                  (entry gone)
enum class OpenState : uint8_t {
  kLeased,
  kReturning,  // ended by a batch that is not durable yet; ready when it is
  kWaiting,    // for not_before_ms
  kReturned,   // ready again
  kDying,      // never granted again: waits for its move to the dead-letter queue
};

struct OpenMessage {
  OpenState state = OpenState::kLeased;
  bool has_history = false;      // a kHistory row exists (or is in the batch being built)
  bool lease_saved = false;      // that row says until when the lease runs
  bool fetching = false;         // its payload is being read
  bool maybe_redelivered = false;
  bool cut_short = false;        // the end of an earlier boot ended its last grant, uncounted
  int32_t attempt = 1;
  Boot boot = 0;                 // of the last grant
  uint32_t delivery_count = 0;   // of the last grant
  uint32_t size_bytes = 0;
  SubscriptionId holder = 0;     // 0: a receive call, a former stream, a lease of an earlier boot
  std::shared_ptr<const std::string> receiver;  // the name that the receive call gave; null: none
  int64_t ready_since_ms = 0;    // engine time; 0: not known
  int64_t lease_until_ns = 0;    // monotonic
  int64_t not_before_ms = 0;     // engine time
  Lsn due_row_lsn = 0;           // kWaiting: the batch with its due row; 0: it has none
  uint64_t group_hash = 0;       // 0: no group
  int64_t expire_ms = 0;         // engine time; 0: never
  DeathReason death = DeathReason::kUnspecified;  // kDying: why
  std::unique_ptr<std::string> detail;            // reason of the last nack; null: none
  std::shared_ptr<const Origin> origin;           // once read; null: none, or not read
  Payload payload;               // only while kReturned and fetched
};

// Limits of what one lane keeps in memory ahead of its consumers.
inline constexpr size_t kWindowMessagesMax = 16'384;
inline constexpr uint64_t kWindowBytesMax = 8 * kMiB;
// The same for a queue that nobody consumes: enough to start a new consumer without a wait.
inline constexpr size_t kIdleWindowMessagesMax = 64;
inline constexpr uint64_t kIdleWindowBytesMax = 64 * kKiB;
// One page-in.
inline constexpr uint32_t kPageMessagesMax = 4096;
inline constexpr uint64_t kPageBytesMax = 2 * kMiB;
// The same when the shard's windows are over their limit.
inline constexpr uint32_t kSmallPageMessagesMax = 16;
inline constexpr uint64_t kSmallPageBytesMax = 16 * kKiB;
// Seqs by which the grant bound runs ahead of grants, so that it costs one row in so many.
inline constexpr Seq kGrantBoundChunk = 16'384;

struct LaneState {
  LaneState(MessagePosition lane_position) : position(lane_position) {}

  const MessagePosition position;  // seq is 0: use At()
  MessagePosition At(Seq seq) const {
    return {position.shard, position.qid, position.lane, seq};
  }

  // Persisted (LaneRow, AcksRow).
  SettledSet settled;
  Seq next_seq = 1;
  uint64_t unsettled_bytes = 0;
  Seq grant_bound = 1;
  bool dirty = false;  // the row has to be written this turn

  // Runtime.
  Seq crash_bound = 0;   // seqs below it may have been granted before a crash
  Seq holes_bound = 0;   // seqs below it may be in the window and open or settled at once
  Seq visible_end = 1;   // seqs below it are durable
  Seq durable_grant_bound = 1;  // the grant bound that the store is known to have
  Lsn grant_bound_lsn = 0;      // the batch that last raised the grant bound
  // The batch in which a message last left that was never handed out and could have been. What is
  // handed out now comes after it, and is shown when it cannot come back.
  Lsn gap_lsn = 0;
  Seq fetch_cursor = 1;  // the next seq that is neither in the window nor was ever in it
  std::deque<storage::StoredMessage> window;
  uint64_t window_bytes = 0;
  bool reading = false;  // a page-in is under way
  // Since when the first message behind an empty window is ready, as last seen.
  struct Peeked {
    Seq seq = 0;
    int64_t ready_since_ms = 0;
  };
  Peeked peeked;
  bool peek_wanted = false;  // it, or the first candidate of a group, is to be read for that
  Seq loaded_end = 0;        // seqs below it were stored before this boot
  absl::flat_hash_map<Seq, OpenMessage> open;
  absl::btree_set<Seq> returned;
  absl::btree_set<Seq> fetched;  // of them, those whose payload is in memory
  uint64_t fetched_bytes = 0;
  size_t parked_reads = 0;      // reads under way for messages of groups

  // Retries that wait on disk only, see shard_resting.cc. They count as `waiting`.
  SeqSet resting;
  size_t body_reads = 0;        // reads under way that know which messages rest
  std::vector<Seq> drowsy;      // could rest but for those

  // Of the delayed lane all of its messages; of others those retries that rest.
  std::unique_ptr<DueWindow> due;  // made when first used
  DueWindow& DueWindowOf() {
    if (!due) due = std::make_unique<DueWindow>();
    return *due;
  }
  int64_t due_timer_ms = 0;  // engine time; 0: none
  bool joining = false;      // what is due is being read

  size_t leased = 0;
  size_t waiting = 0;
  size_t dying = 0;
  size_t returning = 0;  // open messages in that state

  uint64_t Unsettled() const { return next_seq - settled.head() - settled.settled_above_head(); }
  uint64_t Ready() const { return Unsettled() - leased - waiting - dying; }
  // Nothing between the window and the end: new messages may join it.
  bool WindowReachesEnd() const { return fetch_cursor == next_seq; }
  // Durable messages that are not in memory.
  bool HasMoreOnDisk() const { return fetch_cursor < visible_end; }
  // The first message at or after `from` that a page-in has to bring.
  Seq NextToPageIn(Seq from) const;
  // The first message behind the window that nobody holds.
  Seq FirstOnDisk() const;
  // What was peeked of it; nothing: it is not known.
  std::optional<int64_t> FirstOnDiskReadySinceMs() const {
    if (peeked.seq != FirstOnDisk()) return std::nullopt;
    return peeked.ready_since_ms;
  }
  // Where dispatch has come: messages before it that are neither open nor parked were skipped.
  Seq ScanPosition() const { return window.empty() ? fetch_cursor : window.front().seq; }

  // The first message of the window that may be granted, skipping what was settled or opened
  // meanwhile; null if there is none.
  storage::StoredMessage* Front(uint64_t* shard_window_bytes);
  storage::StoredMessage PopFront(uint64_t* shard_window_bytes);
  // The message of the window with this seq; null if it is not there.
  storage::StoredMessage* Find(Seq seq);
  // Takes a new message, in the window if it may be there, and gives it the next seq.
  void Append(MessageInfo info, Payload payload, bool consumed, uint64_t shard_window_bytes_max,
              uint64_t* shard_window_bytes);
  // Drops messages from the back until the window is within the limits; they are on disk.
  void TrimWindow(size_t messages_max, uint64_t bytes_max, uint64_t* shard_window_bytes);

  // The payload of a returned message comes into memory, or leaves it (for whoever takes it).
  void KeepFetched(Seq seq, OpenMessage& message, Payload payload, uint64_t* shard_window_bytes);
  Payload TakeFetched(Seq seq, OpenMessage& message, uint64_t* shard_window_bytes);

  // Marks a message settled and forgets it. The caller has handled its holder and timers, and
  // marks the lane dirty.
  void Settle(Seq seq, uint32_t size_bytes, storage::Batch& batch);
  void WriteHistory(Seq seq, OpenMessage& message, int64_t lease_until_ms, storage::Batch& batch);
  void RaiseGrantBound(Seq bound, Lsn lsn) {
    if (bound <= grant_bound) return;
    grant_bound = bound;
    grant_bound_lsn = lsn;
  }
  // Appends the lane's changed rows.
  void WriteDirty(storage::Batch& batch);

  // Adds what a page-in of [begin, end) found. DATA_LOSS if an unsettled message is missing.
  absl::Status AddPage(const storage::ReadRange& range,
                       std::vector<storage::StoredMessage> messages,
                       uint64_t* shard_window_bytes);
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_LANE_H_
