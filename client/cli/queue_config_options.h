// Options that say how a queue works.
#ifndef SLUICE_CLIENT_CLI_QUEUE_CONFIG_OPTIONS_H_
#define SLUICE_CLIENT_CLI_QUEUE_CONFIG_OPTIONS_H_

#include <google/protobuf/field_mask.pb.h>

#include "CLI/CLI.hpp"
#include "sluice/v1/queue.pb.h"

namespace sluice::cli {

// Each option given sets its field in `config` and adds its path to `mask`. Both must live until
// the command ran.
void AddQueueConfigOptions(CLI::App& app, v1::QueueConfig* config,
                           google::protobuf::FieldMask* mask);

}  // namespace sluice::cli

#endif  // SLUICE_CLIENT_CLI_QUEUE_CONFIG_OPTIONS_H_
