// A small disk of its own: an ext4 file system in a file, mounted through a loop device.
#ifndef SLUICE_TESTS_SUPPORT_LOOP_DISK_H_
#define SLUICE_TESTS_SUPPORT_LOOP_DISK_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/support/server_process.h"

namespace sluice::testing {

// One thread. Mounted in a mount namespace of that thread and its children, so that nothing is left
// behind however the test ends.
class LoopDisk {
 public:
  // UNAVAILABLE, saying what is missing, where such a disk cannot be made: not root, no loop device.
  static absl::StatusOr<std::unique_ptr<LoopDisk>> Make(int64_t bytes);
  // Whoever uses files on it must have ended.
  ~LoopDisk();
  LoopDisk(const LoopDisk&) = delete;
  LoopDisk& operator=(const LoopDisk&) = delete;

  // Where it is mounted.
  const std::string& path() const { return mount_; }
  int64_t FreeBytes() const;

  // What a power loss does: from now on nothing reaches the disk, and what was not synced is gone.
  // Every operation on it fails until Remount.
  absl::Status LosePower();
  // Mounts it again as it was when the power was lost.
  absl::Status Remount();

 private:
  LoopDisk() = default;
  absl::Status Mount();
  absl::Status Unmount();

  TempDir dir_;
  std::string image_;
  std::string mount_;
  bool mounted_ = false;
};

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_SUPPORT_LOOP_DISK_H_
