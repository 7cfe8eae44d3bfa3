#include "server/storage/settled_index.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace sluice::storage {
namespace {

constexpr Seq kSeqMax = std::numeric_limits<Seq>::max();

// First clear bit at or after `from`, or kSeqsPerBlock.
uint64_t NextClearBit(const AcksRow& row, uint64_t from) {
  for (uint64_t word = from / 64; word < kWordsPerBlock; ++word) {
    uint64_t clear = ~row.bits[word];
    if (word == from / 64) clear &= ~uint64_t{0} << (from % 64);
    if (clear != 0) return word * 64 + std::countr_zero(clear);
  }
  return kSeqsPerBlock;
}

// Set bits in [begin, end) of one block.
uint64_t CountBits(const AcksRow& row, uint64_t begin, uint64_t end) {
  uint64_t count = 0;
  for (uint64_t word = begin / 64; word * 64 < end; ++word) {
    uint64_t bits = row.bits[word];
    if (word == begin / 64) bits &= ~uint64_t{0} << (begin % 64);
    if (end < (word + 1) * 64) bits &= ~(~uint64_t{0} << (end % 64));
    count += std::popcount(bits);
  }
  return count;
}

}  // namespace

void SettledLane::SetRow(const LaneRow& row) {
  row_ = row;
  // A block that the head has passed says nothing more; one that it is in still counts.
  auto it = blocks_.begin();
  while (it != blocks_.end() &&
         (it->first + std::max<uint64_t>(1, it->second.run)) * kSeqsPerBlock <= row_.head) {
    it = blocks_.erase(it);
  }
}

Seq SettledLane::NextUnsettled(Seq from) const {
  Seq seq = std::max(from, row_.head);
  while (true) {
    const uint64_t block = seq / kSeqsPerBlock;
    auto it = blocks_.upper_bound(block);
    if (it == blocks_.begin()) return seq;
    --it;
    if (it->second.run > 0) {
      if (block >= it->first + it->second.run) return seq;
      seq = (it->first + it->second.run) * kSeqsPerBlock;
      continue;
    }
    if (it->first != block) return seq;
    const uint64_t bit = NextClearBit(it->second, seq % kSeqsPerBlock);
    seq = block * kSeqsPerBlock + bit;
    if (bit < kSeqsPerBlock) return seq;
  }
}

uint64_t SettledLane::CountUnsettled(Seq begin, Seq end) const {
  begin = std::max(begin, row_.head);
  end = std::min(end, row_.next_seq);
  if (begin >= end) return 0;
  uint64_t settled = 0;
  auto it = blocks_.upper_bound(begin / kSeqsPerBlock);
  if (it != blocks_.begin()) --it;
  for (; it != blocks_.end() && it->first * kSeqsPerBlock < end; ++it) {
    const Seq first = it->first * kSeqsPerBlock;
    const Seq last = first + std::max<uint64_t>(1, it->second.run) * kSeqsPerBlock;
    const Seq from = std::max(first, begin);
    const Seq to = std::min(last, end);
    if (from >= to) continue;
    settled += it->second.run > 0 ? to - from : CountBits(it->second, from - first, to - first);
  }
  return end - begin - std::min(settled, end - begin);
}

// Applies rows one by one; the caller holds the lock over the whole batch, so that nobody sees a
// block that has been taken away while the run that replaces it is still to come.
class SettledIndex::Applier : public Batch::Visitor {
 public:
  explicit Applier(SettledIndex* index) : index_(index) {}

  // The lock is held by Apply, which the analysis cannot see through the virtual call.
  void OnPut(Family family, std::string_view key,
             std::string_view value) override ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (family != Family::kMeta || !status.ok()) return;
    const auto parsed = ParseMetaKey(key);
    status = parsed.ok() ? index_->PutRow(*parsed, value) : parsed.status();
  }
  void OnDelete(Family family, std::string_view key) override ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (family != Family::kMeta) return;
    const auto parsed = ParseMetaKey(key);
    if (parsed.ok()) index_->DeleteRow(*parsed);
  }
  // Ranges go with a deleted queue or a head that has moved: both are seen in other rows.
  void OnDeleteMetaRange(std::string_view, std::string_view) override {}

  absl::Status status;

 private:
  SettledIndex* const index_;
};

absl::Status SettledIndex::LoadRow(std::string_view key, std::string_view value) {
  const auto parsed = ParseMetaKey(key);
  if (!parsed.ok()) return parsed.status();
  absl::MutexLock lock(&mutex_);
  return PutRow(*parsed, value);
}

void SettledIndex::FinishLoad(uint64_t store_seq) {
  absl::MutexLock lock(&mutex_);
  // Blocks may have been read before the head of their lane.
  for (auto& [key, lane] : lanes_) lane.SetRow(lane.row_);
  applied_store_seq_ = store_seq;
  loaded_ = true;
  ++version_;
}

absl::Status SettledIndex::Apply(std::string_view record, uint64_t store_seq) {
  absl::MutexLock lock(&mutex_);
  BatchHeader header;
  Applier applier(this);
  absl::Status status = Batch::Visit(record, &header, &applier);
  applied_store_seq_ = store_seq;
  if (!status.ok()) return status;
  if (header.shard == shard_) log_time_ms_ = std::max(log_time_ms_, header.log_time_ms);
  return applier.status;
}

bool SettledIndex::AwaitApplied(uint64_t store_seq, absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  const auto applied = [this, store_seq] {
    mutex_.AssertReaderHeld();
    return applied_store_seq_ >= store_seq;
  };
  return mutex_.AwaitWithTimeout(absl::Condition(&applied), timeout);
}

// kLane: the queue is there.
SettledIndex::Verdict SettledIndex::Judge(ShardId shard, QueueId qid) const {
  if (!loaded_ || shard != shard_) return Verdict::kUnknown;
  if (live_.contains(qid)) return Verdict::kLane;
  return qid < next_qid_ ? Verdict::kDead : Verdict::kUnknown;
}

SettledIndex::Verdict SettledIndex::Copy(ShardId shard, QueueId qid, Lane lane,
                                         SettledLane* copy) const {
  absl::MutexLock lock(&mutex_);
  if (const Verdict verdict = Judge(shard, qid); verdict != Verdict::kLane) return verdict;
  const auto it = lanes_.find({qid, lane});
  if (it == lanes_.end()) return Verdict::kUnknown;
  *copy = it->second;
  return Verdict::kLane;
}

bool SettledIndex::IsSettled(const MessagePosition& position) const {
  absl::MutexLock lock(&mutex_);
  const Verdict verdict = Judge(position.shard, position.qid);
  if (verdict != Verdict::kLane) return verdict == Verdict::kDead;
  const auto it = lanes_.find({position.qid, position.lane});
  return it != lanes_.end() && it->second.NextUnsettled(position.seq) != position.seq;
}

bool SettledIndex::IsDead(ShardId shard, QueueId qid) const {
  absl::MutexLock lock(&mutex_);
  return Judge(shard, qid) == Verdict::kDead;
}

int64_t SettledIndex::log_time_ms() const {
  absl::MutexLock lock(&mutex_);
  return loaded_ ? log_time_ms_ : 0;
}

uint64_t SettledIndex::CountUnsettled(const MessagePosition& first, const MessagePosition& last,
                                      uint64_t limit) const {
  absl::MutexLock lock(&mutex_);
  if (!loaded_ || first.shard != shard_ || last.shard != shard_) return limit;
  const LaneKey first_lane{first.qid, first.lane};
  const LaneKey last_lane{last.qid, last.lane};
  uint64_t count = 0;
  // Lanes without a row have no messages, and neither have queues without one.
  for (auto it = lanes_.lower_bound(first_lane);
       it != lanes_.end() && it->first <= last_lane && count < limit; ++it) {
    if (!live_.contains(it->first.first)) continue;
    const Seq begin = it->first == first_lane ? first.seq : 0;
    const Seq end = it->first == last_lane && last.seq < kSeqMax ? last.seq + 1 : kSeqMax;
    count += it->second.CountUnsettled(begin, end);
  }
  return std::min(count, limit);
}

uint64_t SettledIndex::version() const {
  absl::MutexLock lock(&mutex_);
  return version_;
}

absl::Status SettledIndex::PutRow(const MetaKey& key, std::string_view value) {
  if (key.shard != shard_) return absl::OkStatus();
  switch (key.type) {
    case MetaType::kBoot: {
      const auto row = ParseBoot(value);
      if (!row.ok()) return row.status();
      next_qid_ = std::max(next_qid_, row->next_qid);
      // Of the batch that wrote the row.
      log_time_ms_ = std::max(log_time_ms_, row->engine_ms);
      break;
    }
    case MetaType::kQueue:
      live_.insert(key.qid);
      next_qid_ = std::max(next_qid_, key.qid + 1);
      break;
    case MetaType::kLane: {
      const auto row = ParseLane(value);
      if (!row.ok()) return row.status();
      SettledLane& lane = lanes_[{key.qid, key.lane}];
      if (row->head > lane.row_.head) ++version_;
      lane.SetRow(*row);
      break;
    }
    case MetaType::kAcks: {
      const auto row = ParseAcks(value);
      if (!row.ok()) return row.status();
      lanes_[{key.qid, key.lane}].blocks_[key.number] = *row;
      ++version_;
      break;
    }
    case MetaType::kHistory:
    case MetaType::kProducer:
    case MetaType::kExchange:
    case MetaType::kBinding: break;
  }
  return absl::OkStatus();
}

void SettledIndex::DeleteRow(const MetaKey& key) {
  if (key.shard != shard_) return;
  if (key.type == MetaType::kQueue) {
    live_.erase(key.qid);
    lanes_.erase(lanes_.lower_bound({key.qid, 0}),
                 lanes_.upper_bound({key.qid, std::numeric_limits<Lane>::max()}));
    ++version_;
  } else if (key.type == MetaType::kAcks) {
    const auto lane = lanes_.find({key.qid, key.lane});
    if (lane != lanes_.end()) lane->second.blocks_.erase(key.number);
  }
}

}  // namespace sluice::storage
