// Exchanges and bindings as a naive reader of the contract has them: a message is tried on every
// binding.
#ifndef SLUICE_TESTS_UNIT_BROKER_MODEL_ROUTING_H_
#define SLUICE_TESTS_UNIT_BROKER_MODEL_ROUTING_H_

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "server/model/exchange.h"

namespace sluice::broker {

// What decides where a message goes.
struct ModelRoute {
  std::string exchange;  // empty: straight to a queue
  std::string routing_key;
  std::vector<std::pair<std::string, std::string>> attributes;
};

struct ModelRouting {
  std::map<std::string, Exchange> exchanges;
  std::set<Binding> bindings;

  friend bool operator==(const ModelRouting&, const ModelRouting&) = default;

  // The queues that it goes to; nothing: there is no such exchange.
  std::optional<std::set<std::string>> Route(const ModelRoute& route) const;
  // What goes with it.
  void RemoveQueue(const std::string& name);
  void RemoveExchange(const std::string& name);
  // Another one's alternate_exchange.
  bool IsAlternate(const std::string& name) const;
  bool IsBound(const std::string& name) const;
};

}  // namespace sluice::broker

#endif  // SLUICE_TESTS_UNIT_BROKER_MODEL_ROUTING_H_
