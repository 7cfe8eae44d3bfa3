// Settings from where operators put them: flags are stronger than SLUICE_* variables, those are
// stronger than the --config file, and that is stronger than the defaults.
#ifndef SLUICE_SERVER_CONFIG_COMMAND_LINE_H_
#define SLUICE_SERVER_CONFIG_COMMAND_LINE_H_

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/config/settings.h"

namespace sluice::config {

struct CommandLine {
  Settings settings;
  // --help or --version was asked for: print this and exit 0 instead of starting.
  std::optional<std::string> text;
};

// The value of an environment variable, or nothing.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;
Environment ProcessEnvironment();

// `arguments` without the program's name. Every error names the setting and where it was set.
// SLUICE_* variables that are no setting are ignored: Kubernetes makes some for every service.
absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments,
                                             const Environment& environment,
                                             std::string_view version);

}  // namespace sluice::config

#endif  // SLUICE_SERVER_CONFIG_COMMAND_LINE_H_
