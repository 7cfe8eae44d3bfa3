// Runs the `sluice` command line.
#ifndef SLUICE_TESTS_SUPPORT_COMMAND_H_
#define SLUICE_TESTS_SUPPORT_COMMAND_H_

#include <string>
#include <vector>

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

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_SUPPORT_COMMAND_H_
