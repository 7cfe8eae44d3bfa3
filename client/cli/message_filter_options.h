// Options that select messages of a queue.
#ifndef SLUICE_CLIENT_CLI_MESSAGE_FILTER_OPTIONS_H_
#define SLUICE_CLIENT_CLI_MESSAGE_FILTER_OPTIONS_H_

#include "CLI/CLI.hpp"
#include "sluice/v1/message_admin.pb.h"

namespace sluice::cli {

// `filter` must live until the command ran.
void AddMessageFilterOptions(CLI::App& app, v1::MessageFilter* filter);

// Whether any of them was given.
bool IsSet(const v1::MessageFilter& filter);

}  // namespace sluice::cli

#endif  // SLUICE_CLIENT_CLI_MESSAGE_FILTER_OPTIONS_H_
