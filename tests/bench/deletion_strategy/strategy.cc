#include "strategy.h"

#include <atomic>
#include <thread>
#include <utility>

#include "absl/container/btree_set.h"
#include "absl/synchronization/mutex.h"
#include "rocksdb/compaction_filter.h"
#include "rocksdb/convenience.h"

namespace sluice::bench {
namespace {

constexpr auto kReclaimPeriod = std::chrono::milliseconds(100);

void CompactUpTo(const Families& families, uint64_t seq) {
  const std::string first = MsgKey(0);
  const std::string last = MsgKey(seq);
  const rocksdb::Slice begin(first);
  const rocksdb::Slice end(last);
  rocksdb::CompactRangeOptions options;
  options.exclusive_manual_compaction = false;
  Require(families.db->CompactRange(options, families.msg, &begin, &end));
}

class SingleDeleteStrategy : public Strategy {
 public:
  void Configure(rocksdb::ColumnFamilyOptions*) override {}

  void Start(const Families& families) override {
    families_ = families;
    tracker_.SetHead(LoadHead(families));
  }

  void AppendAcks(const std::vector<uint64_t>& seqs, rocksdb::WriteBatch* batch) override {
    for (const uint64_t seq : seqs) {
      Require(batch->SingleDelete(families_.msg, MsgKey(seq)));
      tracker_.Ack(seq);
      acked_end_ = std::max(acked_end_, seq + 1);
    }
    AppendHead(families_, tracker_.head(), batch);
  }

  void OnSynced(const std::vector<uint64_t>&) override {}

  // Above the head only the tombstones know what is settled: the iterator has to cross them.
  uint64_t NextUnacked(uint64_t seq) const override { return std::max(seq, tracker_.head()); }

  void Settle() override { CompactUpTo(families_, acked_end_); }

 private:
  Families families_;
  AckTracker tracker_;
  uint64_t acked_end_ = 0;
};

class AckSetStrategy : public Strategy {
 public:
  explicit AckSetStrategy(AckSetOptions options)
      : options_(std::move(options)), factory_(std::make_shared<FilterFactory>(this)) {}

  void Configure(rocksdb::ColumnFamilyOptions* msg) override {
    msg->compaction_filter_factory = factory_;
  }

  void Start(const Families& families) override {
    families_ = families;
    decided_.SetHead(LoadHead(families));
    const std::unique_ptr<rocksdb::Iterator> rows(
        families.db->NewIterator(rocksdb::ReadOptions(), families.meta));
    for (rows->Seek("A"); rows->Valid() && rows->key().starts_with("A"); rows->Next()) {
      AckTracker::Row bits;
      Require(rows->value().size() == sizeof(bits), "ack row has a wrong size");
      std::copy_n(rows->value().data(), sizeof(bits), reinterpret_cast<char*>(bits.data()));
      persisted_rows_.insert(BigEndian64(rows->key().data() + 1));
      decided_.SetRow(BigEndian64(rows->key().data() + 1), bits);
    }
    Require(rows->status());
    absl::MutexLock lock(&mutex_);
    synced_ = decided_;
    loaded_ = true;
    stopping_ = false;
    reclaimer_ = std::thread([this] { ReclaimLoop(); });
  }

  void Stop() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    if (reclaimer_.joinable()) reclaimer_.join();
  }

  void AppendAcks(const std::vector<uint64_t>& seqs, rocksdb::WriteBatch* batch) override {
    std::vector<uint64_t> touched;
    for (const uint64_t seq : seqs) {
      decided_.Ack(seq);
      if (touched.empty() || touched.back() != seq / kRowBits) touched.push_back(seq / kRowBits);
    }
    AppendHead(families_, decided_.head(), batch);
    std::sort(touched.begin(), touched.end());
    touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
    for (const uint64_t row : touched) AppendRow(row, batch);
    while (!persisted_rows_.empty() && *persisted_rows_.begin() < decided_.head() / kRowBits) {
      Require(batch->Delete(families_.meta, AckRowKey(*persisted_rows_.begin())));
      persisted_rows_.erase(persisted_rows_.begin());
    }
  }

  void OnSynced(const std::vector<uint64_t>& seqs) override {
    absl::MutexLock lock(&mutex_);
    for (const uint64_t seq : seqs) synced_.Ack(seq);
  }

  uint64_t NextUnacked(uint64_t seq) const override { return decided_.NextUnacked(seq); }

  void Settle() override {
    ReclaimUpTo(SyncedHead());
    // What is left is in level 0, which DeleteFilesInRange never touches, or holds stragglers.
    CompactUpTo(families_, std::max(decided_.head(), LastRowEnd()));
  }

  double LongestReclaimStepSeconds() const override { return longest_step_s_; }

 private:
  // Drops what a snapshot of the synced acks says is settled. kRemove would leave a tombstone in
  // place of each message unless the output is the bottommost level; skipping leaves nothing.
  class Filter : public rocksdb::CompactionFilter {
   public:
    Filter(AckTracker settled, Decision drop) : settled_(std::move(settled)), drop_(drop) {}
    const char* Name() const override { return "settled-messages"; }
    Decision FilterV2(int, const rocksdb::Slice& key, ValueType, const rocksdb::Slice&,
                      std::string*, std::string* skip_until) const override {
      const uint64_t seq = SeqOf(key);
      const uint64_t next = settled_.NextUnacked(seq);
      if (next == seq) return Decision::kKeep;
      *skip_until = MsgKey(next);
      return drop_;
    }

   private:
    const AckTracker settled_;
    const Decision drop_;
  };

  class FilterFactory : public rocksdb::CompactionFilterFactory {
   public:
    explicit FilterFactory(AckSetStrategy* owner) : owner_(owner) {}
    const char* Name() const override { return "settled-messages"; }
    bool ShouldFilterTableFileCreation(rocksdb::TableFileCreationReason reason) const override {
      if (reason == rocksdb::TableFileCreationReason::kFlush) {
        return owner_->options_.flush_filter != "none";
      }
      return reason == rocksdb::TableFileCreationReason::kCompaction;
    }
    std::unique_ptr<rocksdb::CompactionFilter> CreateCompactionFilter(
        const rocksdb::CompactionFilter::Context&) override {
      absl::MutexLock lock(&owner_->mutex_);
      // Recovery flushes before the acks are loaded: then nothing may be dropped.
      return std::make_unique<Filter>(
          owner_->loaded_ ? owner_->synced_ : AckTracker(),
          owner_->options_.flush_filter == "remove"
              ? rocksdb::CompactionFilter::Decision::kRemove
              : rocksdb::CompactionFilter::Decision::kRemoveAndSkipUntil);
    }

   private:
    AckSetStrategy* const owner_;
  };

  // A row whose bits are all below the head says nothing that the head does not.
  void AppendRow(uint64_t row, rocksdb::WriteBatch* batch) {
    const auto it = decided_.rows().find(row);
    if (it == decided_.rows().end()) return;
    const uint64_t from = std::max(decided_.head(), row * kRowBits) - row * kRowBits;
    const AckTracker::Row& bits = it->second;
    bool above_head = (bits[from / 64] >> (from % 64)) != 0;
    for (size_t word = from / 64 + 1; word < bits.size(); ++word) above_head |= bits[word] != 0;
    if (!above_head) return;
    Require(batch->Put(families_.meta, AckRowKey(row),
                       rocksdb::Slice(reinterpret_cast<const char*>(bits.data()), sizeof(bits))));
    persisted_rows_.insert(row);
  }

  uint64_t SyncedHead() {
    absl::MutexLock lock(&mutex_);
    return synced_.head();
  }

  uint64_t LastRowEnd() const {
    return decided_.rows().empty() ? 0 : (decided_.rows().rbegin()->first + 1) * kRowBits;
  }

  // The range always begins at the lane's start: a file that straddles one step's end, or was being
  // compacted then, goes in a later step.
  void ReclaimUpTo(uint64_t head) {
    absl::MutexLock lock(&reclaim_mutex_);
    const std::string first = MsgKey(0);
    const rocksdb::Slice begin(first);
    while (reclaimed_ < head) {
      const uint64_t step_end = std::min(head, reclaimed_ + options_.step_messages);
      const std::string last = MsgKey(step_end - 1);
      const rocksdb::Slice end(last);
      const auto start = Clock::now();
      Require(rocksdb::DeleteFilesInRange(families_.db, families_.msg, &begin, &end));
      longest_step_s_ = std::max(longest_step_s_.load(), SecondsSince(start));
      reclaimed_ = step_end;
    }
  }

  void ReclaimLoop() {
    absl::MutexLock lock(&mutex_);
    while (
        !mutex_.AwaitWithTimeout(absl::Condition(&stopping_), absl::FromChrono(kReclaimPeriod))) {
      const uint64_t head = synced_.head();
      mutex_.Unlock();
      if (head >= reclaimed_ + options_.step_messages) ReclaimUpTo(head);
      mutex_.Lock();
    }
  }

  const AckSetOptions options_;
  const std::shared_ptr<FilterFactory> factory_;
  Families families_;
  AckTracker decided_;                        // driver's: includes what is not yet synced
  absl::btree_set<uint64_t> persisted_rows_;  // driver's
  absl::Mutex mutex_;
  AckTracker synced_ ABSL_GUARDED_BY(mutex_);
  bool loaded_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Mutex reclaim_mutex_;
  std::atomic<uint64_t> reclaimed_ = 0;
  std::atomic<double> longest_step_s_ = 0;
  std::thread reclaimer_;
};

}  // namespace

std::unique_ptr<Strategy> MakeStrategy(const std::string& name, const AckSetOptions& options) {
  if (name == "ack_set") return std::make_unique<AckSetStrategy>(options);
  return std::make_unique<SingleDeleteStrategy>();
}

}  // namespace sluice::bench
