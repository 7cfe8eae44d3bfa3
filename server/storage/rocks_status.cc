#include "server/storage/rocks_status.h"

#include "absl/strings/str_cat.h"
#include "server/base/strings.h"
#include "server/model/error.h"

namespace sluice::storage {

absl::Status FromRocks(const rocksdb::Status& status, std::string_view doing) {
  if (status.ok()) return absl::OkStatus();
  const std::string what = absl::StrCat("while ", ToAbsl(doing), ": ", status.ToString());
  if (status.IsCorruption()) {
    return MakeError(
        ErrorReason::kDataDamaged,
        absl::StrCat("stored data is damaged ", what,
                     "; keep a copy of the data directory and restore it from a backup"));
  }
  return MakeError(ErrorReason::kStoreFailed, absl::StrCat("the store failed ", what));
}

}  // namespace sluice::storage
