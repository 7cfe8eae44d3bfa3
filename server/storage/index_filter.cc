#include "server/storage/index_filter.h"

#include <string>

#include "server/storage/rows.h"

namespace sluice::storage {
namespace {

class IndexFilter : public rocksdb::CompactionFilter {
 public:
  explicit IndexFilter(std::shared_ptr<const SettledIndex> settled)
      : settled_(std::move(settled)) {}

  const char* Name() const override { return "sluice.index"; }

  Decision FilterV2(int, const rocksdb::Slice& key_bytes, ValueType,
                    const rocksdb::Slice& value_bytes, std::string*,
                    std::string* skip_until) const override {
    const auto key = ParseIndexKey({key_bytes.data(), key_bytes.size()});
    if (!key.ok()) return Decision::kKeep;
    const std::string_view value(value_bytes.data(), value_bytes.size());
    switch (key->type) {
      case IndexType::kDue:
      case IndexType::kExpiry:
      case IndexType::kGroup:
        if (!settled_->IsSettled(key->position)) return Decision::kKeep;
        // These are written once and scanned: removing one would leave a tombstone in the way of
        // scans, skipping it leaves nothing.
        skip_until->assign(key_bytes.data(), key_bytes.size());
        skip_until->push_back('\0');
        return Decision::kRemoveAndSkipUntil;
      case IndexType::kId: return IdIsOver(*key, value) ? Decision::kRemove : Decision::kKeep;
      case IndexType::kDedup: return DedupIsOver(*key, value) ? Decision::kRemove : Decision::kKeep;
    }
    return Decision::kKeep;
  }

 private:
  // Rows of these two kinds may be overwritten: the older one must not come back, so they are
  // removed and not skipped.
  bool IdIsOver(const IndexKey& key, std::string_view value) const {
    const auto row = ParseId(value);
    if (!row.ok()) return false;
    return settled_->IsSettled({key.position.shard, key.position.qid, row->lane, row->seq});
  }
  bool DedupIsOver(const IndexKey& key, std::string_view value) const {
    if (settled_->IsDead(key.position.shard, key.position.qid)) return true;
    const auto row = ParseDedup(value);
    return row.ok() && row->expire_ms < settled_->log_time_ms();
  }

  const std::shared_ptr<const SettledIndex> settled_;
};

}  // namespace

bool IndexFilterFactory::ShouldFilterTableFileCreation(
    rocksdb::TableFileCreationReason reason) const {
  return reason == rocksdb::TableFileCreationReason::kFlush ||
         reason == rocksdb::TableFileCreationReason::kCompaction;
}

std::unique_ptr<rocksdb::CompactionFilter> IndexFilterFactory::CreateCompactionFilter(
    const rocksdb::CompactionFilter::Context&) {
  return std::make_unique<IndexFilter>(settled_);
}

}  // namespace sluice::storage
