// Which messages of a lane are settled: a head below which everything is, and bits above it.
#ifndef SLUICE_SERVER_BROKER_SETTLED_SET_H_
#define SLUICE_SERVER_BROKER_SETTLED_SET_H_

#include <cstdint>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/function_ref.h"
#include "server/model/ids.h"
#include "server/storage/rows.h"

namespace sluice::broker {

// Memory grows with the number of gaps, not with the number of settled messages: blocks of 512
// that are settled whole merge into runs, and what the head passes is forgotten.
// Invariant: head() is not in the set. Not thread-safe.
class SettledSet {
 public:
  Seq head() const { return head_; }
  // Settled seqs at or above the head.
  uint64_t settled_above_head() const { return above_; }

  bool Contains(Seq seq) const;
  // The first unsettled seq at or after `from`.
  Seq NextUnsettled(Seq from) const;

  // False if it was settled already.
  bool Add(Seq seq);
  // Settles all of [begin, end).
  void AddRange(Seq begin, Seq end);

  // Loading, before any Add.
  void RestoreHead(Seq head) { head_ = head; }
  void RestoreRow(uint64_t block, const storage::AcksRow& row);
  void FinishRestore() { AdvanceHead(); }

  // Rows that changed since the last call: `row` is null where the row is to be deleted. The head
  // itself is the lane row's.
  void TakeDirty(absl::FunctionRef<void(uint64_t block, const storage::AcksRow* row)> visit);

 private:
  struct Entry {
    storage::AcksRow row;
    bool stored = false;  // a row of it is in the store
    bool dirty = false;
  };
  using Map = absl::btree_map<uint64_t, Entry>;

  Map::const_iterator Find(uint64_t block) const;
  Map::iterator Erase(Map::iterator it);
  void SetBits(uint64_t block, unsigned begin, unsigned end);
  void InsertRun(uint64_t block, uint64_t run);
  void MarkDirty(uint64_t block, Entry& entry);
  void AdvanceHead();

  Seq head_ = 1;
  uint64_t above_ = 0;
  Map blocks_;
  std::vector<uint64_t> dirty_;
  std::vector<uint64_t> dropped_;  // stored rows that are to go
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_SETTLED_SET_H_
