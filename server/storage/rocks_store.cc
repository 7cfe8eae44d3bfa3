#include "server/storage/rocks_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "rocksdb/cache.h"
#include "rocksdb/convenience.h"
#include "rocksdb/db.h"
#include "rocksdb/env.h"
#include "rocksdb/filter_policy.h"
#include "rocksdb/slice_transform.h"
#include "rocksdb/table.h"
#include "server/base/strings.h"
#include "server/model/error.h"
#include "server/storage/compression_choice.h"
#include "server/storage/fail_stop_files.h"
#include "server/storage/index_filter.h"
#include "server/storage/page_builder.h"
#include "server/storage/reclaimer.h"
#include "server/storage/rocks_status.h"
#include "server/storage/rows.h"
#include "server/storage/settled_filter.h"
#include "server/storage/wal_scan.h"

namespace sluice::storage {
namespace {

constexpr char kMessagesFamily[] = "msg";
constexpr char kMetaFamily[] = "meta";
constexpr char kIndexFamily[] = "index";

// Meta rows pin the WAL until they are flushed; flushing them early is cheap and keeps it short.
constexpr uint64_t kMetaMemtableBytes = 8 * kMiB;
// An index row is small: this holds a few hundred thousand, of which those that are settled before
// the flush never reach a file.
constexpr uint64_t kIndexMemtableBytes = 16 * kMiB;
// About 1 % of lookups of an absent key then read a block in vain.
constexpr double kIndexBloomBitsPerKey = 10;
// Files of sequential rows are moved and not rewritten, so that the filter would never see them:
// one this old is rewritten anyway.
constexpr uint64_t kIndexRewriteSeconds = 60 * 60;
constexpr uint64_t kMetaMemtableShareDivisor = 2;  // of all memtables, where they are small
constexpr int kMemtablesPerFamily = 4;
// The first level below the flushed files holds this many of their size.
constexpr uint64_t kBaseLevelMemtables = 4;
// Evens out what one sync has to wait for (+5 to +12 % throughput measured).
constexpr uint64_t kWalBytesPerSync = 256 * kKiB;
constexpr uint64_t kFileBytesPerSync = 1 * kMiB;
constexpr uint64_t kBlockBytes = 16 * kKiB;
constexpr int kBackgroundJobs = 2;  // one flush, one compaction
constexpr uint64_t kInfoLogBytesMax = 4 * kMiB;
constexpr size_t kInfoLogFiles = 4;
// Keys that one MultiGet looks up: bounds the blocks that it pins.
constexpr size_t kKeysPerGetMax = 128;
// From this many settled messages in a row a seek is cheaper than stepping over them.
constexpr Seq kSeekOver = 16;

std::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

rocksdb::Slice ToSlice(const std::array<char, kMessageKeyBytes>& key) {
  return {key.data(), key.size()};
}

rocksdb::Env* EnvOf(const RocksOptions& options) {
  return options.env ? options.env : rocksdb::Env::Default();
}

// RocksDB tells why only in words: this process holds the lock, or another does.
bool IsHeldLock(const std::string& why) {
  return why.find("lock hold by current process") != std::string::npos ||
         (why.find("While lock file") != std::string::npos &&
          (why.find(std::strerror(EAGAIN)) != std::string::npos ||
           why.find(std::strerror(EACCES)) != std::string::npos));
}

absl::Status CannotLock(const std::string& dir, const rocksdb::Status& status) {
  const std::string why = status.ToString();
  if (IsHeldLock(why)) {
    return absl::FailedPreconditionError(
        absl::StrCat("another sluiced is using ", dir,
                     ": stop it first, or give this one its own data directory"));
  }
  return MakeError(ErrorReason::kStoreFailed,
                   absl::StrCat("the data directory ", dir, " cannot be written to (", why,
                                "): check its owner, its permissions and how it is mounted"));
}

// Messages that one point read asks for.
constexpr size_t kMessagesPerGet = 32;

// The directory's name must survive a power loss as well as what is in it.
absl::Status MakeDir(const std::string& dir) {
  std::error_code error;
  if (!std::filesystem::create_directories(dir, error) && error) {
    return MakeError(ErrorReason::kStoreFailed,
                     absl::StrCat("cannot make directory ", dir, ": ", error.message()));
  }
  const std::string parent =
      std::filesystem::absolute(std::filesystem::path(dir) / "", error).parent_path().parent_path();
  const int fd = open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  // A parent that we may not read was made by somebody else.
  if (fd < 0) return absl::OkStatus();
  const bool synced = fsync(fd) == 0;
  close(fd);
  if (!synced) {
    return MakeError(ErrorReason::kStoreFailed, absl::StrCat("cannot sync directory ", parent));
  }
  return absl::OkStatus();
}

// A server that is running writes to its WAL: it must be told apart from a damaged one.
absl::Status CheckNotInUse(const RocksOptions& options) {
  rocksdb::FileLock* lock = nullptr;
  rocksdb::Env* env = EnvOf(options);
  const rocksdb::Status status = env->LockFile(options.dir + "/LOCK", &lock);
  if (!status.ok()) return CannotLock(options.dir, status);
  env->UnlockFile(lock);
  return absl::OkStatus();
}

// The log is replayed into files before it is dropped.
absl::Status DiskFull(const std::string& dir, const rocksdb::Status& status) {
  uint64_t log_bytes = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code gone;
    const uint64_t bytes = it->path().extension() == ".log" ? it->file_size(gone) : 0;
    if (!gone) log_bytes += bytes;
  }
  const auto disk = AskFileSystem(dir);
  return MakeError(ErrorReason::kStorageFull,
                   absl::StrCat("the disk of ", dir, " is too full to open the store: about ",
                                log_bytes / kMiB + 1, " MiB must be written and ",
                                disk ? disk->free_bytes / kMiB : 0,
                                " MiB are free. Nothing is lost; make room (",
                                status.ToString(), ")"));
}

// A lane's rows are inserted in the order of their keys. Where many lanes take turns, it pays to
// remember where in the memtable each has come; rows without a lane do not take part.
std::shared_ptr<const rocksdb::SliceTransform> LaneOfKeys(size_t bytes) {
  return std::shared_ptr<const rocksdb::SliceTransform>(rocksdb::NewFixedPrefixTransform(bytes));
}

// The same of meta rows. Longer keys, with which LocalLog has range deletions begin, have none.
class MetaLaneOfKeys : public rocksdb::SliceTransform {
 public:
  const char* Name() const override { return "sluice.meta_lane"; }
  rocksdb::Slice Transform(const rocksdb::Slice& key) const override {
    return {key.data(), kMetaLaneBytes};
  }
  bool InDomain(const rocksdb::Slice& key) const override {
    return key.size() == kMetaLaneBytes || key.size() == kMetaRowOfLaneKeyBytes;
  }
};

rocksdb::DBOptions DbOptions(const RocksOptions& options, rocksdb::Env* env) {
  rocksdb::DBOptions db;
  db.env = env;
  db.create_if_missing = true;
  db.create_missing_column_families = true;
  db.paranoid_checks = true;
  db.max_total_wal_size = options.sizes.wal_bytes_max;
  db.db_write_buffer_size = options.sizes.memtables_bytes_max;
  db.wal_bytes_per_sync = kWalBytesPerSync;
  db.bytes_per_sync = kFileBytesPerSync;
  // Buffered flushes made SyncWAL wait up to 190 ms.
  db.use_direct_io_for_flush_and_compaction = true;
  db.max_background_jobs = kBackgroundJobs;
  // A crash tears unsynced records, also in the middle of them: everything from the first torn one
  // on is dropped. That nothing durable is among it has been checked by ScanWal.
  db.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  // A log file that was synced and is not the newest must be there at the next start, and as long.
  db.track_and_verify_wals_in_manifest = true;
  // A failed write or sync ends the term; nothing may retry behind our back.
  db.max_bgerror_resume_count = 0;
  db.max_log_file_size = kInfoLogBytesMax;
  db.keep_log_file_num = kInfoLogFiles;
  db.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  db.stats_dump_period_sec = 0;
  db.stats_persist_period_sec = 0;
  return db;
}

std::vector<rocksdb::ColumnFamilyDescriptor> Families(
    const RocksOptions& options, const std::shared_ptr<const SettledIndex>& settled) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(options.block_cache_bytes);
  table.block_size = kBlockBytes;
  // Otherwise the indexes of a deep backlog would stay in memory, unbounded.
  table.cache_index_and_filter_blocks = true;
  rocksdb::ColumnFamilyOptions meta;
  meta.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  meta.write_buffer_size =
      std::min(kMetaMemtableBytes, options.sizes.memtables_bytes_max / kMetaMemtableShareDivisor);
  meta.max_write_buffer_number = kMemtablesPerFamily;
  meta.compression = rocksdb::kNoCompression;  // few and small
  meta.memtable_insert_with_hint_prefix_extractor = std::make_shared<MetaLaneOfKeys>();
  rocksdb::ColumnFamilyOptions messages = meta;
  messages.memtable_insert_with_hint_prefix_extractor = LaneOfKeys(kMessageLaneBytes);
  messages.write_buffer_size = options.sizes.message_memtable_bytes;
  messages.target_file_size_base = options.sizes.message_memtable_bytes;
  messages.max_bytes_for_level_base = options.sizes.message_memtable_bytes * kBaseLevelMemtables;
  messages.max_compaction_bytes = options.sizes.compaction_bytes_max;
  messages.compression = FastCompression();
  messages.sample_for_compression = kBlocksPerSample;
  messages.compaction_filter_factory = std::make_shared<SettledFilterFactory>(settled);
  // Most deduplication ids have not been seen before: the filter says so without a read.
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(kIndexBloomBitsPerKey));
  table.whole_key_filtering = true;
  rocksdb::ColumnFamilyOptions index = meta;
  index.memtable_insert_with_hint_prefix_extractor = nullptr;
  index.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  index.write_buffer_size = kIndexMemtableBytes;
  index.compression = FastCompression();
  index.compaction_filter_factory = std::make_shared<IndexFilterFactory>(settled);
  index.periodic_compaction_seconds = kIndexRewriteSeconds;
  return {{rocksdb::kDefaultColumnFamilyName, {}},
          {kMessagesFamily, messages},
          {kMetaFamily, meta},
          {kIndexFamily, index}};
}

}  // namespace

RocksStore::RocksStore(const RocksOptions& options)
    : options_(options),
      settled_(std::make_shared<SettledIndex>(options.shard)),
      files_(std::make_shared<FailStopFiles>(EnvOf(options)->GetFileSystem())),
      env_(rocksdb::NewCompositeEnv(files_)),
      compression_(std::make_shared<CompressionChoice>(kMessagesFamily, FastCompression())) {}

RocksStore::~RocksStore() {
  reclaimer_.reset();
  if (!db_) return;
  for (rocksdb::ColumnFamilyHandle* handle : handles_) db_->DestroyColumnFamilyHandle(handle);
  // What matters has been synced; there is nobody left to tell of an error.
  db_->Close().PermitUncheckedError();
  delete db_;
}

absl::StatusOr<std::unique_ptr<RocksStore>> RocksStore::Open(const RocksOptions& wanted) {
  if (absl::Status status = MakeDir(wanted.dir); !status.ok()) return status;
  RocksOptions options = wanted;
  std::optional<uint64_t> disk_bytes = options.disk_bytes;
  if (!disk_bytes) {
    if (const auto disk = AskFileSystem(options.dir)) disk_bytes = disk->total_bytes;
  }
  if (disk_bytes) {
    auto sizes = FitToDisk(options.sizes, *disk_bytes, options.dir);
    if (!sizes.ok()) return sizes.status();
    options.sizes = *sizes;
  }
  if (absl::Status status = CheckNotInUse(options); !status.ok()) return status;
  const auto scan = ScanWal(options.dir);
  if (!scan.ok()) return scan.status();
  if (!scan->damaged_start.empty()) {
    // Only the files can tell whether they hold what the damaged records held.
    rocksdb::DB* raw = nullptr;
    rocksdb::Options read_only(DbOptions(options, EnvOf(options)), {});
    const rocksdb::Status opened = rocksdb::DB::OpenForReadOnly(read_only, options.dir, &raw);
    const std::unique_ptr<rocksdb::DB> db(raw);
    if (!opened.ok()) return FromRocks(opened, "checking the store");
    if (db->GetLatestSequenceNumber() < scan->durable_store_seq) {
      return WalDamage(scan->damaged_start);
    }
  }
  if (!scan->gap_path.empty()) {
    if (absl::Status status = EndWalAt(scan->gap_path, scan->gap_offset); !status.ok()) {
      return status;
    }
  }
  std::unique_ptr<RocksStore> store(new RocksStore(options));
  if (absl::Status status = store->OpenDb(); !status.ok()) return status;
  if (absl::Status status = store->LoadSettled(scan->durable_store_seq); !status.ok()) {
    return status;
  }
  store->reclaimer_ = std::make_unique<Reclaimer>(store.get(), options);
  return store;
}

absl::Status RocksStore::OpenDb() {
  rocksdb::DBOptions db_options = DbOptions(options_, env_.get());
  db_options.listeners.push_back(compression_);
  rocksdb::Status status = rocksdb::DB::Open(
      db_options, options_.dir, Families(options_, settled_), &handles_, &db_);
  if (!status.ok()) db_ = nullptr;
  // What RocksDB says was not told of a failure of the disk, and so does not count.
  if (rocksdb::IOStatus failed = files_->failure(); !failed.ok()) status = failed;
  if (!status.ok()) {
    if (status.IsIOError() && IsHeldLock(status.ToString())) {
      return CannotLock(options_.dir, status);
    }
    if (status.IsNoSpace()) return DiskFull(options_.dir, status);
    return FromRocks(status, absl::StrCat("opening ", options_.dir));
  }
  messages_ = handles_[1];
  meta_ = handles_[2];
  index_ = handles_[3];
  return absl::OkStatus();
}

absl::Status RocksStore::LoadSettled(uint64_t durable_store_seq) {
  const uint64_t store_seq = db_->GetLatestSequenceNumber();
  if (store_seq < durable_store_seq) {
    return MakeError(ErrorReason::kDataDamaged,
                     absl::StrCat("the store in ", options_.dir, " ends at ", store_seq,
                                  " although ", durable_store_seq,
                                  " was durable: restore the data directory from a backup"));
  }
  const absl::Status status = ScanMeta([this](std::string_view key, std::string_view value) {
    return settled_->LoadRow(key, value);
  });
  if (!status.ok()) return status;
  settled_->FinishLoad(store_seq);
  return absl::OkStatus();
}

absl::Status RocksStore::ScanMeta(
    absl::FunctionRef<absl::Status(std::string_view key, std::string_view value)> row) {
  rocksdb::ReadOptions read;
  read.fill_cache = false;
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(read, meta_));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const absl::Status status = row(ToView(it->key()), ToView(it->value()));
    if (!status.ok()) return status;
  }
  return FromRocks(it->status(), "reading the meta rows");
}

absl::StatusOr<std::vector<StoredMessage>> RocksStore::ReadMessages(const ReadRange& range) {
  PageBuilder page(range);
  SettledLane lane;
  const SettledIndex::Verdict verdict =
      settled_->Copy(options_.shard, range.qid, range.lane, &lane);
  const auto skip = [&](Seq seq) {
    return verdict == SettledIndex::Verdict::kLane ? lane.NextUnsettled(seq) : seq;
  };
  const auto begin = MessageKey({options_.shard, range.qid, range.lane, skip(range.begin)});
  const auto end = MessageKey({options_.shard, range.qid, range.lane, range.end});
  const rocksdb::Slice lower = ToSlice(begin);
  const rocksdb::Slice upper = ToSlice(end);
  if (lower.compare(upper) >= 0) return page.Take();
  rocksdb::ReadOptions read;
  read.iterate_lower_bound = &lower;
  read.iterate_upper_bound = &upper;
  // Messages are read once; they must not push the indexes out.
  read.fill_cache = false;
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(read, messages_));
  it->Seek(lower);
  while (it->Valid() && !page.Full()) {
    const auto position = ParseMessageKey(ToView(it->key()));
    if (!position) return MakeError(ErrorReason::kDataDamaged, "a message's key is garbled");
    const Seq next = skip(position->seq);
    if (next >= position->seq + kSeekOver) {
      it->Seek(ToSlice(MessageKey({options_.shard, range.qid, range.lane, next})));
      continue;
    }
    if (next == position->seq) {
      const absl::Status status = page.Add(position->seq, ToView(it->value()));
      if (!status.ok()) return status;
    }
    it->Next();
  }
  if (!it->status().ok()) return ReadError(it->status());
  return page.Take();
}

absl::Status RocksStore::GetEach(rocksdb::ColumnFamilyHandle* family,
                                 const std::vector<std::string_view>& keys,
                                 absl::FunctionRef<absl::Status(size_t, std::string_view)> row) {
  std::array<rocksdb::Slice, kKeysPerGetMax> slices;
  std::array<rocksdb::PinnableSlice, kKeysPerGetMax> values;
  std::array<rocksdb::Status, kKeysPerGetMax> statuses;
  for (size_t first = 0; first < keys.size(); first += kKeysPerGetMax) {
    const size_t count = std::min(keys.size() - first, kKeysPerGetMax);
    for (size_t i = 0; i < count; ++i) {
      slices[i] = rocksdb::Slice(keys[first + i].data(), keys[first + i].size());
      values[i].Reset();
    }
    db_->MultiGet(rocksdb::ReadOptions(), family, count, slices.data(), values.data(),
                  statuses.data());
    for (size_t i = 0; i < count; ++i) {
      if (statuses[i].IsNotFound()) continue;
      if (!statuses[i].ok()) return ReadError(statuses[i]);
      const absl::Status status = row(first + i, ToView(values[i]));
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<StoredMessage>> RocksStore::ReadMessagesAt(
    QueueId qid, Lane lane, const std::vector<Seq>& seqs, uint64_t bytes_max, size_t* seqs_read) {
  std::vector<StoredMessage> messages;
  uint64_t bytes = 0;
  *seqs_read = 0;
  while (*seqs_read < seqs.size() && (*seqs_read == 0 || bytes < bytes_max)) {
    // One call for a few: large messages would otherwise come in together, whatever the limit.
    const size_t begin = *seqs_read;
    const size_t count = std::min(seqs.size() - begin, kMessagesPerGet);
    std::array<std::array<char, kMessageKeyBytes>, kMessagesPerGet> key_bytes;
    std::vector<std::string_view> keys;
    for (size_t i = 0; i < count; ++i) {
      key_bytes[i] = MessageKey({options_.shard, qid, lane, seqs[begin + i]});
      keys.emplace_back(key_bytes[i].data(), key_bytes[i].size());
    }
    const absl::Status status =
        GetEach(messages_, keys, [&](size_t i, std::string_view value) -> absl::Status {
          auto message = ToStored(seqs[begin + i], value);
          if (!message.ok()) return message.status();
          bytes += message->payload.size();
          messages.push_back(*std::move(message));
          return absl::OkStatus();
        });
    if (!status.ok()) return status;
    *seqs_read += count;
  }
  return messages;
}

absl::StatusOr<std::vector<IndexRow>> RocksStore::ScanIndex(std::string_view begin,
                                                            std::string_view end,
                                                            uint32_t rows_max) {
  std::vector<IndexRow> rows;
  if (begin >= end) return rows;
  const rocksdb::Slice lower(begin.data(), begin.size());
  const rocksdb::Slice upper(end.data(), end.size());
  rocksdb::ReadOptions read;
  read.iterate_lower_bound = &lower;
  read.iterate_upper_bound = &upper;
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(read, index_));
  for (it->Seek(lower); it->Valid() && rows.size() < rows_max; it->Next()) {
    rows.push_back({it->key().ToString(), it->value().ToString()});
  }
  if (!it->status().ok()) return ReadError(it->status());
  return rows;
}

absl::StatusOr<std::vector<std::optional<std::string>>> RocksStore::GetRows(
    rocksdb::ColumnFamilyHandle* family, const std::vector<std::string>& keys) {
  std::vector<std::optional<std::string>> values(keys.size());
  const absl::Status status = GetEach(family, {keys.begin(), keys.end()},
                                      [&](size_t i, std::string_view value) -> absl::Status {
                                        values[i].emplace(value);
                                        return absl::OkStatus();
                                      });
  if (!status.ok()) return status;
  return values;
}

absl::StatusOr<std::vector<std::optional<std::string>>> RocksStore::GetIndex(
    const std::vector<std::string>& keys) {
  return GetRows(index_, keys);
}

absl::StatusOr<std::vector<std::optional<std::string>>> RocksStore::GetMeta(
    const std::vector<std::string>& keys) {
  return GetRows(meta_, keys);
}

absl::Status RocksStore::ReadError(const rocksdb::Status& status) const {
  // A file that could not be written reads as if it were damaged.
  if (absl::Status failed = Failure(); !failed.ok()) return failed;
  return FromRocks(status, "reading messages");
}

RocksStats RocksStore::Stats() const {
  RocksStats stats;
  std::error_code error;
  for (std::filesystem::directory_iterator it(options_.dir, error), end; !error && it != end;
       it.increment(error)) {
    // A file may be removed between the listing and here.
    std::error_code gone;
    const uint64_t bytes = it->file_size(gone);
    if (!gone) stats.disk_bytes += bytes;
  }
  stats.reclaimed_bytes = reclaimer_->reclaimed_bytes();
  db_->GetAggregatedIntProperty(rocksdb::DB::Properties::kSizeAllMemTables, &stats.memtable_bytes);
  db_->GetIntProperty(messages_, rocksdb::DB::Properties::kNumImmutableMemTable,
                      &stats.immutable_memtables);
  db_->GetAggregatedIntProperty(rocksdb::DB::Properties::kEstimatePendingCompactionBytes,
                                &stats.pending_compaction_bytes);
  return stats;
}

absl::Status RocksStore::Failure() const {
  return FromRocks(files_->failure(), "writing");
}

void RocksStore::ChooseCompression() {
  // If it cannot be, files are written as before; the store hears of a disk that fails in other ways.
  compression_->Apply(db_, messages_).PermitUncheckedError();
}

absl::Status RocksStore::ReclaimNow() { return reclaimer_->RunOnce(); }

}  // namespace sluice::storage
