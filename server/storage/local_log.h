// The log of a single server: RocksDB's WAL, synced.
#ifndef SLUICE_SERVER_STORAGE_LOCAL_LOG_H_
#define SLUICE_SERVER_STORAGE_LOCAL_LOG_H_

#include <cstdint>
#include <deque>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/storage/commit_log.h"
#include "server/storage/rocks_store.h"

namespace sluice::storage {

// Called on threads of the log; must be quick.
class LogObserver {
 public:
  virtual ~LogObserver() = default;
  // Batches and bytes of records handed to the operating system at once.
  virtual void OnWrite(uint64_t batches, uint64_t bytes) = 0;
  virtual void OnSync(double seconds) = 0;
};

struct LocalLogOptions {
  // After this long without an append, a marker record names the last batch durable, so that damage
  // to it is told apart from a torn tail.
  absl::Duration idle_marker_after = absl::Milliseconds(100);
  Clock* clock = Clock::System();
};

// One thread writes what has been appended, another syncs whatever has been written and calls
// `done`, so that batches gather while a sync runs. After a failed write or sync nothing is written
// or synced again: every waiting and later `done` gets STORE_FAILED.
class LocalLog : public CommitLog {
 public:
  // `store` and `observer` (may be null) must outlive the log.
  LocalLog(RocksStore* store, LogObserver* observer, const LocalLogOptions& options = {});
  ~LocalLog() override;

  void Append(Batch batch, Done done) override;

  // Makes durable what has been appended, then ends the threads. Later appends fail. Any thread but
  // the log's own; a second call does nothing.
  void Stop();
  // What ended the term, if something has. Any thread.
  absl::Status failure() const {
    absl::MutexLock lock(&mutex_);
    return failure_;
  }

 private:
  struct Entry {
    Batch batch;
    Done done;               // null for a marker
    uint64_t store_seq = 0;  // RocksDB's sequence number behind this batch
  };
  using Entries = std::deque<Entry>;

  void WriteLoop();
  void SyncLoop();
  // False when the write thread shall end. Waits for appended batches or until a marker is due.
  bool TakeAppended(Entries* entries);
  absl::Status Write(Entry* entry);
  absl::Status SyncAndApply(const Entries& entries);
  bool MarkerDue() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  RocksStore* const store_;
  LogObserver* const observer_;
  const LocalLogOptions options_;

  absl::Mutex stop_mutex_;  // serialises Stop
  mutable absl::Mutex mutex_ ABSL_ACQUIRED_AFTER(stop_mutex_);
  Entries appended_ ABSL_GUARDED_BY(mutex_);
  Entries written_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool syncing_ ABSL_GUARDED_BY(mutex_) = false;  // entries taken from written_ are under way
  bool writer_ended_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t synced_store_seq_ ABSL_GUARDED_BY(mutex_) = 0;
  Lsn synced_lsn_ ABSL_GUARDED_BY(mutex_) = 0;
  // The newest sequence number that a written record names durable.
  uint64_t named_store_seq_ ABSL_GUARDED_BY(mutex_) = 0;

  BatchHeader last_header_;  // of the write thread

  std::thread writer_;
  std::thread syncer_;
};

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_LOCAL_LOG_H_
