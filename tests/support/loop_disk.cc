#include "tests/support/loop_disk.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace sluice::testing {
namespace {

// linux/fs.h and fs/ext4/ext4.h: end all writes at once, without writing the journal out.
constexpr unsigned long kFsIocShutdown = 0x8004587D;
constexpr uint32_t kNoLogFlush = 2;
// A process that has just ended may hold its files for a moment.
constexpr absl::Duration kUnmountTimeout = absl::Seconds(10);
constexpr absl::Duration kUnmountPause = absl::Milliseconds(10);

absl::Status RunTool(const std::string& command) {
  if (std::system(absl::StrCat(command, " >/dev/null 2>&1").c_str()) == 0) {
    return absl::OkStatus();
  }
  return absl::UnavailableError(absl::StrCat("'", command, "' failed"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<LoopDisk>> LoopDisk::Make(int64_t bytes) {
  if (geteuid() != 0) return absl::UnavailableError("only root may mount a disk");
  if (unshare(CLONE_NEWNS) != 0 ||
      mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return absl::UnavailableError("no mount namespace of our own is allowed here");
  }
  std::unique_ptr<LoopDisk> disk(new LoopDisk());
  disk->image_ = disk->dir_.path() + "/image";
  disk->mount_ = disk->dir_.path() + "/mount";
  std::filesystem::create_directory(disk->mount_);
  const int fd = open(disk->image_.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0) return absl::ErrnoToStatus(errno, disk->image_);
  const bool sized = ftruncate(fd, bytes) == 0;
  close(fd);
  if (!sized) return absl::ErrnoToStatus(errno, disk->image_);
  if (absl::Status s = RunTool("mkfs.ext4 -q -F " + disk->image_); !s.ok()) return s;
  if (absl::Status s = disk->Mount(); !s.ok()) return s;
  return disk;
}

LoopDisk::~LoopDisk() { Unmount().IgnoreError(); }

absl::Status LoopDisk::Mount() {
  absl::Status status = RunTool(absl::StrCat("mount -o loop ", image_, " ", mount_));
  mounted_ = status.ok();
  return status;
}

absl::Status LoopDisk::Unmount() {
  const absl::Time give_up = absl::Now() + kUnmountTimeout;
  while (mounted_) {
    // The loop device goes with its last use.
    if (umount(mount_.c_str()) == 0) {
      mounted_ = false;
    } else if (errno != EBUSY || absl::Now() > give_up) {
      return absl::ErrnoToStatus(errno, "umount " + mount_);
    } else {
      absl::SleepFor(kUnmountPause);
    }
  }
  return absl::OkStatus();
}

int64_t LoopDisk::FreeBytes() const {
  struct statvfs stats;
  if (statvfs(mount_.c_str(), &stats) != 0) return -1;
  return static_cast<int64_t>(stats.f_bavail * stats.f_frsize);
}

absl::Status LoopDisk::LosePower() {
  const int fd = open(mount_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, mount_);
  uint32_t how = kNoLogFlush;
  const bool lost = ioctl(fd, kFsIocShutdown, &how) == 0;
  const int error = errno;
  close(fd);
  return lost ? absl::OkStatus() : absl::ErrnoToStatus(error, "FS_IOC_SHUTDOWN");
}

absl::Status LoopDisk::Remount() {
  if (absl::Status s = Unmount(); !s.ok()) return s;
  return Mount();
}

}  // namespace sluice::testing
