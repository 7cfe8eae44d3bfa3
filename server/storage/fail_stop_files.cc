#include "server/storage/fail_stop_files.h"

#include <string_view>
#include <utility>

namespace sluice::storage {

using rocksdb::DataVerificationInfo;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

class FailStopFiles::File : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  File(std::unique_ptr<rocksdb::FSWritableFile> file, FailStopFiles* owner, bool is_wal)
      : FSWritableFileOwnerWrapper(std::move(file)), owner_(owner), is_wal_(is_wal) {}

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    return Do([&] { return target()->Append(data, options, debug); });
  }
  IOStatus Append(const Slice& data, const IOOptions& options, const DataVerificationInfo& info,
                  IODebugContext* debug) override {
    return Do([&] { return target()->Append(data, options, info, debug); });
  }
  IOStatus PositionedAppend(const Slice& data, uint64_t offset, const IOOptions& options,
                            IODebugContext* debug) override {
    return Do([&] { return target()->PositionedAppend(data, offset, options, debug); });
  }
  IOStatus PositionedAppend(const Slice& data, uint64_t offset, const IOOptions& options,
                            const DataVerificationInfo& info, IODebugContext* debug) override {
    return Do([&] { return target()->PositionedAppend(data, offset, options, info, debug); });
  }
  IOStatus Truncate(uint64_t size, const IOOptions& options, IODebugContext* debug) override {
    return Do([&] { return target()->Truncate(size, options, debug); });
  }
  IOStatus Close(const IOOptions& options, IODebugContext* debug) override {
    return Do([&] { return target()->Close(options, debug); });
  }
  IOStatus Flush(const IOOptions& options, IODebugContext* debug) override {
    return Do([&] { return target()->Flush(options, debug); });
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    return Do([&] { return target()->Sync(options, debug); });
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return Do([&] { return target()->Fsync(options, debug); });
  }
  IOStatus RangeSync(uint64_t offset, uint64_t bytes, const IOOptions& options,
                     IODebugContext* debug) override {
    return Do([&] { return target()->RangeSync(offset, bytes, options, debug); });
  }

 private:
  template <typename Operation>
  IOStatus Do(Operation operation) {
    if (owner_->has_failed()) {
      return is_wal_ ? IOStatus::OK() : IOStatus::IOError("the log of the store has failed");
    }
    IOStatus status = operation();
    if (status.ok() || !is_wal_) return status;
    owner_->NoteWalFailure(status);
    return IOStatus::OK();
  }

  FailStopFiles* const owner_;
  const bool is_wal_;
};

IOStatus FailStopFiles::NewWritableFile(const std::string& path,
                                        const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSWritableFile>* file,
                                        IODebugContext* debug) {
  IOStatus status = FileSystemWrapper::NewWritableFile(path, options, file, debug);
  if (status.ok()) {
    const bool is_wal = std::string_view(path).ends_with(".log");
    *file = std::make_unique<File>(std::move(*file), this, is_wal);
  }
  return status;
}

IOStatus FailStopFiles::wal_failure() const {
  if (!has_failed()) return IOStatus::OK();
  absl::MutexLock lock(&mutex_);
  return failure_;
}

void FailStopFiles::NoteWalFailure(const IOStatus& status) {
  absl::MutexLock lock(&mutex_);
  if (!failure_.ok()) return;
  failure_ = status;
  failed_.store(true, std::memory_order_release);
}

}  // namespace sluice::storage
