#include "server/storage/local_log.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rocksdb/db.h"
#include "rocksdb/write_batch.h"
#include "server/base/strings.h"
#include "server/base/thread_name.h"
#include "server/model/error.h"
#include "server/storage/rocks_status.h"
#include "server/storage/wal_record.h"

namespace sluice::storage {
namespace {

constexpr double kNsPerSecond = 1e9;

rocksdb::Slice ToSlice(std::string_view s) { return {s.data(), s.size()}; }

class Converter : public Batch::Visitor {
 public:
  Converter(const RocksStore& store, rocksdb::WriteBatch* out) : store_(store), out_(out) {}

  void OnPut(Family family, std::string_view key, std::string_view value) override {
    if (family == Family::kMessages) {
      messages_.push_back({key, value});
    } else {
      Note(out_->Put(HandleOf(family), ToSlice(key), ToSlice(value)));
    }
  }
  void OnDelete(Family family, std::string_view key) override {
    Note(out_->Delete(HandleOf(family), ToSlice(key)));
  }
  // RocksDB keeps the memtable's hints for rows and for range deletions in one map, by the prefix of
  // the key, though they are of two lists: a range that begins with a key which has a prefix would
  // be put in with a hint of the wrong list. So it begins with the next key, which is too long for
  // one (MetaLaneOfKeys), and the first row goes by itself.
  void OnDeleteMetaRange(std::string_view begin, std::string_view end) override {
    if (begin.size() == kMetaRowOfLaneKeyBytes) {
      Note(out_->Delete(store_.meta(), ToSlice(begin)));
      successor_.assign(begin).push_back('\0');
      begin = successor_;
    }
    Note(out_->DeleteRange(store_.meta(), ToSlice(begin), ToSlice(end)));
  }
  // Messages go last, in order of their keys, whatever queues took turns in the batch: each is then
  // inserted near the one before. A message has but one row ever, so that no order is lost.
  void PutMessages() {
    const auto by_key = [](const Message& a, const Message& b) { return a.key < b.key; };
    if (!std::is_sorted(messages_.begin(), messages_.end(), by_key)) {
      std::sort(messages_.begin(), messages_.end(), by_key);
    }
    for (const Message& message : messages_) {
      Note(out_->Put(store_.messages(), ToSlice(message.key), ToSlice(message.value)));
    }
  }
  rocksdb::Status status;

 private:
  struct Message {
    std::string_view key;
    std::string_view value;
  };
  rocksdb::ColumnFamilyHandle* HandleOf(Family family) const {
    switch (family) {
      case Family::kMessages: return store_.messages();
      case Family::kMeta: return store_.meta();
      case Family::kIndex: return store_.index();
    }
    return nullptr;
  }
  void Note(rocksdb::Status row) {
    if (status.ok()) status = std::move(row);
  }
  const RocksStore& store_;
  rocksdb::WriteBatch* const out_;
  std::vector<Message> messages_;
  std::string successor_;
};

// Whatever went wrong, the outcome of a batch is unknown: that is what its senders have to hear.
absl::Status TermOver(const absl::Status& cause) {
  return MakeError(ErrorReason::kStoreFailed, ToStd(cause.message()));
}

absl::Status StoppedError() {
  return MakeError(ErrorReason::kStoreFailed, "the log has been stopped");
}

}  // namespace

LocalLog::LocalLog(RocksStore* store, LogObserver* observer, const LocalLogOptions& options)
    : store_(store), observer_(observer), options_(options) {
  {
    absl::MutexLock lock(&mutex_);
    synced_store_seq_ = named_store_seq_ = store->db()->GetLatestSequenceNumber();
  }
  writer_ = std::thread([this] { WriteLoop(); });
  syncer_ = std::thread([this] { SyncLoop(); });
}

LocalLog::~LocalLog() { Stop(); }

void LocalLog::Append(Batch batch, Done done) {
  {
    absl::MutexLock lock(&mutex_);
    if (!stopping_) {
      appended_.push_back({std::move(batch), std::move(done)});
      return;
    }
  }
  done(StoppedError());
}

void LocalLog::Stop() {
  absl::MutexLock stop_lock(&stop_mutex_);
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (writer_.joinable()) writer_.join();
  if (syncer_.joinable()) syncer_.join();
}

bool LocalLog::MarkerDue() const {
  return failure_.ok() && synced_store_seq_ > named_store_seq_;
}

bool LocalLog::TakeAppended(Entries* entries) {
  absl::MutexLock lock(&mutex_);
  // A stop waits for what is under way, so that it ends with a marker.
  const auto ready = [this] {
    mutex_.AssertReaderHeld();
    return !appended_.empty() || (stopping_ && written_.empty() && !syncing_);
  };
  // What becomes durable meanwhile wakes nobody, as that would be once for each sync: it is looked
  // at when the time is over.
  while (!ready()) {
    if (written_.empty() && !syncing_ && !MarkerDue()) {
      mutex_.Await(absl::Condition(&ready));
    } else if (!mutex_.AwaitWithTimeout(absl::Condition(&ready), options_.idle_marker_after) &&
               MarkerDue()) {
      break;
    }
  }
  entries->swap(appended_);
  if (!entries->empty()) return true;
  if (MarkerDue()) {
    BatchHeader header = last_header_;
    header.lsn = header.durable_lsn = synced_lsn_;
    Entry marker;
    marker.batch.SetHeader(header);
    entries->push_back(std::move(marker));
    return true;
  }
  return !stopping_ || !written_.empty() || syncing_;
}

absl::Status LocalLog::Write(Entry* entry) {
  uint64_t durable_store_seq = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (!failure_.ok()) return failure_;
    durable_store_seq = named_store_seq_ = synced_store_seq_;
  }
  if (absl::Status failed = store_->Failure(); !failed.ok()) return failed;
  const Batch& batch = entry->batch;
  last_header_ = batch.header();
  // RocksDB stores lengths in fewer bytes than we do; its header and our note are on top.
  rocksdb::WriteBatch rows(batch.bytes() + 2 * kWalNoteBytes);
  const auto note = WalNote(batch, durable_store_seq);
  rocksdb::Status status = rows.PutLogData(rocksdb::Slice(note.data(), note.size()));
  Converter converter(*store_, &rows);
  BatchHeader header;
  if (absl::Status garbled = Batch::Visit(batch.record(), &header, &converter); !garbled.ok()) {
    return garbled;
  }
  converter.PutMessages();
  if (status.ok()) status = converter.status;
  if (status.ok()) status = store_->db()->Write(rocksdb::WriteOptions(), &rows);
  if (absl::Status failed = store_->Failure(); !failed.ok()) return failed;
  if (!status.ok()) return FromRocks(status, "writing a batch");
  entry->store_seq = store_->db()->GetLatestSequenceNumber();
  return absl::OkStatus();
}

void LocalLog::WriteLoop() {
  NameThread("log-writer");
  Entries entries;
  while (TakeAppended(&entries)) {
    uint64_t bytes = 0;
    const uint64_t batches = entries.size();
    for (Entry& entry : entries) {
      bytes += entry.batch.bytes();
      absl::Status status = Write(&entry);
      absl::MutexLock lock(&mutex_);
      if (!status.ok() && failure_.ok()) failure_ = TermOver(status);
      // A failed one takes the same way, so that `done` keeps its order.
      written_.push_back(std::move(entry));
    }
    entries.clear();
    if (observer_) observer_->OnWrite(batches, bytes);
  }
  absl::MutexLock lock(&mutex_);
  writer_ended_ = true;
}

absl::Status LocalLog::SyncAndApply(const Entries& entries) {
  const int64_t start_ns = options_.clock->MonotonicNs();
  if (absl::Status failed = store_->Failure(); !failed.ok()) return failed;
  const rocksdb::Status synced = store_->db()->SyncWAL();
  // One that RocksDB was not told of, or of a write meanwhile: either way nothing is known.
  if (absl::Status failed = store_->Failure(); !failed.ok()) return failed;
  if (!synced.ok()) return FromRocks(synced, "syncing the WAL");
  if (observer_) {
    observer_->OnSync(static_cast<double>(options_.clock->MonotonicNs() - start_ns) / kNsPerSecond);
  }
  for (const Entry& entry : entries) {
    if (!entry.done) continue;
    absl::Status status = store_->settled()->Apply(entry.batch.record(), entry.store_seq);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void LocalLog::SyncLoop() {
  NameThread("log-syncer");
  Entries entries;
  while (true) {
    absl::Status status;
    {
      absl::MutexLock lock(&mutex_);
      const auto ready = [this] {
        mutex_.AssertReaderHeld();
        return !written_.empty() || (stopping_ && writer_ended_);
      };
      mutex_.Await(absl::Condition(&ready));
      if (written_.empty()) return;
      entries.swap(written_);
      syncing_ = true;
      status = failure_;
    }
    if (status.ok()) status = SyncAndApply(entries);
    {
      absl::MutexLock lock(&mutex_);
      syncing_ = false;
      if (!status.ok()) {
        if (failure_.ok()) failure_ = TermOver(status);
        status = failure_;
      } else {
        synced_store_seq_ = entries.back().store_seq;
        synced_lsn_ = entries.back().batch.header().lsn;
      }
    }
    // Told after the state above: whoever hears of an lsn may rely on it being named later.
    for (Entry& entry : entries) {
      if (entry.done) entry.done(status);
    }
    entries.clear();
  }
}

}  // namespace sluice::storage
