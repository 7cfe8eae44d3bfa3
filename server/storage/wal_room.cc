#include "server/storage/wal_room.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace sluice::storage {
namespace {

// Small enough that the sync which takes the zeros along is hardly longer than others.
constexpr uint64_t kChunkBytes = 64 * 1024;
// Commits of up to two pages: the zeros cost no more than the size's own write would.
constexpr uint64_t kSmallCommitBytes = 8 * 1024;

}  // namespace

WalRoom::~WalRoom() {
  if (fd_ != -1) close(fd_);
}

void WalRoom::BeforeAppend(uint64_t bytes) {
  const uint64_t begin = std::max(appended_ + bytes, end_);
  appended_ += bytes;
  if (appended_ <= end_ || useless_) return;
  if (appended_ - judged_at_ < kChunkBytes) return;
  if (!CommitsAreSmall()) return;
  if (Make(begin, kChunkBytes)) {
    end_ = begin + kChunkBytes;
  } else {
    useless_ = true;
  }
}

bool WalRoom::CommitsAreSmall() {
  const uint64_t bytes = appended_ - judged_at_;
  const uint64_t syncs = syncs_.exchange(0, std::memory_order_relaxed);
  judged_at_ = appended_;
  return bytes <= syncs * kSmallCommitBytes;
}

bool WalRoom::Make(uint64_t begin, uint64_t bytes) {
  static constexpr char kZeros[kChunkBytes] = {};
  if (fd_ == -1) fd_ = open(path_.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd_ == -1) return false;
  while (bytes > 0) {
    const ssize_t written = pwrite(fd_, kZeros, bytes, static_cast<off_t>(begin));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    begin += static_cast<uint64_t>(written);
    bytes -= static_cast<uint64_t>(written);
  }
  return true;
}

}  // namespace sluice::storage
