// The commands of `sluice`, one function per file; each adds its subcommands to `app`.
#ifndef SLUICE_CLIENT_CLI_COMMANDS_H_
#define SLUICE_CLIENT_CLI_COMMANDS_H_

#include "client/cli/context.h"

namespace sluice::cli {

void AddQueueCommands(CLI::App& app, Context& context);
void AddPublishCommand(CLI::App& app, Context& context);
void AddSubscribeCommand(CLI::App& app, Context& context);
void AddReceiveCommand(CLI::App& app, Context& context);
void AddSettleCommands(CLI::App& app, Context& context);
void AddWorkCommand(CLI::App& app, Context& context);
void AddRequestCommands(CLI::App& app, Context& context);
void AddMoveCommand(CLI::App& app, Context& context);
void AddMessageCommands(CLI::App& app, Context& context);
void AddRoutingCommands(CLI::App& app, Context& context);
void AddConsumerCommands(CLI::App& app, Context& context);
void AddDefinitionsCommands(CLI::App& app, Context& context);
void AddServerCommands(CLI::App& app, Context& context);
void AddBenchCommands(CLI::App& app, Context& context);

}  // namespace sluice::cli

#endif  // SLUICE_CLIENT_CLI_COMMANDS_H_
