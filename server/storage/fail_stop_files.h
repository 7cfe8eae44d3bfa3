// Files that are changed no more once one could not be written: behind RocksDB.
#ifndef SLUICE_SERVER_STORAGE_FAIL_STOP_FILES_H_
#define SLUICE_SERVER_STORAGE_FAIL_STOP_FILES_H_

#include <atomic>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "rocksdb/file_system.h"

namespace sluice::storage {

// Notes the first failed write or sync. From then on nothing is written, synced, renamed or deleted,
// while RocksDB is told that all is well: told of a failure by one of its threads, it aborts the
// process when another comes along to write or sync the same file. So whoever does something with
// the store asks failure() afterwards, first of all, and must not believe RocksDB alone.
// Thread-safe.
class FailStopFiles : public rocksdb::FileSystemWrapper {
 public:
  explicit FailStopFiles(const std::shared_ptr<rocksdb::FileSystem>& base)
      : FileSystemWrapper(base) {}

  const char* Name() const override { return "sluice.fail_stop"; }
  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* directory,
                                 rocksdb::IODebugContext* debug) override;

  // Its own log says less when it cannot be written, and that is all.
  rocksdb::IOStatus NewLogger(const std::string& path, const rocksdb::IOOptions& options,
                              std::shared_ptr<rocksdb::Logger>* logger,
                              rocksdb::IODebugContext* debug) override;

  // OK: everything that was written and synced until now really was.
  rocksdb::IOStatus failure() const;

 private:
  class Directory;
  class File;
  // Does it unless something has failed, and notes it if it fails itself. OK in any case, but for
  // what is not supported or not there.
  template <typename Operation>
  rocksdb::IOStatus Do(Operation operation) {
    if (failed_.load(std::memory_order_acquire)) return rocksdb::IOStatus::OK();
    rocksdb::IOStatus status = operation();
    if (status.ok() || status.IsNotSupported() || status.IsPathNotFound() || status.IsNotFound()) {
      return status;
    }
    NoteFailure(status);
    return rocksdb::IOStatus::OK();
  }
  void NoteFailure(const rocksdb::IOStatus& status);

  std::atomic<bool> failed_{false};
  mutable absl::Mutex mutex_;
  rocksdb::IOStatus failure_ ABSL_GUARDED_BY(mutex_);  // the first
};

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_FAIL_STOP_FILES_H_
