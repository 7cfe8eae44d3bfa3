#include "client/cli/line_input.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

namespace sluice::cli {
namespace {

constexpr size_t kChunkBytes = 64 * 1024;

}  // namespace

LineInput::LineInput(int fd) : fd_(fd) {
  // Not in the place of a standard stream that is closed, which would then be read.
  const int event = eventfd(0, EFD_CLOEXEC);
  if (event >= 0) stop_fd_ = fcntl(event, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  if (stop_fd_ < 0) status_ = absl::ErrnoToStatus(errno, "cannot make an eventfd");
  if (event >= 0) close(event);
}

LineInput::~LineInput() {
  if (stop_fd_ >= 0) close(stop_fd_);
}

void LineInput::Stop() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(stop_fd_, &one, sizeof(one));
}

bool LineInput::Next(std::string* line) {
  size_t searched = begin_;
  while (true) {
    const size_t end = buffer_.find('\n', searched);
    if (end != std::string::npos) {
      line->assign(buffer_, begin_, end - begin_);
      bytes_ += static_cast<int64_t>(end + 1 - begin_);
      begin_ = end + 1;
      return true;
    }
    const size_t had = buffer_.size() - begin_;
    if (!Fill()) break;
    searched = begin_ + had;
  }
  if (!status_.ok() || stopped_ || begin_ == buffer_.size()) return false;
  line->assign(buffer_, begin_);
  bytes_ += static_cast<int64_t>(line->size());
  begin_ = buffer_.size();
  return true;
}

bool LineInput::Fill() {
  if (ended_ || stopped_ || !status_.ok()) return false;
  buffer_.erase(0, begin_);
  begin_ = 0;
  while (true) {
    pollfd wanted[] = {{stop_fd_, POLLIN, 0}, {fd_, POLLIN, 0}};
    if (poll(wanted, 2, /*timeout=*/-1) < 0 && errno != EINTR) {
      status_ = absl::ErrnoToStatus(errno, "cannot wait for input");
      return false;
    }
    if (wanted[0].revents != 0) {
      stopped_ = true;
      return false;
    }
    if (wanted[1].revents == 0) continue;
    const size_t had = buffer_.size();
    buffer_.resize(had + kChunkBytes);
    const ssize_t got = read(fd_, buffer_.data() + had, kChunkBytes);
    const int error = errno;
    buffer_.resize(had + static_cast<size_t>(got > 0 ? got : 0));
    if (got > 0) return true;
    if (got < 0 && (error == EINTR || error == EAGAIN)) continue;
    if (got < 0) status_ = absl::ErrnoToStatus(error, "cannot read the input");
    ended_ = true;
    return false;
  }
}

}  // namespace sluice::cli
