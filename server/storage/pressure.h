// How hard the store is pressed, so that publishes can be held back in time. Acks never are: they
// are what gives the space back.
#ifndef SLUICE_SERVER_STORAGE_PRESSURE_H_
#define SLUICE_SERVER_STORAGE_PRESSURE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/model/limits.h"
#include "server/storage/store_sizes.h"

namespace sluice::storage {

class RocksStore;

enum class Pressure : uint8_t {
  kNone = 0,
  kThrottle = 1,  // publishes wait: the store would soon slow down whatever is written
  kRefuse = 2,    // publishes are refused: what is free on the disk is kept for acks
};

// Lock-free, any thread.
class PressureGauge {
 public:
  virtual ~PressureGauge() = default;
  virtual Pressure Read() const = 0;
};

struct PressureOptions {
  std::string dir;  // the store's
  // Publishes are refused while less than this is free, and always while less is free than the
  // store may still have to write (StoreSizes::ReserveBytes and what exceeds it now).
  std::optional<uint64_t> disk_reserve_bytes;
  // Short enough for a fast disk to write no more than some tens of megabytes in between.
  absl::Duration period = absl::Milliseconds(50);
  // For tests; null: asks the file system of `dir`. Nothing: not known now.
  std::function<std::optional<DiskSpace>()> disk;
};

// Watches a RocksStore and its disk from a thread of its own.
class StorePressure : public PressureGauge {
 public:
  // `store` must be open and outlive this. Has looked once when it returns.
  StorePressure(const RocksStore* store, PressureOptions options);
  ~StorePressure() override;
  StorePressure(const StorePressure&) = delete;
  StorePressure& operator=(const StorePressure&) = delete;

  Pressure Read() const override { return pressure_.load(std::memory_order_relaxed); }
  // Looks now, without waiting for the next period. For tests.
  void Poll() ABSL_LOCKS_EXCLUDED(poll_mutex_);

 private:
  void Loop();
  void PollDisk() ABSL_EXCLUSIVE_LOCKS_REQUIRED(poll_mutex_);
  uint64_t NeededBytes(uint64_t free_bytes) const;

  const RocksStore* const store_;
  const PressureOptions options_;
  std::atomic<Pressure> pressure_{Pressure::kNone};
  absl::Mutex poll_mutex_;
  bool disk_is_full_ ABSL_GUARDED_BY(poll_mutex_) = false;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_PRESSURE_H_
