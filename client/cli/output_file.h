// Buffered writing to a file descriptor that tells when it failed.
#ifndef SLUICE_CLIENT_CLI_OUTPUT_FILE_H_
#define SLUICE_CLIENT_CLI_OUTPUT_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice::cli {

// Not thread-safe. After a failure every call answers that failure.
class OutputFile {
 public:
  // Standard output.
  OutputFile() = default;
  // Created or truncated.
  static absl::StatusOr<OutputFile> Create(const std::string& path);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();  // flushes

  // Written at once when the buffer is full, else by Flush.
  absl::Status AppendLine(absl::string_view line);
  // The same of text that may be any part of a line, or many.
  absl::Status Append(absl::string_view text);
  absl::Status Flush();
  // The reader of the pipe went away.
  bool broken_pipe() const { return broken_pipe_; }

 private:
  int fd_ = 1;
  bool owned_ = false;
  bool broken_pipe_ = false;
  std::string buffer_;
  absl::Status status_;
};

}  // namespace sluice::cli

#endif  // SLUICE_CLIENT_CLI_OUTPUT_FILE_H_
