// Keeps index rows that nobody needs any more from being written to new files.
#ifndef SLUICE_SERVER_STORAGE_INDEX_FILTER_H_
#define SLUICE_SERVER_STORAGE_INDEX_FILTER_H_

#include <memory>
#include <utility>

#include "rocksdb/compaction_filter.h"
#include "server/storage/settled_index.h"

namespace sluice::storage {

// For flushes and compactions of Family::kIndex: drops rows of settled messages and deleted queues,
// and deduplication rows whose time had passed at the last batch that is on stable storage. What it
// cannot read stays, for the reader to complain about.
class IndexFilterFactory : public rocksdb::CompactionFilterFactory {
 public:
  explicit IndexFilterFactory(std::shared_ptr<const SettledIndex> settled)
      : settled_(std::move(settled)) {}

  const char* Name() const override { return "sluice.index"; }
  bool ShouldFilterTableFileCreation(rocksdb::TableFileCreationReason reason) const override;
  std::unique_ptr<rocksdb::CompactionFilter> CreateCompactionFilter(
      const rocksdb::CompactionFilter::Context& context) override;

 private:
  const std::shared_ptr<const SettledIndex> settled_;
};

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_INDEX_FILTER_H_
