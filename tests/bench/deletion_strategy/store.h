// The commit loop (a thread that writes, a thread that syncs the WAL) and the database behind it.

#ifndef SLUICE_TESTS_BENCH_DELETION_STRATEGY_STORE_H_
#define SLUICE_TESTS_BENCH_DELETION_STRATEGY_STORE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "rocksdb/db.h"
#include "rocksdb/statistics.h"
#include "rocksdb/write_batch.h"
#include "strategy.h"

namespace sluice::bench {

constexpr size_t kBatchMessages = 200;
constexpr uint64_t kWalBytesMax = 256 << 20;
constexpr uint64_t kMemtableBytes = 64 << 20;

// Submit -> write thread (Write, unsynced) -> sync thread (SyncWAL for all that was written).
// One thread submits. Any failure ends the process.
class CommitLoop {
 public:
  struct Batch {
    rocksdb::WriteBatch rows;
    std::vector<uint64_t> acked;
    uint64_t published_end = 0;  // sequence after the last one published so far
    Clock::time_point started;
  };

  CommitLoop(rocksdb::DB* db, Strategy* strategy);
  ~CommitLoop();  // drains

  // Waits while too many batches are in flight.
  void Submit(std::unique_ptr<Batch> batch);
  void Drain();

  // Everything below this sequence is published and synced.
  uint64_t durable_end() const { return durable_end_; }
  // From the start of a batch's write to the end of its sync. Call when drained.
  double longest_stall_s() const { return longest_stall_s_; }

 private:
  void Write();
  void Sync();
  // Waits for the queue's first batch; null when stopping.
  std::unique_ptr<Batch> Next(std::deque<std::unique_ptr<Batch>>* queue);

  rocksdb::DB* const db_;
  Strategy* const strategy_;
  absl::Mutex mutex_;
  std::deque<std::unique_ptr<Batch>> submitted_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::unique_ptr<Batch>> written_ ABSL_GUARDED_BY(mutex_);
  size_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<uint64_t> durable_end_ = 0;
  double longest_stall_s_ = 0;  // sync thread's
  std::thread writer_;
  std::thread syncer_;
};

struct StoreOptions {
  std::string dir;
  uint64_t body_bytes = 0;
  uint64_t memtable_bytes = kMemtableBytes;
  std::shared_ptr<rocksdb::Statistics> statistics;
};

// One database with one queue, driven by one thread.
class Store {
 public:
  Store(std::unique_ptr<Strategy> strategy, StoreOptions options);
  ~Store();  // closes without flushing, as a crash after the last sync would

  Strategy& strategy() { return *strategy_; }
  CommitLoop& commit() { return *commit_; }

  // Hands messages [from, to) and `acks` to the commit loop as one batch.
  void Submit(uint64_t from, uint64_t to, std::vector<uint64_t> acks);
  // Publishes [from, to) in batches and waits until they are durable.
  void Publish(uint64_t from, uint64_t to);
  // Up to `limit` messages that are not settled, from `cursor` on; moves the cursor behind them.
  std::vector<uint64_t> ReadPage(size_t limit, uint64_t* cursor);
  // What an idle server would do to get space back.
  void FlushAndSettle();
  // Disk blocks in use, including what RocksDB preallocated.
  double DiskMiB() const;

 private:
  void Open();

  const StoreOptions options_;
  std::string bodies_;
  Families families_;
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;
  std::unique_ptr<Strategy> strategy_;
  std::unique_ptr<CommitLoop> commit_;
};

}  // namespace sluice::bench

#endif  // SLUICE_TESTS_BENCH_DELETION_STRATEGY_STORE_H_
