// The store on disk: RocksDB behind the Store interface.
#ifndef SLUICE_SERVER_STORAGE_ROCKS_STORE_H_
#define SLUICE_SERVER_STORAGE_ROCKS_STORE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/model/limits.h"
#include "server/storage/settled_index.h"
#include "server/storage/store.h"
#include "server/storage/store_sizes.h"

namespace rocksdb {
class ColumnFamilyHandle;
class DB;
class Env;
class Status;
}  // namespace rocksdb

namespace sluice::storage {

class CompressionChoice;
class FailStopFiles;
class Reclaimer;

struct RocksOptions {
  std::string dir;  // made if it is not there
  ShardId shard = 0;

  StoreSizes sizes;  // made to fit the disk
  // Blocks, indexes and filters that are read; bounds memory against deep backlogs.
  uint64_t block_cache_bytes = 64 * kMiB;

  // How often settled space is looked for, and how much garbage in files that also hold live
  // messages is worth rewriting them: while the store is busy, and when it has been idle.
  absl::Duration reclaim_period = absl::Milliseconds(500);
  uint64_t rewrite_garbage_bytes_busy = 256 * kMiB;
  uint64_t rewrite_garbage_bytes_idle = 16 * kMiB;

  // For tests that make the disk fail; null: the real one. Must outlive the store.
  rocksdb::Env* env = nullptr;
  // For tests; unset: the file system of `dir` is asked.
  std::optional<uint64_t> disk_bytes;
};

struct RocksStats {
  uint64_t disk_bytes = 0;       // files of the store, WAL included
  uint64_t reclaimed_bytes = 0;  // message files dropped whole since start
  uint64_t memtable_bytes = 0;
  uint64_t immutable_memtables = 0;  // waiting to be flushed: writes stall at 4
  uint64_t pending_compaction_bytes = 0;
};

// Thread-safe, as Store.
class RocksStore : public Store {
 public:
  // Checks the WAL (wal_scan.h), then opens and replays it.
  // FAILED_PRECONDITION: another server uses the directory, or the data is of a later version.
  // RESOURCE_EXHAUSTED: the disk is too small or too full, naming what it takes.
  // DATA_LOSS: something that was durable is damaged or missing; nothing has been changed.
  static absl::StatusOr<std::unique_ptr<RocksStore>> Open(const RocksOptions& wanted);
  ~RocksStore() override;

  absl::Status ScanMeta(absl::FunctionRef<absl::Status(std::string_view key, std::string_view value)>
                            row) override;
  // Skips what synced batches have settled.
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

  RocksStats Stats() const;
  // Drops what is settled now, without waiting for the next period. For tests and tools; blocks.
  absl::Status ReclaimNow();

  // As they fit the disk.
  const StoreSizes& sizes() const { return options_.sizes; }

  // For LocalLog.
  // Not OK once something could not be written or synced; RocksDB does not say so itself.
  absl::Status Failure() const;
  rocksdb::DB* db() const { return db_; }
  rocksdb::ColumnFamilyHandle* messages() const { return messages_; }
  rocksdb::ColumnFamilyHandle* meta() const { return meta_; }
  rocksdb::ColumnFamilyHandle* index() const { return index_; }
  SettledIndex* settled() const { return settled_.get(); }
  // For the reclaimer's thread, now and then.
  void ChooseCompression();

 private:
  explicit RocksStore(const RocksOptions& options);
  absl::Status OpenDb();
  absl::Status LoadSettled(uint64_t durable_store_seq);
  // Calls `row` with the number of each key that is there and its value.
  absl::Status GetEach(rocksdb::ColumnFamilyHandle* family,
                       const std::vector<std::string_view>& keys,
                       absl::FunctionRef<absl::Status(size_t, std::string_view)> row);
  absl::StatusOr<std::vector<std::optional<std::string>>> GetRows(
      rocksdb::ColumnFamilyHandle* family, const std::vector<std::string>& keys);
  absl::Status ReadError(const rocksdb::Status& status) const;

  const RocksOptions options_;
  const std::shared_ptr<SettledIndex> settled_;  // also held by filters
  const std::shared_ptr<FailStopFiles> files_;
  const std::unique_ptr<rocksdb::Env> env_;  // of files_
  const std::shared_ptr<CompressionChoice> compression_;
  rocksdb::DB* db_ = nullptr;
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;
  rocksdb::ColumnFamilyHandle* messages_ = nullptr;
  rocksdb::ColumnFamilyHandle* meta_ = nullptr;
  rocksdb::ColumnFamilyHandle* index_ = nullptr;
  std::unique_ptr<Reclaimer> reclaimer_;
};

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_ROCKS_STORE_H_
