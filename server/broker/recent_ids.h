// Deduplication ids of messages that a lookup in the store may not see yet.
#ifndef SLUICE_SERVER_BROKER_RECENT_IDS_H_
#define SLUICE_SERVER_BROKER_RECENT_IDS_H_

#include <deque>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "server/model/hash.h"
#include "server/model/ids.h"
#include "server/storage/rows.h"

namespace sluice::broker {

// Together with the answer of a lookup this is the whole truth: what was decided before the lookup
// was started and is durable, the lookup finds; everything later is here. Bounded by what the log
// has under way and by how long lookups take. Not thread-safe.
class RecentIds {
 public:
  using Key = std::pair<QueueId, Hash128>;

  // In order of lsn: that of the batch which stores the row.
  void Add(const Key& key, const storage::DedupRow& row, Lsn lsn) {
    rows_[key] = {row, lsn};
    order_.push_back({lsn, key});
  }
  const storage::DedupRow* Find(const Key& key) const {
    const auto it = rows_.find(key);
    return it == rows_.end() ? nullptr : &it->second.row;
  }
  // Every lookup that is still to be used was started when `lsn` was durable, or later.
  void Forget(Lsn lsn) {
    while (!order_.empty() && order_.front().first <= lsn) {
      const auto it = rows_.find(order_.front().second);
      // A later message may have taken the id again.
      if (it != rows_.end() && it->second.lsn <= lsn) rows_.erase(it);
      order_.pop_front();
    }
  }
  size_t size() const { return rows_.size(); }

 private:
  struct Entry {
    storage::DedupRow row;
    Lsn lsn = 0;
  };
  absl::flat_hash_map<Key, Entry> rows_;
  std::deque<std::pair<Lsn, Key>> order_;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_RECENT_IDS_H_
