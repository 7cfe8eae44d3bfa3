// Gives the disk space of settled messages back.
#ifndef SLUICE_SERVER_STORAGE_RECLAIMER_H_
#define SLUICE_SERVER_STORAGE_RECLAIMER_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/model/ids.h"
#include "server/storage/rocks_store.h"

namespace sluice::storage {

// One background thread. Files of which every message is settled are dropped whole, in small steps;
// files that hold a few live messages among settled ones are rewritten when that pays, through the
// filter. Commits do not wait for either.
class Reclaimer {
 public:
  // `store` must be open and outlive this.
  Reclaimer(RocksStore* store, const RocksOptions& options);
  ~Reclaimer();
  Reclaimer(const Reclaimer&) = delete;
  Reclaimer& operator=(const Reclaimer&) = delete;

  // Rounds as if the store were idle, on the calling thread, until no compaction is in the way. Blocks.
  absl::Status RunOnce();

  uint64_t reclaimed_bytes() const { return reclaimed_bytes_; }

 private:
  struct File {
    std::string name;
    std::string smallest;
    std::string largest;
    MessagePosition first;
    MessagePosition last;
    uint64_t bytes = 0;
    int level = 0;
    uint64_t garbage_bytes = 0;
  };

  void Loop();
  // `again`: some files could not be looked at now.
  absl::Status Round(bool idle, bool* again) ABSL_LOCKS_EXCLUDED(round_mutex_);
  absl::Status FlushSettledMemtable() ABSL_EXCLUSIVE_LOCKS_REQUIRED(round_mutex_);
  // Files in key order with their garbage. Sets `incomplete` if some are being compacted, or if the
  // index lags behind them: then there are none.
  std::vector<File> ListFiles(bool* incomplete) ABSL_EXCLUSIVE_LOCKS_REQUIRED(round_mutex_);
  uint64_t GarbageBytes(const File& file) ABSL_EXCLUSIVE_LOCKS_REQUIRED(round_mutex_);
  uint64_t EntriesOf(const File& file) ABSL_EXCLUSIVE_LOCKS_REQUIRED(round_mutex_);
  // No message will ever be added between the file's first and last key. Otherwise one could be
  // flushed into that range after we looked, and dropping the range would drop it too: such files
  // are rewritten, which asks the filter again.
  bool IsClosed(const File& file) const;
  absl::Status DropWholeFiles(const std::vector<File>& files)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(round_mutex_);
  absl::Status RewriteFiles(const std::vector<File>& files, uint64_t garbage_bytes_min)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(round_mutex_);

  RocksStore* const store_;
  const RocksOptions options_;
  absl::Mutex round_mutex_;
  absl::flat_hash_map<std::string, uint64_t> entries_ ABSL_GUARDED_BY(round_mutex_);  // by file name
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<bool> cancel_rewrite_ = false;
  std::atomic<uint64_t> reclaimed_bytes_ = 0;
  std::thread thread_;
};

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_RECLAIMER_H_
