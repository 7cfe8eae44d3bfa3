#include "server/storage/pressure.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <utility>

#include "rocksdb/db.h"
#include "server/base/log.h"
#include "server/storage/rocks_store.h"

namespace sluice::storage {
namespace {

// RocksDB slows every write down at max_write_buffer_number less this many full memtables.
constexpr uint64_t kMemtablesBelowStop = 1;
// Of the memtable that would bring the slowdown when it is full.
constexpr uint64_t kMemtableShareDivisor = 2;
// Files in the first level, as a share of those that bring the slowdown: 3/4 leaves some flushes.
constexpr uint64_t kFilesShareDividend = 3;
constexpr uint64_t kFilesShareDivisor = 4;
// Bytes that compaction is behind, as a share of those that bring the slowdown.
constexpr uint64_t kPendingShareDivisor = 2;
// Once refused, publishes are taken again when this share of the reserve is free on top of it, so
// that the answer does not change with every file.
constexpr uint64_t kResumeShareDivisor = 8;

std::optional<DiskSpace> AskFileSystem(const std::string& dir) {
  struct statvfs stats;
  if (statvfs(dir.c_str(), &stats) != 0) return std::nullopt;
  return DiskSpace{uint64_t{stats.f_blocks} * stats.f_frsize,
                   uint64_t{stats.f_bavail} * stats.f_frsize};
}

uint64_t Property(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* family, const std::string& name) {
  uint64_t value = 0;
  return db->GetIntProperty(family, name, &value) ? value : 0;
}

// RocksDB is about to slow down every write because of this family.
bool IsNearSlowdown(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* family) {
  using Properties = rocksdb::DB::Properties;
  const rocksdb::Options options = db->GetOptions(family);
  const uint64_t slow_memtables =
      static_cast<uint64_t>(options.max_write_buffer_number) - kMemtablesBelowStop;
  const uint64_t full = Property(db, family, Properties::kNumImmutableMemTable);
  if (full >= slow_memtables) return true;
  if (full + 1 == slow_memtables && Property(db, family, Properties::kCurSizeActiveMemTable) >=
                                        options.write_buffer_size / kMemtableShareDivisor) {
    return true;
  }
  const uint64_t slow_files = static_cast<uint64_t>(options.level0_slowdown_writes_trigger);
  if (Property(db, family, Properties::kNumFilesAtLevelPrefix + "0") * kFilesShareDivisor >=
      slow_files * kFilesShareDividend) {
    return true;
  }
  return Property(db, family, Properties::kEstimatePendingCompactionBytes) >=
         options.soft_pending_compaction_bytes_limit / kPendingShareDivisor;
}

}  // namespace

StorePressure::StorePressure(const RocksStore* store, PressureOptions options)
    : store_(store), options_(std::move(options)) {
  Poll();
  thread_ = std::thread([this] { Loop(); });
}

StorePressure::~StorePressure() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void StorePressure::Loop() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), options_.period)) return;
    }
    Poll();
  }
}

void StorePressure::Poll() {
  absl::MutexLock lock(&poll_mutex_);
  PollDisk();
  Pressure pressure = Pressure::kNone;
  if (disk_is_full_) {
    pressure = Pressure::kRefuse;
  } else if (IsNearSlowdown(store_->db(), store_->messages()) ||
             IsNearSlowdown(store_->db(), store_->meta()) ||
             IsNearSlowdown(store_->db(), store_->index())) {
    pressure = Pressure::kThrottle;
  }
  pressure_.store(pressure, std::memory_order_relaxed);
}

void StorePressure::PollDisk() {
  const std::optional<DiskSpace> disk = options_.disk ? options_.disk() : AskFileSystem(options_.dir);
  if (!disk) return;
  const uint64_t reserve = options_.disk_reserve_bytes.value_or(
      std::min(kDiskReserveDefaultMax, disk->total_bytes / kDiskReserveDefaultDivisor));
  const uint64_t needed = disk_is_full_ ? reserve + reserve / kResumeShareDivisor : reserve;
  const bool is_full = disk->free_bytes < needed;
  if (is_full == disk_is_full_) return;
  disk_is_full_ = is_full;
  Log(is_full ? LogLevel::kWarning : LogLevel::kInfo,
      is_full ? "the disk is nearly full: publishes are refused until there is space"
              : "there is space on the disk again: publishes are taken",
      {{"free_bytes", disk->free_bytes}, {"reserve_bytes", reserve}, {"data_dir", options_.dir}});
}

}  // namespace sluice::storage
