// Which messages of a delayed lane are due next: the near part in memory, the rest in the index.
#ifndef SLUICE_SERVER_BROKER_DUE_WINDOW_H_
#define SLUICE_SERVER_BROKER_DUE_WINDOW_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "server/model/ids.h"

namespace sluice::broker {

// Invariant: every unsettled message of the lane with a key below end() is in the window, has been
// popped, or is in a page that is being read. Keys may outlive their messages: whoever pops one asks
// whether it is settled. Not thread-safe.
class DueWindow {
 public:
  struct Key {
    int64_t due_ms = 0;
    Seq seq = 0;
    friend auto operator<=>(const Key&, const Key&) = default;
  };
  static constexpr Key kBegin{std::numeric_limits<int64_t>::min(), 0};
  static constexpr Key kEnd{std::numeric_limits<int64_t>::max(),
                            std::numeric_limits<Seq>::max()};

  // Entries kept; each is about 24 bytes.
  static constexpr size_t kEntriesMax = 8192;
  // A page is read when fewer are left.
  static constexpr size_t kEntriesLow = 1024;
  static constexpr uint32_t kPageRowsMax = 4096;

  // For a lane that has messages in the store already.
  void StartUnread() { end_ = kBegin; }

  // A message that is in the batch `lsn`. Call in order of lsn.
  void Add(Key key, Lsn lsn, Lsn durable_lsn);

  bool empty() const { return keys_.empty(); }
  size_t size() const { return keys_.size(); }
  // The first due time that is known; nothing while the window is empty.
  std::optional<int64_t> FirstDueMs() const {
    if (keys_.empty()) return std::nullopt;
    return keys_.begin()->due_ms;
  }
  // Takes up to `max` that are due.
  std::vector<Key> PopDue(int64_t now_ms, size_t max);
  // Puts one back that could not be dealt with now.
  void PutBack(Key key) { keys_.insert(key); }

  // Part of the lane is only in the index and the window runs low.
  bool WantsPage() const { return !reading_ && end_ < kEnd && keys_.size() < kEntriesLow; }
  bool reading() const { return reading_; }
  // A page begins here; OnPage follows, with rows that begin at the returned key.
  Key StartPage(Lsn durable_lsn);
  // `exhausted`: there was no further row. Otherwise the page ends behind its last key.
  void OnPage(const std::vector<Key>& keys, bool exhausted);

  void Clear() {
    keys_.clear();
    recent_.clear();
    // A page that is being read brings only settled keys.
  }

 private:
  void Trim();

  absl::btree_set<Key> keys_;
  Key end_ = kEnd;
  bool reading_ = false;
  Key page_begin_ = kEnd;
  // Messages at or behind end_ that a page that is being read, or is started now, may not see.
  std::deque<std::pair<Lsn, Key>> recent_;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_DUE_WINDOW_H_
