#include "client/cli/input_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"

namespace sluice::cli {
namespace {

constexpr size_t kChunkBytes = 64 * 1024;

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const auto refuse = [&] { return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path)); };
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return refuse();
  std::string bytes;
  absl::Status status;
  while (true) {
    const size_t had = bytes.size();
    bytes.resize(had + kChunkBytes);
    const ssize_t got = read(fd, bytes.data() + had, kChunkBytes);
    bytes.resize(had + static_cast<size_t>(got > 0 ? got : 0));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) status = refuse();
    if (got <= 0) break;
  }
  close(fd);
  if (!status.ok()) return status;
  return bytes;
}

}  // namespace sluice::cli
