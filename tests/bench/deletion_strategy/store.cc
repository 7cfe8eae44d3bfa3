#include "store.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <utility>

#include "rocksdb/options.h"
#include "rocksdb/table.h"

namespace sluice::bench {
namespace {

// Enough to keep the write thread busy during a sync, few enough to bound memory.
constexpr size_t kBatchesInFlightMax = 16;
constexpr uint64_t kBodyPoolBytes = 4 << 20;
constexpr uint64_t kBodyStride = 64;
constexpr uint64_t kMetaMemtableBytes = 8 << 20;
constexpr uint64_t kStatBlockBytes = 512;

}  // namespace

CommitLoop::CommitLoop(rocksdb::DB* db, Strategy* strategy)
    : db_(db), strategy_(strategy), writer_([this] { Write(); }), syncer_([this] { Sync(); }) {}

CommitLoop::~CommitLoop() {
  Drain();
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  writer_.join();
  syncer_.join();
}

void CommitLoop::Submit(std::unique_ptr<Batch> batch) {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(
      +[](CommitLoop* self) { return self->in_flight_ < kBatchesInFlightMax; }, this));
  ++in_flight_;
  submitted_.push_back(std::move(batch));
}

void CommitLoop::Drain() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(
      +[](CommitLoop* self) { return self->in_flight_ == 0; }, this));
}

void CommitLoop::Write() {
  const rocksdb::WriteOptions unsynced;
  while (std::unique_ptr<Batch> batch = Next(&submitted_)) {
    batch->started = Clock::now();
    Require(db_->Write(unsynced, &batch->rows));
    absl::MutexLock lock(&mutex_);
    written_.push_back(std::move(batch));
  }
}

void CommitLoop::Sync() {
  while (std::unique_ptr<Batch> first = Next(&written_)) {
    std::deque<std::unique_ptr<Batch>> group;
    {
      absl::MutexLock lock(&mutex_);
      group.swap(written_);
    }
    group.push_front(std::move(first));
    Require(db_->SyncWAL());
    for (const auto& batch : group) {
      longest_stall_s_ = std::max(longest_stall_s_, SecondsSince(batch->started));
      strategy_->OnSynced(batch->acked);
      durable_end_ = batch->published_end;
    }
    absl::MutexLock lock(&mutex_);
    in_flight_ -= group.size();
  }
}

std::unique_ptr<CommitLoop::Batch> CommitLoop::Next(std::deque<std::unique_ptr<Batch>>* queue) {
  absl::MutexLock lock(&mutex_);
  const auto ready = [this, queue] { return stopping_ || !queue->empty(); };
  mutex_.Await(absl::Condition(&ready));
  if (queue->empty()) return nullptr;
  std::unique_ptr<Batch> batch = std::move(queue->front());
  queue->pop_front();
  return batch;
}

Store::Store(std::unique_ptr<Strategy> strategy, StoreOptions options)
    : options_(std::move(options)), bodies_(kBodyPoolBytes, '\0'), strategy_(std::move(strategy)) {
  std::mt19937_64 random(1);
  for (char& byte : bodies_) byte = static_cast<char>(random());
  Open();
  strategy_->Start(families_);
  commit_ = std::make_unique<CommitLoop>(families_.db, strategy_.get());
}

Store::~Store() {
  commit_.reset();
  strategy_->Stop();
  for (rocksdb::ColumnFamilyHandle* handle : handles_) {
    Require(families_.db->DestroyColumnFamilyHandle(handle));
  }
  Require(families_.db->Close());
  delete families_.db;
}

void Store::Submit(uint64_t from, uint64_t to, std::vector<uint64_t> acks) {
  auto batch = std::make_unique<CommitLoop::Batch>();
  for (uint64_t seq = from; seq < to; ++seq) {
    const uint64_t offset = seq * kBodyStride % (bodies_.size() - options_.body_bytes);
    Require(batch->rows.Put(families_.msg, MsgKey(seq),
                            rocksdb::Slice(bodies_.data() + offset, options_.body_bytes)));
  }
  if (!acks.empty()) strategy_->AppendAcks(acks, &batch->rows);
  batch->acked = std::move(acks);
  batch->published_end = to;
  commit_->Submit(std::move(batch));
}

void Store::Publish(uint64_t from, uint64_t to) {
  for (uint64_t seq = from; seq < to; seq += kBatchMessages) {
    Submit(seq, std::min(to, seq + kBatchMessages), {});
  }
  commit_->Drain();
}

std::vector<uint64_t> Store::ReadPage(size_t limit, uint64_t* cursor) {
  std::vector<uint64_t> page;
  const std::string lower = MsgKey(strategy_->NextUnacked(*cursor));
  const std::string upper = MsgKey(UINT64_MAX);
  const rocksdb::Slice lower_bound(lower);
  const rocksdb::Slice upper_bound(upper);
  rocksdb::ReadOptions read;
  read.iterate_lower_bound = &lower_bound;
  read.iterate_upper_bound = &upper_bound;
  read.fill_cache = false;
  const std::unique_ptr<rocksdb::Iterator> it(families_.db->NewIterator(read, families_.msg));
  it->Seek(lower_bound);
  while (it->Valid() && page.size() < limit) {
    const uint64_t seq = SeqOf(it->key());
    const uint64_t next = strategy_->NextUnacked(seq);
    if (next != seq) {
      it->Seek(MsgKey(next));
      continue;
    }
    Require(it->value().size() == options_.body_bytes, "message has a wrong size");
    page.push_back(seq);
    *cursor = seq + 1;
    it->Next();
  }
  Require(it->status());
  return page;
}

void Store::FlushAndSettle() {
  Require(families_.db->Flush(rocksdb::FlushOptions(), {families_.msg, families_.meta}));
  strategy_->Settle();
}

double Store::DiskMiB() const {
  double bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(options_.dir)) {
    struct stat info;
    // RocksDB may remove a file between the listing and here.
    if (stat(entry.path().c_str(), &info) == 0) bytes += kStatBlockBytes * info.st_blocks;
  }
  return bytes / (1 << 20);
}

void Store::Open() {
  rocksdb::DBOptions db;
  db.create_if_missing = true;
  db.create_missing_column_families = true;
  db.max_total_wal_size = kWalBytesMax;
  db.db_write_buffer_size = std::max(kWalBytesMax, options_.memtable_bytes);
  db.wal_bytes_per_sync = 256 << 10;
  db.use_direct_io_for_flush_and_compaction = true;
  db.max_background_jobs = 2;
  db.statistics = options_.statistics;
  rocksdb::BlockBasedTableOptions table;
  table.block_size = 16 << 10;
  rocksdb::ColumnFamilyOptions msg;
  msg.compression = rocksdb::kNoCompression;  // bodies are random: only CPU would be measured
  msg.write_buffer_size = options_.memtable_bytes;
  msg.max_write_buffer_number = 4;
  msg.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  rocksdb::ColumnFamilyOptions meta = msg;
  meta.write_buffer_size = kMetaMemtableBytes;
  strategy_->Configure(&msg);
  Require(rocksdb::DB::Open(db, options_.dir,
                            {{rocksdb::kDefaultColumnFamilyName, {}}, {"msg", msg}, {"meta", meta}},
                            &handles_, &families_.db));
  families_.msg = handles_[1];
  families_.meta = handles_[2];
}

}  // namespace sluice::bench
