#include "client/cli/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace sluice::cli {
namespace {

// Enough for one write per batch of usual deliveries.
constexpr size_t kBufferBytes = 256 << 10;

}  // namespace

absl::StatusOr<OutputFile> OutputFile::Create(const std::string& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return absl::ErrnoToStatus(errno, "cannot write " + path);
  OutputFile file;
  file.fd_ = fd;
  file.owned_ = true;
  return file;
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : fd_(other.fd_),
      owned_(std::exchange(other.owned_, false)),
      broken_pipe_(other.broken_pipe_),
      buffer_(std::move(other.buffer_)),
      status_(std::move(other.status_)) {
  other.buffer_.clear();
}

OutputFile::~OutputFile() {
  Flush().IgnoreError();  // whoever cares flushed before
  if (owned_) ::close(fd_);
}

absl::Status OutputFile::AppendLine(absl::string_view line) {
  buffer_.append(line.data(), line.size());
  return Append("\n");
}

absl::Status OutputFile::Append(absl::string_view text) {
  buffer_.append(text.data(), text.size());
  return buffer_.size() >= kBufferBytes ? Flush() : status_;
}

absl::Status OutputFile::Flush() {
  size_t done = 0;
  while (status_.ok() && done < buffer_.size()) {
    const ssize_t n = ::write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (n >= 0) {
      done += static_cast<size_t>(n);
    } else if (errno != EINTR) {
      broken_pipe_ = errno == EPIPE;
      status_ = absl::ErrnoToStatus(errno, "cannot write the output");
    }
  }
  buffer_.clear();
  return status_;
}

}  // namespace sluice::cli
