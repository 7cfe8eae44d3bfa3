// Exchanges, bindings and definitions.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/broker/config_plan.h"
#include "tests/unit/broker/model_features.h"

namespace sluice::broker {
namespace {

constexpr uint64_t kExchanges = 4;
constexpr int kManyPerPage = 1000;

const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

}  // namespace

std::string FeatureDriver::SomeExchange() { return absl::StrCat("e", Below(kExchanges)); }

template <typename Command>
void FeatureDriver::ApplyExpecting(Command command, ErrorReason expected, const char* what) {
  const CallRef call = expected == ErrorReason::kUnspecified ? NewCall() : nullptr;
  bool refused = false;
  command.done = [this, expected, what, call, &refused](auto result) {
    const absl::Status& status = StatusOf(result);
    if (call && !status.ok()) return Fail(absl::StrCat(what, ": ", status.ToString()));
    if (call) return Answered(call);
    refused = true;
    Check(ReasonOf(status) == expected, absl::StrCat(what, " refused: ", status.ToString()));
  };
  world_.shard->Apply(std::move(command), now());
  if (!call) Check(refused, absl::StrCat(what, " was not refused"));
}

// ---- exchanges

void FeatureDriver::DoExchange() {
  if (!first_of_turn_) return;
  ModelRouting& routing = model_.routing;
  const std::string name = SomeExchange();
  const auto existing = routing.exchanges.find(name);
  const bool exists = existing != routing.exchanges.end();
  const uint64_t dice = Below(100);
  if (dice < 25) {
    DeleteExchangeCommand command;
    command.exchange = name;
    command.if_unused = Chance(50);
    const bool in_use =
        routing.IsAlternate(name) || (command.if_unused && routing.IsBound(name));
    const ErrorReason expected = !exists  ? ErrorReason::kExchangeNotFound
                                 : in_use ? ErrorReason::kInUse
                                          : ErrorReason::kUnspecified;
    if (expected == ErrorReason::kUnspecified) routing.RemoveExchange(name);
    ++model_.seen[in_use ? "exchanges in use" : "exchanges deleted"];
    return ApplyExpecting(std::move(command), expected, "delete exchange");
  }
  ExchangeChange change;
  change.name = name;
  if (Chance(50)) change.alternate_exchange = Chance(20) ? "" : SomeExchange();
  if (Chance(10)) change.labels = {{"label", absl::StrCat(Below(3))}};
  const std::string alternate = change.alternate_exchange.value_or("");
  const ErrorReason bad_alternate = alternate == name ? ErrorReason::kInvalidField
                                    : !alternate.empty() && !routing.exchanges.contains(alternate)
                                        ? ErrorReason::kExchangeNotFound
                                        : ErrorReason::kUnspecified;
  if (dice < 45) {
    UpdateExchangeCommand command;
    command.exchange = change;
    command.replace = Chance(30);
    const ErrorReason expected = exists ? bad_alternate : ErrorReason::kExchangeNotFound;
    if (expected == ErrorReason::kUnspecified) {
      Exchange& exchange = existing->second;
      if (command.replace) exchange = {name, exchange.type, "", {}};
      if (change.alternate_exchange) exchange.alternate_exchange = alternate;
      if (change.labels) exchange.labels = *change.labels;
    }
    return ApplyExpecting(std::move(command), expected, "update exchange");
  }
  CreateExchangeCommand command;
  change.type = OneOf({ExchangeType::kDirect, ExchangeType::kFanout, ExchangeType::kTopic,
                       ExchangeType::kHeaders});
  command.exchange = change;
  ErrorReason expected = bad_alternate;
  if (exists) {
    const Exchange& exchange = existing->second;
    const bool agrees = exchange.type == *change.type &&
                        (!change.alternate_exchange || exchange.alternate_exchange == alternate) &&
                        (!change.labels || exchange.labels == *change.labels);
    expected = agrees ? ErrorReason::kUnspecified : ErrorReason::kConfigConflict;
  } else if (expected == ErrorReason::kUnspecified) {
    routing.exchanges[name] = {name, *change.type, alternate,
                               change.labels.value_or(std::map<std::string, std::string>())};
  }
  ApplyExpecting(std::move(command), expected, "create exchange");
}

// ---- bindings

// Mostly one that may be; empty: to another exchange.
Binding FeatureDriver::SomeBinding(const std::string& queue) {
  Binding binding;
  binding.exchange = SomeExchange();
  binding.queue = queue;
  if (queue.empty()) binding.to_exchange = SomeExchange();
  binding.binding_key =
      OneOf<const char*>({"", "a", "b", "a.b", "a.*", "#", "a.#", "*.b", "#.b.#", "*"});
  if (Chance(60)) binding.headers["k"] = OneOf<const char*>({"1", "2"});
  if (Chance(30)) binding.headers["l"] = "1";
  if (Chance(40)) binding.header_match = HeaderMatch::kAny;
  return binding;
}

// Why it cannot be, its queue apart.
ErrorReason FeatureDriver::RefusalOf(const Binding& binding) const {
  const auto& exchanges = model_.routing.exchanges;
  const auto from = exchanges.find(binding.exchange);
  if (from == exchanges.end()) return ErrorReason::kExchangeNotFound;
  const bool any_of_none = from->second.type == ExchangeType::kHeaders &&
                           binding.headers.empty() && binding.header_match == HeaderMatch::kAny;
  if (binding.exchange == binding.to_exchange || any_of_none) return ErrorReason::kInvalidField;
  if (!binding.to_exchange.empty() && !exchanges.contains(binding.to_exchange)) {
    return ErrorReason::kExchangeNotFound;
  }
  return ErrorReason::kUnspecified;
}

void FeatureDriver::DoBinding() {
  if (!first_of_turn_) return;
  auto& bindings = model_.routing.bindings;
  if (Chance(30) && !bindings.empty()) {
    auto it = bindings.begin();
    std::advance(it, Below(bindings.size()));
    DeleteBindingCommand command;
    command.binding = Chance(85) ? *it : SomeBinding(SomeName());
    ErrorReason expected = ErrorReason::kUnspecified;
    if (!bindings.contains(command.binding)) {
      expected = model_.routing.exchanges.contains(command.binding.exchange)
                     ? ErrorReason::kBindingNotFound
                     : ErrorReason::kExchangeNotFound;
    }
    bindings.erase(command.binding);
    return ApplyExpecting(std::move(command), expected, "delete binding");
  }
  CreateBindingCommand command;
  command.binding = SomeBinding(Chance(75) ? SomeName() : "");
  const Binding& binding = command.binding;
  const ErrorReason expected = !binding.queue.empty() && !model_.ledger.Find(binding.queue)
                                   ? ErrorReason::kQueueNotFound
                                   : RefusalOf(binding);
  if (expected == ErrorReason::kUnspecified) {
    bindings.insert(binding);
    ++model_.seen["bindings"];
  }
  ApplyExpecting(std::move(command), expected, "create binding");
}

void FeatureDriver::DoListRoutes() {
  if (!first_of_turn_) return;
  ListBindingsCommand bindings;
  bindings.limit = kManyPerPage;
  bindings.done = [this, expected = model_.routing.bindings, call = NewCall()](auto result) {
    Answered(call);
    Check(result.ok() && std::set<Binding>(result->bindings.begin(), result->bindings.end()) ==
                             expected,
          "other bindings are listed");
  };
  world_.shard->Apply(std::move(bindings), now());
  ListExchangesCommand exchanges;
  exchanges.limit = kManyPerPage;
  exchanges.done = [this, expected = model_.routing.exchanges, call = NewCall()](auto result) {
    Answered(call);
    if (!result.ok()) return Fail("exchanges are not listed");
    std::map<std::string, Exchange> listed;
    for (const Exchange& exchange : result->exchanges) listed[exchange.name] = exchange;
    Check(listed == expected, "other exchanges are listed");
  };
  world_.shard->Apply(std::move(exchanges), now());
}

// What is defined, but for what lives with a stream.
void FeatureDriver::DoExport() {
  if (!first_of_turn_ || !model_.Exact()) return;
  ExportDefinitionsCommand command;
  command.bytes_max = 1 << 20;
  std::map<std::string, QueueConfig> queues;
  std::set<std::string> temporary;
  for (const LedgerQueue* queue : model_.ledger.live()) {
    if (queue->row.temporary) temporary.insert(queue->name());
    else queues[queue->name()] = queue->row.config;
  }
  std::set<Binding> bindings;
  for (const Binding& binding : model_.routing.bindings) {
    if (!temporary.contains(binding.queue)) bindings.insert(binding);
  }
  command.done = [this, queues = std::move(queues), bindings = std::move(bindings),
                  exchanges = model_.routing.exchanges, call = NewCall()](auto result) {
    Answered(call);
    if (!result.ok()) return Fail("definitions are not exported");
    std::map<std::string, QueueConfig> exported;
    for (const QueueConfig& config : result->queues) exported[config.name] = config;
    Check(exported == queues, "other queues are exported");
    std::map<std::string, Exchange> routes;
    for (const Exchange& exchange : result->exchanges) routes[exchange.name] = exchange;
    Check(routes == exchanges, "other exchanges are exported");
    Check(std::set<Binding>(result->bindings.begin(), result->bindings.end()) == bindings,
          "other bindings are exported");
    ++model_.seen["definitions exported"];
  };
  world_.shard->Apply(std::move(command), now());
}

// ---- definitions

struct FeatureDriver::ExpectedDefinitions {
  std::set<ErrorReason> refusals;  // empty: it must be done
  std::map<std::string, DefinitionChange::Action> changes;  // by resource; bindings apart
  size_t bindings_made = 0;
  size_t bindings_gone = 0;
  ModelRouting routing;
  std::map<std::string, QueueConfig> queues;  // those that are named
  std::vector<std::string> queues_gone;
};

Definitions FeatureDriver::SomeDefinitions(bool prune) {
  Definitions definitions;
  // Mostly of those that may go.
  const bool spare_the_full = Chance(80);
  for (const std::string name : {"q0", "q1", "q2", "q3", "q4"}) {
    const LedgerQueue* queue = model_.ledger.Find(name);
    bool full = queue && queue->messages > 0;
    ForEachConsumer([&](const FeatureConsumer& consumer) {
      full |= queue && consumer.qid == queue->qid && !consumer.ended && !consumer.gone;
    });
    if (Chance(!prune ? 35 : !full ? 15 : spare_the_full ? 0 : 20)) continue;
    QueueConfigChange change;
    if (!queue) change = SomeConfig(name);
    change.name = name;
    if (queue && Chance(40)) change.ttl_ms = OneOf<int64_t>({0, 100, 3000});
    if (queue && Chance(30)) change.max_length = OneOf<int64_t>({0, 10, 50});
    definitions.queues.push_back(std::move(change));
  }
  for (uint64_t i = 0; i < kExchanges; ++i) {
    if (Chance(prune ? 10 : 30)) continue;
    ExchangeChange change;
    change.name = absl::StrCat("e", i);
    const auto existing = model_.routing.exchanges.find(change.name);
    const bool exists = existing != model_.routing.exchanges.end();
    if (!exists || Chance(30)) {
      change.type = exists && Chance(90) ? existing->second.type
                                         : OneOf({ExchangeType::kDirect, ExchangeType::kFanout,
                                                  ExchangeType::kTopic, ExchangeType::kHeaders});
    }
    if (Chance(prune ? 5 : 30)) change.alternate_exchange = Chance(40) ? "" : SomeExchange();
    definitions.exchanges.push_back(std::move(change));
  }
  const auto& bindings = model_.routing.bindings;
  for (const Binding& binding : bindings) {
    if (Chance(50)) definitions.bindings.push_back(binding);
  }
  for (uint64_t i = Below(prune ? 2 : 4); i > 0; --i) {
    definitions.bindings.push_back(SomeBinding(Chance(75) ? absl::StrCat("q", Below(5)) : ""));
  }
  return definitions;
}

FeatureDriver::ExpectedDefinitions FeatureDriver::Expect(const Definitions& definitions,
                                                         bool prune) {
  using Action = DefinitionChange::Action;
  ExpectedDefinitions expected;
  const ModelRouting& old = model_.routing;
  const auto refuse = [&](ErrorReason reason) { expected.refusals.insert(reason); };
  for (const QueueConfigChange& change : definitions.queues) {
    const LedgerQueue* queue = model_.ledger.Find(change.name);
    QueueConfig config;
    if (queue) config = queue->row.config;
    ApplyChange(change, config);
    const Action action = !queue                         ? Action::kCreate
                          : config == queue->row.config ? Action::kNone
                                                         : Action::kUpdate;
    expected.changes[absl::StrCat("queue ", change.name)] = action;
    expected.queues[change.name] = config;
  }
  for (const LedgerQueue* queue : model_.ledger.live()) {
    if (queue->row.temporary || expected.queues.contains(queue->name()) || !prune) continue;
    if (queue->messages > 0) refuse(ErrorReason::kNotEmpty);
    bool consumed = false;
    ForEachConsumer([&](const FeatureConsumer& consumer) {
      consumed |= consumer.qid == queue->qid && !consumer.ended && !consumer.gone;
    });
    if (consumed) refuse(ErrorReason::kInUse);
    expected.queues_gone.push_back(queue->name());
    expected.changes[absl::StrCat("queue ", queue->name())] = Action::kDelete;
  }
  const auto will_be = [&](const std::string& name) {
    if (expected.queues.contains(name)) return true;
    const LedgerQueue* queue = model_.ledger.Find(name);
    return queue && (queue->row.temporary || !prune);
  };
  for (const auto& [name, config] : expected.queues) {
    const std::string& dead = config.dead_letter_queue;
    if (!dead.empty() && !will_be(dead)) refuse(ErrorReason::kQueueNotFound);
  }
  // Exchanges.
  ModelRouting& made = expected.routing;
  if (!prune) made.exchanges = old.exchanges;
  for (const ExchangeChange& change : definitions.exchanges) {
    const auto existing = old.exchanges.find(change.name);
    const bool exists = existing != old.exchanges.end();
    Exchange exchange;
    if (exists) exchange = existing->second;
    ApplyChange(change, exchange);
    if (exists && exchange.type != existing->second.type) refuse(ErrorReason::kConfigConflict);
    expected.changes[absl::StrCat("exchange ", change.name)] =
        !exists                          ? Action::kCreate
        : exchange == existing->second ? Action::kNone
                                         : Action::kUpdate;
    made.exchanges[change.name] = exchange;
  }
  for (const auto& [name, exchange] : old.exchanges) {
    if (made.exchanges.contains(name)) continue;
    expected.changes[absl::StrCat("exchange ", name)] = Action::kDelete;
  }
  for (const ExchangeChange& change : definitions.exchanges) {
    const std::string& alternate = made.exchanges.at(change.name).alternate_exchange;
    if (alternate == change.name) refuse(ErrorReason::kInvalidField);
    if (!alternate.empty() && !made.exchanges.contains(alternate)) {
      refuse(ErrorReason::kExchangeNotFound);
    }
  }
  // Bindings.
  for (const Binding& binding : old.bindings) {
    const LedgerQueue* queue = model_.ledger.Find(binding.queue);
    const bool stays = !prune || (queue && queue->row.temporary);
    if (stays && made.exchanges.contains(binding.exchange)) made.bindings.insert(binding);
  }
  for (const Binding& binding : definitions.bindings) {
    const auto from = made.exchanges.find(binding.exchange);
    if (from == made.exchanges.end()) {
      refuse(ErrorReason::kExchangeNotFound);
      continue;
    }
    const bool any_of_none = from->second.type == ExchangeType::kHeaders &&
                             binding.headers.empty() && binding.header_match == HeaderMatch::kAny;
    if (binding.exchange == binding.to_exchange || any_of_none) refuse(ErrorReason::kInvalidField);
    if (!binding.to_exchange.empty() && !made.exchanges.contains(binding.to_exchange)) {
      refuse(ErrorReason::kExchangeNotFound);
    }
    if (!binding.queue.empty() && !will_be(binding.queue)) refuse(ErrorReason::kQueueNotFound);
    const bool is_new = !old.bindings.contains(binding) && !made.bindings.contains(binding);
    made.bindings.insert(binding);
    expected.bindings_made += is_new;
  }
  for (const Binding& binding : old.bindings) {
    // Those of a temporary queue are its stream's.
    const LedgerQueue* queue = model_.ledger.Find(binding.queue);
    expected.bindings_gone +=
        !(queue && queue->row.temporary) && !made.bindings.contains(binding);
  }
  return expected;
}

void FeatureDriver::DoDefinitions() {
  if (!first_of_turn_) return;
  ApplyDefinitionsCommand command;
  command.prune = Chance(40);
  command.dry_run = Chance(25);
  command.definitions = SomeDefinitions(command.prune);
  const ExpectedDefinitions expected = Expect(command.definitions, command.prune);
  if (!expected.refusals.empty()) {
    bool refused = false;
    command.done = [&](auto result) {
      refused = true;
      Check(!result.ok() && expected.refusals.contains(ReasonOf(result.status())),
            absl::StrCat("definitions refused: ", result.status().ToString()));
    };
    world_.shard->Apply(std::move(command), now());
    ++model_.seen["definitions refused"];
    return Check(refused, "definitions that cannot be were applied");
  }
  const bool dry_run = command.dry_run;
  if (!dry_run) {
    model_.routing = expected.routing;
    for (const auto& [name, config] : expected.queues) {
      model_.AskRow(name);
      const LedgerQueue* queue = model_.ledger.Find(name);
      if (queue) model_.NoteConfig(queue->qid, queue->row.config);
    }
    for (const std::string& name : expected.queues_gone) {
      model_.AskGone(name);
      must_be_gone_.push_back(name);
    }
    deleted_now_ = true;  // the rest of the turn would have to know
    model_.Muddle();
    if (!expected.queues_gone.empty() || expected.bindings_gone > 0) {
      ++model_.seen["definitions pruned"];
    }
    ++model_.seen["definitions applied"];
  } else {
    ++model_.seen["definitions tried"];
  }
  command.done = [this, expected, call = NewCall()](auto result) {
    if (!result.ok()) {
      return Fail(absl::StrCat("definitions refused: ", result.status().ToString()));
    }
    Answered(call);
    auto changes = expected.changes;
    size_t made = 0;
    size_t gone = 0;
    for (const DefinitionChange& change : *result) {
      if (change.resource.rfind("binding ", 0) == 0) {
        made += change.action == DefinitionChange::Action::kCreate;
        gone += change.action == DefinitionChange::Action::kDelete;
        continue;
      }
      const auto it = changes.find(change.resource);
      if (it == changes.end() || it->second != change.action) {
        return Fail(absl::StrCat("another change of ", change.resource));
      }
      changes.erase(it);
    }
    Check(changes.empty(), "a change is not told");
    Check(made == expected.bindings_made, "other bindings are made");
    Check(gone == expected.bindings_gone, "other bindings go");
  };
  world_.shard->Apply(std::move(command), now());
}

}  // namespace sluice::broker
