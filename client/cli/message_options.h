// Options that say everything about a message but its body.
#ifndef SLUICE_CLIENT_CLI_MESSAGE_OPTIONS_H_
#define SLUICE_CLIENT_CLI_MESSAGE_OPTIONS_H_

#include "CLI/CLI.hpp"
#include "sluice/v1/message.pb.h"

namespace sluice::cli {

// `message` must live until the command ran.
void AddMessageOptions(CLI::App& app, v1::Message* message);

}  // namespace sluice::cli

#endif  // SLUICE_CLIENT_CLI_MESSAGE_OPTIONS_H_
