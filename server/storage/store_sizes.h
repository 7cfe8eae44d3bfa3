// How large the parts of a store may grow, and what it therefore keeps free on its disk.
#ifndef SLUICE_SERVER_STORAGE_STORE_SIZES_H_
#define SLUICE_SERVER_STORAGE_STORE_SIZES_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "server/model/limits.h"

namespace sluice::storage {

struct DiskSpace {
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;  // for this user
};
// Of the file system that holds `dir`; nothing: not known now.
std::optional<DiskSpace> AskFileSystem(const std::string& dir);

struct StoreSizes {
  // The WAL is replayed at start: more makes flushes rarer and restarts longer.
  uint64_t wal_bytes_max = 256 * kMiB;
  // All memtables together. Messages that are settled before their memtable is flushed never reach
  // a file; more lets more of them. It counts towards resident memory.
  uint64_t memtables_bytes_max = 192 * kMiB;
  uint64_t message_memtable_bytes = 64 * kMiB;
  // Batches that the engine may have under way.
  uint64_t appended_bytes_max = 64 * kMiB;
  // What one compaction may write before it can drop what it has read.
  uint64_t compaction_bytes_max = 416 * kMiB;

  // A fast disk takes no more between two looks at it.
  static constexpr uint64_t kBetweenLooksBytes = 32 * kMiB;

  // What may still be written after the last publish has been taken, acks included:
  //  - memtables become files, at a flush or when a restart replays the log;
  //  - batches under way go to the log and then to files, and so does what slips in between looks;
  //  - the log of acks grows up to its limit, where flushes cut it;
  //  - the compaction that is running ends.
  uint64_t ReserveBytes() const {
    return memtables_bytes_max + 2 * appended_bytes_max + kBetweenLooksBytes + wal_bytes_max +
           compaction_bytes_max;
  }
};

// `sizes`, scaled down where the disk is small. RESOURCE_EXHAUSTED, naming the bytes it takes, if it
// is smaller than any store could work on.
absl::StatusOr<StoreSizes> FitToDisk(const StoreSizes& sizes, uint64_t disk_bytes,
                                     const std::string& dir);

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_STORE_SIZES_H_
