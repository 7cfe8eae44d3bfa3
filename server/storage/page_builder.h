// One page of messages, put together by the rules of ReadRange: for both stores.
#ifndef SLUICE_SERVER_STORAGE_PAGE_BUILDER_H_
#define SLUICE_SERVER_STORAGE_PAGE_BUILDER_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/storage/store.h"

namespace sluice::storage {

// The row of Family::kMessages with this seq; DATA_LOSS if it cannot be read.
absl::StatusOr<StoredMessage> ToStored(Seq seq, std::string_view value);

class PageBuilder {
 public:
  // `range` must outlive this.
  explicit PageBuilder(const ReadRange& range) : range_(range) {}

  bool Full() const { return size_.IsFull(range_); }
  // The next message; only while not full. DATA_LOSS if it cannot be read.
  absl::Status Add(Seq seq, std::string_view value);
  std::vector<StoredMessage> Take() { return std::move(messages_); }

 private:
  const ReadRange& range_;
  PageSize size_;
  std::vector<StoredMessage> messages_;
};

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_PAGE_BUILDER_H_
