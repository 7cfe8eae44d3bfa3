// Lines of an input that may take its time, as a terminal or a pipe does.
#ifndef SLUICE_CLIENT_CLI_LINE_INPUT_H_
#define SLUICE_CLIENT_CLI_LINE_INPUT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace sluice::cli {

// One thread, but for Stop.
class LineInput {
 public:
  // Borrows `fd`, which has to be open for reading.
  explicit LineInput(int fd);
  ~LineInput();
  LineInput(const LineInput&) = delete;
  LineInput& operator=(const LineInput&) = delete;

  // The next line without its '\n'; what follows the last '\n' is a line if it is not empty. False:
  // there are no more, it was stopped, or reading failed.
  bool Next(std::string* line);
  // Ends a Next that waits, and all that follow. Any thread.
  void Stop();

  bool stopped() const { return stopped_; }
  const absl::Status& status() const { return status_; }
  // Of the lines that were given out, with their '\n'.
  int64_t bytes() const { return bytes_; }

 private:
  // False: nothing more will come.
  bool Fill();

  const int fd_;
  int stop_fd_ = -1;  // readable once stopped
  std::string buffer_;
  size_t begin_ = 0;  // of what was not given out yet
  bool ended_ = false;
  bool stopped_ = false;
  int64_t bytes_ = 0;
  absl::Status status_;
};

}  // namespace sluice::cli

#endif  // SLUICE_CLIENT_CLI_LINE_INPUT_H_
