// RocksDB's errors in our words.
#ifndef SLUICE_SERVER_STORAGE_ROCKS_STATUS_H_
#define SLUICE_SERVER_STORAGE_ROCKS_STATUS_H_

#include <string_view>

#include "absl/status/status.h"
#include "rocksdb/status.h"

namespace sluice::storage {

// Corruption is DATA_LOSS (DATA_DAMAGED), anything else that is not OK is UNAVAILABLE
// (STORE_FAILED). `doing` completes "while ...".
absl::Status FromRocks(const rocksdb::Status& status, std::string_view doing);

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_ROCKS_STATUS_H_
