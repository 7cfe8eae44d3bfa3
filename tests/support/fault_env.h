// A disk that fails when told to, behind RocksDB.
#ifndef SLUICE_TESTS_SUPPORT_FAULT_ENV_H_
#define SLUICE_TESTS_SUPPORT_FAULT_ENV_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "rocksdb/env.h"
#include "rocksdb/file_system.h"

namespace sluice::testing {

// Counts the appends to and syncs of WAL files and fails one of each, once. Thread-safe.
class FaultFileSystem : public rocksdb::FileSystemWrapper {
 public:
  FaultFileSystem() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}

  const char* Name() const override { return "sluice.fault"; }
  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override;

  // The n-th append or sync from now on fails; 1 is the next one, 0 none.
  void FailAppend(int64_t n) { appends_.left = n; }
  void FailSync(int64_t n) { syncs_.left = n; }
  // What was asked for after the first failure. The one who is told of it may be slow to pass it
  // on, so another thread's calls go on for a while.
  int64_t appends_after_failure() const { return appends_.after_failure; }
  int64_t syncs_after_failure() const { return syncs_.after_failure; }

 private:
  class WalFile;
  struct Calls {
    std::atomic<int64_t> left = 0;
    std::atomic<int64_t> after_failure = 0;
  };
  bool Fails(Calls* calls);

  Calls appends_;
  Calls syncs_;
  std::atomic<bool> failed_ = false;
};

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_SUPPORT_FAULT_ENV_H_
