// Keeps settled messages from being written to new files.
#ifndef SLUICE_SERVER_STORAGE_SETTLED_FILTER_H_
#define SLUICE_SERVER_STORAGE_SETTLED_FILTER_H_

#include <memory>
#include <utility>

#include "rocksdb/compaction_filter.h"
#include "server/storage/settled_index.h"

namespace sluice::storage {

// For flushes and compactions of Family::kMessages. A filter answers from a copy of one lane at a
// time, taken when it meets the lane's first key.
class SettledFilterFactory : public rocksdb::CompactionFilterFactory {
 public:
  explicit SettledFilterFactory(std::shared_ptr<const SettledIndex> settled)
      : settled_(std::move(settled)) {}

  const char* Name() const override { return "sluice.settled"; }
  bool ShouldFilterTableFileCreation(rocksdb::TableFileCreationReason reason) const override;
  std::unique_ptr<rocksdb::CompactionFilter> CreateCompactionFilter(
      const rocksdb::CompactionFilter::Context& context) override;

 private:
  const std::shared_ptr<const SettledIndex> settled_;
};

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_SETTLED_FILTER_H_
