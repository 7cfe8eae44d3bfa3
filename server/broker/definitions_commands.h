// Definitions: all queues, exchanges and bindings at once.
// What holds for every command: commands.h.
#ifndef SLUICE_SERVER_BROKER_DEFINITIONS_COMMANDS_H_
#define SLUICE_SERVER_BROKER_DEFINITIONS_COMMANDS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "server/broker/queue_commands.h"
#include "server/model/exchange.h"
#include "server/model/queue_config.h"

namespace sluice::broker {

struct Definitions {
  std::vector<QueueConfigChange> queues;
  std::vector<ExchangeChange> exchanges;
  std::vector<Binding> bindings;
};
struct DefinitionChange {
  enum class Action : uint8_t { kNone = 1, kCreate, kUpdate, kDelete };
  std::string resource;  // "queue orders", "exchange events", "binding events -> orders"
  Action action = Action::kNone;
  std::vector<std::string> differences;  // "lease: 30s -> 60s"
};
// Makes what there is agree with the definitions: all of it or nothing. A field that is not set
// stays as it is. Queues that live with a stream are left alone.
struct ApplyDefinitionsCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<std::vector<DefinitionChange>>)>;
  Definitions definitions;
  bool dry_run = false;
  // What is not named goes. A queue that holds messages, or has consumers, refuses the whole:
  // NOT_EMPTY or IN_USE.
  bool prune = false;
  Done done;
};

// All that is defined, as of one moment. Queues that live with a stream, and bindings to them, are
// left out.
struct DefinitionsSnapshot {
  std::vector<QueueConfig> queues;  // in order of name, as exchanges are
  std::vector<Exchange> exchanges;
  std::vector<Binding> bindings;
};
// RESOURCE_EXHAUSTED if the texts in it take more than `bytes_max`: it is taken in one turn.
struct ExportDefinitionsCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<DefinitionsSnapshot>)>;
  size_t bytes_max = 0;
  Done done;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_DEFINITIONS_COMMANDS_H_
