#include "tests/support/fault_env.h"

#include <string_view>
#include <utility>

namespace sluice::testing {

class FaultFileSystem::WalFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  WalFile(std::unique_ptr<rocksdb::FSWritableFile> file, FaultFileSystem* owner)
      : FSWritableFileOwnerWrapper(std::move(file)), owner_(owner) {}

  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                           rocksdb::IODebugContext* debug) override {
    if (owner_->Fails(&owner_->appends_)) return rocksdb::IOStatus::IOError("injected append");
    return FSWritableFileOwnerWrapper::Append(data, options, debug);
  }
  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                           const rocksdb::DataVerificationInfo& info,
                           rocksdb::IODebugContext* debug) override {
    if (owner_->Fails(&owner_->appends_)) return rocksdb::IOStatus::IOError("injected append");
    return FSWritableFileOwnerWrapper::Append(data, options, info, debug);
  }
  rocksdb::IOStatus Sync(const rocksdb::IOOptions& options,
                         rocksdb::IODebugContext* debug) override {
    if (owner_->Fails(&owner_->syncs_)) return rocksdb::IOStatus::IOError("injected sync");
    return FSWritableFileOwnerWrapper::Sync(options, debug);
  }

 private:
  FaultFileSystem* const owner_;
};

rocksdb::IOStatus FaultFileSystem::NewWritableFile(const std::string& path,
                                                   const rocksdb::FileOptions& options,
                                                   std::unique_ptr<rocksdb::FSWritableFile>* file,
                                                   rocksdb::IODebugContext* debug) {
  rocksdb::IOStatus status = FileSystemWrapper::NewWritableFile(path, options, file, debug);
  const bool is_wal = std::string_view(path).ends_with(".log");
  if (status.ok() && is_wal) *file = std::make_unique<WalFile>(std::move(*file), this);
  return status;
}

bool FaultFileSystem::Fails(Calls* calls) {
  if (failed_) ++calls->after_failure;
  if (calls->left == 0 || --calls->left > 0) return false;
  failed_ = true;
  return true;
}

}  // namespace sluice::testing
