// Reading a file as a whole.
#ifndef SLUICE_CLIENT_CLI_INPUT_FILE_H_
#define SLUICE_CLIENT_CLI_INPUT_FILE_H_

#include <string>

#include "absl/status/statusor.h"

namespace sluice::cli {

// All bytes of a file, pipe or device. The error names the path and says why not, for example that
// it is a directory.
absl::StatusOr<std::string> ReadFile(const std::string& path);

}  // namespace sluice::cli

#endif  // SLUICE_CLIENT_CLI_INPUT_FILE_H_
