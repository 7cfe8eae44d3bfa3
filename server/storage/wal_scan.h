// Checks RocksDB's write-ahead log before RocksDB replays it.
#ifndef SLUICE_SERVER_STORAGE_WAL_SCAN_H_
#define SLUICE_SERVER_STORAGE_WAL_SCAN_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace sluice::storage {

struct WalScan {
  uint64_t records = 0;
  // The newest of the store's sequence numbers that a readable record names durable: after the
  // replay the store must have at least this one.
  uint64_t durable_store_seq = 0;
  bool torn_tail = false;  // unsynced records at the end are damaged; the store drops them
  // Damage in front of every readable record: what is lost there can only be told from the files of
  // the store, which must reach durable_store_seq without this log. Empty: none.
  std::string damaged_start;
  // Where zeros are followed by readable records, none of them durable: the first such place.
  // RocksDB would pass over the zeros and replay what is behind; see EndWalAt.
  std::string gap_path;  // empty: none
  uint64_t gap_offset = 0;
};

// Reads every *.log file of `dir` and changes nothing. A crash may tear what had not been synced, so
// RocksDB takes the first damaged record for the end of the log; it cannot know that something
// behind it had been synced. Every record names what was durable when it was written (wal_record.h),
// so we can: DATA_LOSS, with file and offset, if a damaged or missing record is at or below what a
// readable one names durable, or if records are missing between readable files.
// A directory that does not exist is an empty log.
absl::StatusOr<WalScan> ScanWal(const std::string& dir);

// Makes RocksDB take what is at `offset` of `path`, which begins a fragment, for the torn end of the
// log, by a fragment with a wrong checksum. Synced when OK.
absl::Status EndWalAt(const std::string& path, uint64_t offset);

// DATA_LOSS, saying what to do. `where`: file and offset.
absl::Status WalDamage(const std::string& where);

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_WAL_SCAN_H_
