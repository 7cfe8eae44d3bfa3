// Runs a shell command over a message.
#ifndef SLUICE_CLIENT_CLI_SHELL_H_
#define SLUICE_CLIENT_CLI_SHELL_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "sluice/v1/delivery.pb.h"
#include "sluice/v1/settle.pb.h"

namespace sluice::cli {

// As large as a body may be under any configuration of a server.
inline constexpr size_t kShellOutputBytesMax = 15 << 20;

// `sh -c command` with `input` as its standard input, `environment` beside ours (and instead of what
// has the same name there), its standard error ours. What it wrote, once it has ended with exit code
// 0; otherwise FAILED_PRECONDITION says how it ended. RESOURCE_EXHAUSTED: it wrote more than
// kShellOutputBytesMax.
absl::StatusOr<std::string> RunShell(const std::string& command, const std::string& input,
                                     const std::map<std::string, std::string>& environment);

// The same over a message: its body is the input.
absl::StatusOr<std::string> RunShell(const std::string& command, const v1::Delivery& delivery);
inline constexpr char kShellHelp[] =
    "Shell command, with the body as its input; sees SLUICE_QUEUE, SLUICE_MESSAGE_ID, SLUICE_GROUP "
    "and SLUICE_ATTEMPT";

// Gives a message back as failed for that reason; the receipt is not filled in.
v1::NackItem RetryBecause(const absl::Status& status);

}  // namespace sluice::cli

#endif  // SLUICE_CLIENT_CLI_SHELL_H_
