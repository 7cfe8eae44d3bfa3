// What is settled according to synced batches: which messages the store may forget.
#ifndef SLUICE_SERVER_STORAGE_SETTLED_INDEX_H_
#define SLUICE_SERVER_STORAGE_SETTLED_INDEX_H_

#include <cstdint>
#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/model/ids.h"
#include "server/storage/batch.h"
#include "server/storage/rows.h"

namespace sluice::storage {

// The settled part of one lane: everything below the head, and blocks above it. A value; copies
// are independent.
class SettledLane {
 public:
  Seq head() const { return row_.head; }
  Seq next_seq() const { return row_.next_seq; }
  // The first seq at or after `from` that is not settled.
  Seq NextUnsettled(Seq from) const;
  // Unsettled seqs in [begin, end) that exist.
  uint64_t CountUnsettled(Seq begin, Seq end) const;

 private:
  friend class SettledIndex;
  void SetRow(const LaneRow& row);

  LaneRow row_;
  absl::btree_map<uint64_t, AcksRow> blocks_;  // of seqs above the head
};

// Built from the meta rows when the store opens and kept up by the log after each sync, so it never
// runs ahead of the disk. What is settled stays settled: an old copy only forgets less.
// Thread-safe.
class SettledIndex {
 public:
  explicit SettledIndex(ShardId shard) : shard_(shard) {}
  SettledIndex(const SettledIndex&) = delete;
  SettledIndex& operator=(const SettledIndex&) = delete;

  // At open, for every meta row in any order; then FinishLoad. Until then nothing counts as settled.
  absl::Status LoadRow(std::string_view key, std::string_view value);
  void FinishLoad(uint64_t store_seq);

  // A batch that is on stable storage. `store_seq` numbers the store's writes and rises.
  absl::Status Apply(std::string_view record, uint64_t store_seq);

  // True once everything written up to `store_seq` has been applied; false after `timeout`.
  bool AwaitApplied(uint64_t store_seq, absl::Duration timeout) const;

  enum class Verdict {
    kUnknown,  // keep everything
    kDead,     // the queue is gone: nothing of it is needed
    kLane,     // `lane` tells
  };
  // A copy of the state of one lane.
  Verdict Copy(ShardId shard, QueueId qid, Lane lane, SettledLane* copy) const;

  // The same for one message or queue, without a copy. Both are false where nothing is known.
  bool IsSettled(const MessagePosition& position) const;
  bool IsDead(ShardId shard, QueueId qid) const;

  // Engine time of the last batch on stable storage; 0 until that is known.
  int64_t log_time_ms() const;

  // Messages with first <= position <= last, at most `limit` counted, that may still be needed.
  // Only for ranges whose messages have all been applied.
  uint64_t CountUnsettled(const MessagePosition& first, const MessagePosition& last,
                          uint64_t limit) const;

  // Rises whenever something more is settled.
  uint64_t version() const;

 private:
  class Applier;
  using LaneKey = std::pair<QueueId, Lane>;

  Verdict Judge(ShardId shard, QueueId qid) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  absl::Status PutRow(const MetaKey& key, std::string_view value)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DeleteRow(const MetaKey& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ShardId shard_;
  mutable absl::Mutex mutex_;
  bool loaded_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t applied_store_seq_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t log_time_ms_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t version_ ABSL_GUARDED_BY(mutex_) = 0;
  QueueId next_qid_ ABSL_GUARDED_BY(mutex_) = 1;  // greater ones have not been seen yet
  absl::flat_hash_set<QueueId> live_ ABSL_GUARDED_BY(mutex_);
  absl::btree_map<LaneKey, SettledLane> lanes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_SETTLED_INDEX_H_
