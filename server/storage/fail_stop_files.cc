#include "server/storage/fail_stop_files.h"

#include <optional>
#include <utility>

#include "server/storage/wal_room.h"

namespace sluice::storage {

using rocksdb::DataVerificationInfo;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

namespace {

enum class FileKind { kWal, kInfoLog, kOther };

FileKind KindOf(const std::string& path) {
  if (path.ends_with(".log")) return FileKind::kWal;
  const bool is_info_log = path.substr(path.rfind('/') + 1).starts_with("LOG");
  return is_info_log ? FileKind::kInfoLog : FileKind::kOther;
}

}  // namespace

class FailStopFiles::File : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  File(std::unique_ptr<rocksdb::FSWritableFile> file, const std::string& path, FailStopFiles* owner)
      : FSWritableFileOwnerWrapper(std::move(file)), owner_(owner), kind_(KindOf(path)) {
    if (kind_ == FileKind::kWal) room_.emplace(path);
  }

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    return Do([&] {
      if (room_) room_->BeforeAppend(data.size());
      return target()->Append(data, options, debug);
    });
  }
  IOStatus Append(const Slice& data, const IOOptions& options, const DataVerificationInfo& info,
                  IODebugContext* debug) override {
    return Do([&] {
      if (room_) room_->BeforeAppend(data.size());
      return target()->Append(data, options, info, debug);
    });
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
    return Do([&] {
      if (room_ && room_->has_room()) {
        IOStatus status = target()->Truncate(room_->appended(), options, debug);
        if (!status.ok()) return status;
      }
      return target()->Close(options, debug);
    });
  }
  IOStatus Flush(const IOOptions& options, IODebugContext* debug) override {
    return Do([&] { return target()->Flush(options, debug); });
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    if (room_) room_->OnSync();
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
    if (kind_ != FileKind::kInfoLog) return owner_->Do(std::move(operation));
    operation().PermitUncheckedError();
    return IOStatus::OK();
  }

  FailStopFiles* const owner_;
  const FileKind kind_;
  std::optional<WalRoom> room_;  // of a WAL
};

class FailStopFiles::Directory : public rocksdb::FSDirectoryWrapper {
 public:
  Directory(std::unique_ptr<rocksdb::FSDirectory> directory, FailStopFiles* owner)
      : FSDirectoryWrapper(std::move(directory)), owner_(owner) {}

  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return owner_->Do([&] { return FSDirectoryWrapper::Fsync(options, debug); });
  }
  IOStatus FsyncWithDirOptions(const IOOptions& options, IODebugContext* debug,
                               const rocksdb::DirFsyncOptions& how) override {
    return owner_->Do([&] { return FSDirectoryWrapper::FsyncWithDirOptions(options, debug, how); });
  }

 private:
  FailStopFiles* const owner_;
};

IOStatus FailStopFiles::NewWritableFile(const std::string& path,
                                        const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSWritableFile>* file,
                                        IODebugContext* debug) {
  IOStatus status = FileSystemWrapper::NewWritableFile(path, options, file, debug);
  if (status.ok()) *file = std::make_unique<File>(std::move(*file), path, this);
  return status;
}

// The base class writes it through NewWritableFile above; the wrapper would go past it.
IOStatus FailStopFiles::NewLogger(const std::string& path, const IOOptions& options,
                                  std::shared_ptr<rocksdb::Logger>* logger,
                                  IODebugContext* debug) {
  return FileSystem::NewLogger(path, options, logger, debug);
}

// Not being able to delete is no loss, so its failure is nothing to stop for.
IOStatus FailStopFiles::DeleteFile(const std::string& path, const IOOptions& options,
                                   IODebugContext* debug) {
  if (failed_.load(std::memory_order_acquire)) return IOStatus::OK();
  return FileSystemWrapper::DeleteFile(path, options, debug);
}

IOStatus FailStopFiles::RenameFile(const std::string& from, const std::string& to,
                                   const IOOptions& options, IODebugContext* debug) {
  return Do([&] { return FileSystemWrapper::RenameFile(from, to, options, debug); });
}

IOStatus FailStopFiles::NewDirectory(const std::string& path, const IOOptions& options,
                                     std::unique_ptr<rocksdb::FSDirectory>* directory,
                                     IODebugContext* debug) {
  IOStatus status = FileSystemWrapper::NewDirectory(path, options, directory, debug);
  if (status.ok()) *directory = std::make_unique<Directory>(std::move(*directory), this);
  return status;
}

IOStatus FailStopFiles::failure() const {
  if (!failed_.load(std::memory_order_acquire)) return IOStatus::OK();
  absl::MutexLock lock(&mutex_);
  return failure_;
}

void FailStopFiles::NoteFailure(const IOStatus& status) {
  absl::MutexLock lock(&mutex_);
  if (!failure_.ok()) return;
  failure_ = status;
  failed_.store(true, std::memory_order_release);
}

}  // namespace sluice::storage
