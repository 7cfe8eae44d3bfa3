// `sluice`: the command line of a Sluice server.
#include <csignal>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "client/cli/commands.h"
#include "client/cli/server_address.h"

namespace {

constexpr char kFooter[] =
    "Exit codes:\n"
    "  0  done\n"
    "  1  refused by the server, wholly or in part; or the output could not be written\n"
    "  2  wrong usage; nothing was sent\n"
    "  3  the server was not reached, or was lost: it may have happened\n"
    "  4  nothing was there (receive, request)\n"
    "\n"
    "Examples:\n"
    "  sluice queue create orders\n"
    "  sluice publish orders 'two apples'\n"
    "  sluice subscribe orders --ack --follow\n"
    "Every command has examples of its own: sluice publish --help\n";

// What to say of a word that stands where a command must and is none. Empty if there is no such
// word: CLI11 itself says only that a command is missing.
std::string ExplainUnknownCommand(const CLI::App& app) {
  const CLI::App* command = &app;
  std::string words;
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    absl::StrAppend(&words, command->get_name(), " ");
  }
  const std::vector<std::string> rest = app.remaining(/*recurse=*/true);
  if (command->get_require_subcommand_min() == 0 || rest.empty()) return "";
  // After an option that nobody knows it cannot be told which word is its value.
  if (absl::StartsWith(rest.front(), "-")) return "";
  return absl::StrCat("there is no command '", words, rest.front(), "'; see sluice ", words,
                      "--help");
}

int Run(CLI::App& app, const sluice::cli::Context& context, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const bool missing = error.get_exit_code() == static_cast<int>(CLI::ExitCodes::RequiredError);
    if (const std::string text = missing ? ExplainUnknownCommand(app) : ""; !text.empty()) {
      std::cerr << "sluice: " << text << "\n";
      return sluice::cli::kExitUsage;
    }
    return app.exit(error) == 0 ? sluice::cli::kExitOk : sluice::cli::kExitUsage;
  }
  return context.exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  // A reader of our output that goes away is seen as a failed write, not as a sudden death.
  std::signal(SIGPIPE, SIG_IGN);
  // As in the server: Debian builds Abseil with its search for deadlocks on.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  sluice::cli::Context context;
  CLI::App app("Talks to a Sluice message queue server.", "sluice");
  app.footer(kFooter);
  app.set_version_flag("--version", "sluice " SLUICE_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--server", context.server, "Address of the server, host:port")
      ->envname("SLUICE_SERVER")
      ->check(
          [](const std::string& address) {
            return std::string(sluice::cli::CheckServerAddress(address).message());
          })
      ->capture_default_str();
  sluice::cli::AddDuration(app, "--timeout", &context.timeout,
                           "How long to wait for an answer [10s]");
  app.add_flag("--json", context.json, "Print proto3 JSON, one object a line");
  sluice::cli::AddQueueCommands(app, context);
  sluice::cli::AddPublishCommand(app, context);
  sluice::cli::AddSubscribeCommand(app, context);
  sluice::cli::AddReceiveCommand(app, context);
  sluice::cli::AddSettleCommands(app, context);
  sluice::cli::AddWorkCommand(app, context);
  sluice::cli::AddRequestCommands(app, context);
  sluice::cli::AddMoveCommand(app, context);
  sluice::cli::AddMessageCommands(app, context);
  sluice::cli::AddRoutingCommands(app, context);
  sluice::cli::AddConsumerCommands(app, context);
  sluice::cli::AddDefinitionsCommands(app, context);
  sluice::cli::AddServerCommands(app, context);
  sluice::cli::AddBenchCommands(app, context);
  return sluice::cli::FinishOutput(Run(app, context, argc, argv));
}
