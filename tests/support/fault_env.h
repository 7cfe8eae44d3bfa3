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
  void FailAppend(int64_t n) { appends_left_ = n; }
  void FailSync(int64_t n) { syncs_left_ = n; }
  // Appends and syncs that were asked for after the one that failed.
  int64_t calls_after_failure() const { return calls_after_failure_; }

 private:
  class WalFile;
  bool Fails(std::atomic<int64_t>* left);

  std::atomic<int64_t> appends_left_ = 0;
  std::atomic<int64_t> syncs_left_ = 0;
  std::atomic<bool> failed_ = false;
  std::atomic<int64_t> calls_after_failure_ = 0;
};

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_SUPPORT_FAULT_ENV_H_
