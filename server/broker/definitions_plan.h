// What applying definitions would do: decided and checked as a whole before anything is changed.
#ifndef SLUICE_SERVER_BROKER_DEFINITIONS_PLAN_H_
#define SLUICE_SERVER_BROKER_DEFINITIONS_PLAN_H_

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/broker/definitions_commands.h"
#include "server/model/exchange.h"
#include "server/model/queue_config.h"

namespace sluice::broker {

struct DefinitionsPlan {
  bool prune = false;
  // Everything that is named, as it will be, by name.
  absl::flat_hash_map<std::string, QueueConfig> queues;
  absl::flat_hash_map<std::string, Exchange> exchanges;

  std::vector<QueueConfig> create_queues;
  std::vector<QueueConfig> change_queues;
  std::vector<std::string> remove_queues;
  std::vector<ExchangeChange> create_exchanges;
  std::vector<ExchangeChange> change_exchanges;
  std::vector<std::string> remove_exchanges;
  std::vector<Binding> create_bindings;
  std::vector<Binding> remove_bindings;

  // In the order of the definitions; then what goes, in order of name.
  std::vector<DefinitionChange> changes;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_DEFINITIONS_PLAN_H_
