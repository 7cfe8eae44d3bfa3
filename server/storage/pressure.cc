#include "server/storage/pressure.h"

#include <algorithm>
#include <utility>

#include "rocksdb/db.h"
#include "rocksdb/metadata.h"
#include "server/base/log.h"
#include "server/base/thread_name.h"
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
// Running compactions are measured, which costs a walk over all files, below this many reserves.
constexpr uint64_t kMeasureBelowReserves = 4;

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

// What the running compactions of `family` read, and so may write before it goes.
uint64_t CompactingBytes(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* family) {
  rocksdb::ColumnFamilyMetaData files;
  db->GetColumnFamilyMetaData(family, &files);
  uint64_t bytes = 0;
  for (const auto& level : files.levels) {
    for (const auto& file : level.files) bytes += file.being_compacted ? file.size : 0;
  }
  return bytes;
}

uint64_t Excess(uint64_t bytes, uint64_t counted) { return bytes - std::min(bytes, counted); }

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
  NameThread("pressure");
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

uint64_t StorePressure::NeededBytes(uint64_t free_bytes) const {
  using Properties = rocksdb::DB::Properties;
  rocksdb::DB* const db = store_->db();
  const StoreSizes& sizes = store_->sizes();
  uint64_t needed = sizes.ReserveBytes();
  const uint64_t unflushed = Property(db, store_->messages(), Properties::kCurSizeAllMemTables) +
                             Property(db, store_->meta(), Properties::kCurSizeAllMemTables);
  needed += Excess(unflushed, sizes.memtables_bytes_max);
  if (free_bytes < needed * kMeasureBelowReserves &&
      Property(db, store_->messages(), Properties::kNumRunningCompactions) > 0) {
    needed += Excess(CompactingBytes(db, store_->messages()), sizes.compaction_bytes_max);
  }
  return needed;
}

void StorePressure::PollDisk() {
  const std::optional<DiskSpace> disk = options_.disk ? options_.disk() : AskFileSystem(options_.dir);
  if (!disk) return;
  const uint64_t reserve =
      std::max(options_.disk_reserve_bytes.value_or(0), NeededBytes(disk->free_bytes));
  const uint64_t needed = disk_is_full_ ? reserve + reserve / kResumeShareDivisor : reserve;
  const bool is_full = disk->free_bytes < needed;
  if (is_full == disk_is_full_) return;
  disk_is_full_ = is_full;
  // Merging files takes space before it gives any back; what is settled goes without it. A failure
  // only means that the reserve has to do for one more.
  store_->db()
      ->SetOptions(store_->messages(), {{"disable_auto_compactions", is_full ? "true" : "false"}})
      .PermitUncheckedError();
  Log(is_full ? LogLevel::kWarning : LogLevel::kInfo,
      is_full ? "the disk is nearly full: publishes are refused until there is space"
              : "there is space on the disk again: publishes are taken",
      {{"free_bytes", disk->free_bytes}, {"reserve_bytes", reserve}, {"data_dir", options_.dir}});
}

}  // namespace sluice::storage
