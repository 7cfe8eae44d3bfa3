#include "server/storage/settled_filter.h"

#include <limits>
#include <optional>
#include <string>

#include "server/storage/rows.h"

namespace sluice::storage {
namespace {

std::string KeyString(const MessagePosition& position) {
  const auto key = MessageKey(position);
  return std::string(key.data(), key.size());
}

// RocksDB uses a filter from one thread.
class SettledFilter : public rocksdb::CompactionFilter {
 public:
  explicit SettledFilter(std::shared_ptr<const SettledIndex> settled)
      : settled_(std::move(settled)) {}

  const char* Name() const override { return "sluice.settled"; }

  // Removing a key would leave a tombstone in its place unless the output is the bottommost level;
  // skipping leaves nothing, and is sound because a message's key is written once.
  Decision FilterV2(int, const rocksdb::Slice& key, ValueType, const rocksdb::Slice&, std::string*,
                    std::string* skip_until) const override {
    const auto position = ParseMessageKey({key.data(), key.size()});
    if (!position) return Decision::kKeep;
    MoveTo(*position);
    switch (verdict_) {
      case SettledIndex::Verdict::kUnknown: return Decision::kKeep;
      case SettledIndex::Verdict::kDead: {
        if (position->qid == std::numeric_limits<QueueId>::max()) return Decision::kKeep;
        *skip_until = KeyString({position->shard, position->qid + 1, 0, 0});
        return Decision::kRemoveAndSkipUntil;
      }
      case SettledIndex::Verdict::kLane: {
        const Seq next = copy_.NextUnsettled(position->seq);
        if (next == position->seq) return Decision::kKeep;
        *skip_until = KeyString({position->shard, position->qid, position->lane, next});
        return Decision::kRemoveAndSkipUntil;
      }
    }
    return Decision::kKeep;
  }

 private:
  void MoveTo(const MessagePosition& position) const {
    if (at_ && at_->shard == position.shard && at_->qid == position.qid &&
        at_->lane == position.lane) {
      return;
    }
    at_ = position;
    verdict_ = settled_->Copy(position.shard, position.qid, position.lane, &copy_);
  }

  const std::shared_ptr<const SettledIndex> settled_;
  mutable std::optional<MessagePosition> at_;
  mutable SettledIndex::Verdict verdict_ = SettledIndex::Verdict::kUnknown;
  mutable SettledLane copy_;
};

}  // namespace

bool SettledFilterFactory::ShouldFilterTableFileCreation(
    rocksdb::TableFileCreationReason reason) const {
  return reason == rocksdb::TableFileCreationReason::kFlush ||
         reason == rocksdb::TableFileCreationReason::kCompaction;
}

std::unique_ptr<rocksdb::CompactionFilter> SettledFilterFactory::CreateCompactionFilter(
    const rocksdb::CompactionFilter::Context&) {
  return std::make_unique<SettledFilter>(settled_);
}

}  // namespace sluice::storage
