// Files that are written no more once the log could not be: behind RocksDB.
#ifndef SLUICE_SERVER_STORAGE_FAIL_STOP_FILES_H_
#define SLUICE_SERVER_STORAGE_FAIL_STOP_FILES_H_

#include <atomic>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "rocksdb/file_system.h"

namespace sluice::storage {

// Notes the first failed write or sync of a WAL file. From then on no file is written or synced:
//  - of WAL files RocksDB is told that all is well. It writes and syncs them on different threads,
//    and told of a failure by one it aborts the process when the other comes along. Whoever writes
//    the log therefore asks wal_failure() after each step, and must not believe RocksDB alone.
//  - of all others it hears an IOError, so that no file comes to hold rows of which the log knows
//    nothing.
// Thread-safe.
class FailStopFiles : public rocksdb::FileSystemWrapper {
 public:
  explicit FailStopFiles(const std::shared_ptr<rocksdb::FileSystem>& base)
      : FileSystemWrapper(base) {}

  const char* Name() const override { return "sluice.fail_stop"; }
  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override;

  // OK unless the WAL has failed. What was written and synced before an OK is what it says.
  rocksdb::IOStatus wal_failure() const;

 private:
  class File;
  bool has_failed() const { return failed_.load(std::memory_order_acquire); }
  void NoteWalFailure(const rocksdb::IOStatus& status);

  std::atomic<bool> failed_{false};
  mutable absl::Mutex mutex_;
  rocksdb::IOStatus failure_ ABSL_GUARDED_BY(mutex_);  // the first
};

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_FAIL_STOP_FILES_H_
