// Runs the `sluice` command line.
#ifndef SLUICE_TESTS_SUPPORT_COMMAND_H_
#define SLUICE_TESTS_SUPPORT_COMMAND_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "tests/support/server_process.h"

namespace sluice::testing {

struct CommandResult {
  int exit_code = -1;  // 128 + signal if a signal ended it
  std::string out;
  std::string err;
};

// `sluice ARGUMENTS` against the server at `address`, with `input` as its standard input; waits for
// its end. The SLUICE_CLI_BIN variable names another binary. Thread-safe.
CommandResult RunSluice(const std::string& address, const std::vector<std::string>& arguments,
                        const std::string& input = "");

// The same, not waited for. One thread.
class SluiceCommand {
 public:
  enum class Input { kEnds, kStaysOpen, kClosed };
  SluiceCommand(const std::string& address, const std::vector<std::string>& arguments,
                const std::string& input = "", Input then = Input::kEnds);
  // Kills it if it still runs.
  ~SluiceCommand();
  SluiceCommand(const SluiceCommand&) = delete;
  SluiceCommand& operator=(const SluiceCommand&) = delete;

  void Signal(int signal);
  // Waits for its end. Once.
  CommandResult Wait();

 private:
  TempDir dir_;
  pid_t child_ = -1;
  int input_fd_ = -1;  // of what stays open
};

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_SUPPORT_COMMAND_H_
