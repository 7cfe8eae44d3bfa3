// A log and a store in memory, for tests of everything above the disk.
#ifndef SLUICE_SERVER_STORAGE_MEM_LOG_H_
#define SLUICE_SERVER_STORAGE_MEM_LOG_H_

#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "server/storage/commit_log.h"
#include "server/storage/store.h"

namespace sluice::storage {

// Ordered rows of every family. Reads may come from any thread as long as no batch is being
// applied; nothing here is locked.
class MemStore : public Store {
 public:
  // Keys with their family in front; for tests that look at rows directly.
  using Rows = std::map<std::pair<Family, std::string>, std::string, std::less<>>;

  explicit MemStore(ShardId shard = 0) : shard_(shard) {}

  absl::Status ScanMeta(absl::FunctionRef<absl::Status(std::string_view key, std::string_view value)>
                            row) override;
  absl::StatusOr<std::vector<StoredMessage>> ReadMessages(const ReadRange& range) override;
  absl::StatusOr<std::vector<StoredMessage>> ReadMessagesAt(QueueId qid, Lane lane,
                                                            const std::vector<Seq>& seqs,
                                                            uint64_t bytes_max,
                                                            size_t* seqs_read) override;
  absl::StatusOr<std::vector<IndexRow>> ScanIndex(std::string_view begin, std::string_view end,
                                                  uint32_t rows_max) override;
  absl::StatusOr<std::vector<std::optional<std::string>>> GetIndex(
      const std::vector<std::string>& keys) override;
  absl::StatusOr<std::vector<std::optional<std::string>>> GetMeta(
      const std::vector<std::string>& keys) override;

  // Applies a record, as replay would.
  absl::Status Apply(std::string_view record);

  Rows& rows() { return rows_; }
  const Rows& rows() const { return rows_; }
  // Header of the last batch applied.
  const BatchHeader& last_header() const { return last_header_; }

 private:
  std::vector<std::optional<std::string>> GetRows(Family family,
                                                  const std::vector<std::string>& keys) const;

  const ShardId shard_;
  Rows rows_;
  BatchHeader last_header_;
};

// Batches wait until the test makes them durable. Single-threaded: `done` runs inside CommitOne,
// CommitAll or Fail.
class MemLog : public CommitLog {
 public:
  // `store` must outlive the log.
  explicit MemLog(MemStore* store) : store_(store) {}

  // Checks that lsns rise by one from batch to batch.
  void Append(Batch batch, Done done) override;

  size_t pending() const { return pending_.size(); }
  // The oldest pending batch, or null.
  const Batch* front() const { return pending_.empty() ? nullptr : &pending_.front().batch; }

  // Makes the oldest batch durable: applies it to the store and runs its `done`. False: none waits.
  bool CommitOne();
  // Also what is appended by the `done`s it runs.
  void CommitAll();
  // A failed write: every pending and every later batch gets `status`, none reaches the store.
  void Fail(absl::Status status);
  // A crash: what was not durable is gone and nobody is told.
  void DropPending();

 private:
  struct Pending {
    Batch batch;
    Done done;
  };

  MemStore* const store_;
  std::deque<Pending> pending_;
  Lsn last_lsn_ = 0;  // 0: nothing appended since the start or the last crash
  absl::Status failure_;
};

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_MEM_LOG_H_
