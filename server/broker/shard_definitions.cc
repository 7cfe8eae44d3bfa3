// Making what there is agree with definitions: first a plan, checked as a whole, then one batch.
#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/strings.h"
#include "server/broker/config_plan.h"
#include "server/broker/shard.h"

namespace sluice::broker {
namespace {

using Action = DefinitionChange::Action;

std::string PathOf(const char* list, size_t index) {
  return absl::StrCat("definitions.", list, "[", index, "]");
}

absl::Status At(const std::string& path, const absl::Status& status) {
  return MakeFieldError(path, ToStd(status.message()), ReasonOf(status));
}

absl::Status DefinedTwice(const std::string& path, const std::string& name) {
  return MakeFieldError(path, absl::StrCat("'", name, "' is defined twice"));
}

size_t TextBytes(const std::map<std::string, std::string>& pairs) {
  size_t bytes = 0;
  for (const auto& [key, value] : pairs) bytes += key.size() + value.size();
  return bytes;
}

std::string QueueResource(const std::string& name) { return absl::StrCat("queue ", name); }
std::string ExchangeResource(const std::string& name) { return absl::StrCat("exchange ", name); }
std::string BindingResource(const Binding& binding) {
  return absl::StrCat("binding ", binding.exchange, " -> ", binding.queue, binding.to_exchange);
}

}  // namespace

// ---- queues

absl::Status Shard::PlanQueues(const Definitions& definitions, DefinitionsPlan* plan) {
  for (size_t i = 0; i < definitions.queues.size(); ++i) {
    const std::string& name = definitions.queues[i].name;
    const Queue* queue = FindQueue(name);
    QueueConfig config;
    if (queue) config = queue->row.config;
    ApplyChange(definitions.queues[i], config);
    if (!plan->queues.emplace(name, config).second) return DefinedTwice(PathOf("queues", i), name);
    DefinitionChange change{QueueResource(name), Action::kNone, {}};
    if (!queue) {
      change.action = Action::kCreate;
      plan->create_queues.push_back(std::move(config));
    } else if (queue->row.temporary) {
      return MakeFieldError(PathOf("queues", i), "this is the name of a temporary queue",
                            ErrorReason::kConfigConflict);
    } else if (config != queue->row.config) {
      change.action = Action::kUpdate;
      change.differences = DescribeDifferences(queue->row.config, config);
      plan->change_queues.push_back(std::move(config));
    }
    plan->changes.push_back(std::move(change));
  }
  if (plan->prune) {
    if (absl::Status status = PlanPrunedQueues(plan); !status.ok()) return status;
  }
  if (queues_.size() - plan->remove_queues.size() + plan->create_queues.size() > kQueuesMax) {
    return MakeError(
        ErrorReason::kLimitReached,
        absl::StrCat("this server holds at most ", kQueuesMax, " queues"));
  }
  const auto find = [&](const std::string& name) -> const QueueConfig* {
    const auto planned = plan->queues.find(name);
    if (planned != plan->queues.end()) return &planned->second;
    return plan->prune ? nullptr : FindDeadLetterConfig(name);
  };
  for (size_t i = 0; i < definitions.queues.size(); ++i) {
    absl::Status status = CheckQueueConfig(plan->queues.at(definitions.queues[i].name),
                                           PathOf("queues", i), find);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Shard::PlanPrunedQueues(DefinitionsPlan* plan) {
  for (const auto& [name, queue] : queues_) {
    if (queue->row.temporary) {
      const std::string& dead_letters = queue->row.config.dead_letter_queue;
      if (dead_letters.empty() || plan->queues.contains(dead_letters)) continue;
      return MakeError(ErrorReason::kInUse,
                       absl::StrCat("queue '", dead_letters, "' is not among the definitions, but "
                                    "is the dead_letter_queue of a temporary queue"));
    }
    if (plan->queues.contains(name)) continue;
    if (queue->Unsettled() > 0) {
      return MakeError(ErrorReason::kNotEmpty,
                       absl::StrCat("queue '", name, "' is not among the definitions, but holds ",
                                    queue->Unsettled(), " messages: purge or delete it first"));
    }
    if (queue->IsConsumed()) {
      return MakeError(ErrorReason::kInUse,
                       absl::StrCat("queue '", name,
                                    "' is not among the definitions, but has consumers"));
    }
    plan->remove_queues.push_back(name);
  }
  return absl::OkStatus();
}

bool Shard::WillHaveQueue(const DefinitionsPlan& plan, const std::string& name) {
  if (plan.queues.contains(name)) return true;
  const Queue* queue = FindQueue(name);
  return queue && (queue->row.temporary || !plan.prune);
}

// ---- exchanges

ExchangeType Shard::TypeOfPlanned(const DefinitionsPlan& plan, const std::string& name) const {
  const auto planned = plan.exchanges.find(name);
  if (planned != plan.exchanges.end()) return planned->second.type;
  const Router::StoredExchange* stored = plan.prune ? nullptr : router_.FindExchange(name);
  return stored ? stored->exchange.type : ExchangeType::kUnspecified;
}

absl::Status Shard::PlanExchanges(const Definitions& definitions, DefinitionsPlan* plan) {
  for (size_t i = 0; i < definitions.exchanges.size(); ++i) {
    const ExchangeChange& wanted = definitions.exchanges[i];
    const std::string path = PathOf("exchanges", i);
    const Router::StoredExchange* stored = router_.FindExchange(wanted.name);
    Exchange exchange;
    if (stored) exchange = stored->exchange;
    ApplyChange(wanted, exchange);
    if (!stored && !wanted.type) return MakeFieldError(path + ".type", "must be set");
    if (stored && exchange.type != stored->exchange.type) {
      return MakeFieldError(path + ".type",
                            absl::StrCat("exchange '", wanted.name, "' has another type, which "
                                         "cannot change: delete it first"),
                            ErrorReason::kConfigConflict);
    }
    if (!plan->exchanges.emplace(wanted.name, exchange).second) {
      return DefinedTwice(path, wanted.name);
    }
    DefinitionChange change{ExchangeResource(wanted.name), Action::kNone, {}};
    const ExchangeChange whole{exchange.name, exchange.type, exchange.alternate_exchange,
                               exchange.labels};
    if (!stored) {
      change.action = Action::kCreate;
      plan->create_exchanges.push_back(whole);
    } else if (stored->exchange != exchange) {
      change.action = Action::kUpdate;
      change.differences = DescribeDifferences(stored->exchange, exchange);
      plan->change_exchanges.push_back(whole);
    }
    plan->changes.push_back(std::move(change));
  }
  for (size_t i = 0; i < definitions.exchanges.size(); ++i) {
    const Exchange& exchange = plan->exchanges.at(definitions.exchanges[i].name);
    if (exchange.alternate_exchange.empty()) continue;
    const std::string path = PathOf("exchanges", i) + ".alternate_exchange";
    if (exchange.alternate_exchange == exchange.name) {
      return MakeFieldError(path, "an exchange cannot be its own");
    }
    if (TypeOfPlanned(*plan, exchange.alternate_exchange) == ExchangeType::kUnspecified) {
      return MakeFieldError(path, absl::StrCat("there is no exchange '",
                                               exchange.alternate_exchange, "'"),
                            ErrorReason::kExchangeNotFound);
    }
  }
  if (!plan->prune) return absl::OkStatus();
  router_.ForEachExchange([&](const Exchange& exchange) {
    if (!plan->exchanges.contains(exchange.name)) plan->remove_exchanges.push_back(exchange.name);
  });
  return absl::OkStatus();
}

// ---- bindings

absl::Status Shard::PlanBindings(const Definitions& definitions, DefinitionsPlan* plan) {
  std::set<Binding> wanted;
  size_t topic_words = 0;
  for (size_t i = 0; i < definitions.bindings.size(); ++i) {
    const std::string path = PathOf("bindings", i);
    Binding binding = NormalBinding(definitions.bindings[i]);
    const ExchangeType type = TypeOfPlanned(*plan, binding.exchange);
    if (type == ExchangeType::kUnspecified) {
      return MakeFieldError(path + ".exchange",
                            absl::StrCat("there is no exchange '", binding.exchange, "'"),
                            ErrorReason::kExchangeNotFound);
    }
    // One that is stored may be older than a rule: an export must be good to be applied again.
    const bool exists = router_.HasBinding(binding);
    if (!exists) {
      if (absl::Status status = CheckBinding(binding, type); !status.ok()) return At(path, status);
    }
    if (!binding.to_exchange.empty() &&
        TypeOfPlanned(*plan, binding.to_exchange) == ExchangeType::kUnspecified) {
      return MakeFieldError(path + ".to_exchange",
                            absl::StrCat("there is no exchange '", binding.to_exchange, "'"),
                            ErrorReason::kExchangeNotFound);
    }
    if (!binding.queue.empty() && !WillHaveQueue(*plan, binding.queue)) {
      return MakeFieldError(path + ".queue",
                            absl::StrCat("there is no queue '", binding.queue, "'"),
                            ErrorReason::kQueueNotFound);
    }
    // The same one twice is one.
    if (!wanted.insert(binding).second) continue;
    plan->changes.push_back(
        {BindingResource(binding), exists ? Action::kNone : Action::kCreate, {}});
    if (exists) continue;
    if (type == ExchangeType::kTopic) topic_words += TopicWords(binding.binding_key);
    plan->create_bindings.push_back(std::move(binding));
  }
  if (plan->prune) PlanPrunedBindings(wanted, plan);
  return router_.CheckRoom(
      router_.exchanges() - plan->remove_exchanges.size() + plan->create_exchanges.size(),
      router_.bindings() - plan->remove_bindings.size() + plan->create_bindings.size(),
      topic_words);
}

void Shard::PlanPrunedBindings(const std::set<Binding>& wanted, DefinitionsPlan* plan) {
  router_.ForEachBinding([&](const Binding& binding) {
    if (wanted.contains(binding)) return;
    const Queue* queue = binding.queue.empty() ? nullptr : FindQueue(binding.queue);
    // Those of a temporary queue are its stream's; one from an exchange that goes, goes with it.
    if (queue && queue->row.temporary) return;
    plan->remove_bindings.push_back(binding);
  });
}

// ---- the whole

absl::StatusOr<DefinitionsPlan> Shard::PlanDefinitions(const Definitions& definitions,
                                                       bool prune) {
  DefinitionsPlan plan;
  plan.prune = prune;
  absl::Status status = PlanQueues(definitions, &plan);
  if (status.ok()) status = PlanExchanges(definitions, &plan);
  if (status.ok()) status = PlanBindings(definitions, &plan);
  if (!status.ok()) return status;
  for (const std::string& name : plan.remove_queues) {
    plan.changes.push_back({QueueResource(name), Action::kDelete, {}});
  }
  for (const std::string& name : plan.remove_exchanges) {
    plan.changes.push_back({ExchangeResource(name), Action::kDelete, {}});
  }
  for (const Binding& binding : plan.remove_bindings) {
    plan.changes.push_back({BindingResource(binding), Action::kDelete, {}});
  }
  return plan;
}

// The plan has been checked, so nothing here may be refused. What refers to others comes after
// them, and goes before them.
void Shard::ApplyDefinitions(const DefinitionsPlan& plan, Now now) {
  for (const QueueConfig& config : plan.create_queues) MakeQueue(config, false, now);
  for (const QueueConfig& config : plan.change_queues) {
    ChangeQueue(*FindQueue(config.name), config, now);
  }
  for (const Binding& binding : plan.remove_bindings) SLUICE_CHECK(RemoveBinding(binding).ok());

  for (ExchangeChange exchange : plan.create_exchanges) {
    exchange.alternate_exchange.reset();  // it may be one of those that are still to come
    SLUICE_CHECK(AddExchange(exchange).ok());
  }
  for (const auto* exchanges : {&plan.create_exchanges, &plan.change_exchanges}) {
    for (const ExchangeChange& exchange : *exchanges) {
      const auto changed = router_.UpdateExchange(exchange, /*replace=*/true);
      SLUICE_CHECK(changed.ok());
      if (*changed) StoreExchangeRow(exchange.name);
    }
  }
  for (const std::string& name : plan.remove_exchanges) {
    ExchangeChange no_alternate;
    no_alternate.name = name;
    no_alternate.alternate_exchange = "";
    SLUICE_CHECK(router_.UpdateExchange(no_alternate, /*replace=*/false).ok());
  }
  for (const std::string& name : plan.remove_exchanges) {
    SLUICE_CHECK(RemoveExchange(name, /*if_unused=*/false).ok());
  }

  for (const std::string& name : plan.remove_queues) {
    RemoveQueue(*FindQueue(name), MakeError(ErrorReason::kQueueDeleted,
                                            absl::StrCat("queue '", name, "' was deleted")));
  }
  for (const Binding& binding : plan.create_bindings) SLUICE_CHECK(AddBinding(binding).ok());
}

void Shard::Do(ApplyDefinitionsCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  if (!refused.ok()) return command.done(refused);
  auto plan = PlanDefinitions(command.definitions, command.prune);
  if (!plan.ok()) return command.done(plan.status());
  if (!command.dry_run) ApplyDefinitions(*plan, now);
  AnswerWhenDurable(std::move(command.done), std::move(plan->changes));
}

void Shard::Do(ExportDefinitionsCommand& command, Now now) {
  DefinitionsSnapshot snapshot;
  size_t bytes = 0;
  const auto fits = [&](size_t more) { return (bytes += more) <= command.bytes_max; };
  for (const auto& [name, queue] : queues_) {
    if (queue->row.temporary) continue;
    const QueueConfig& config = queue->row.config;
    if (!fits(name.size() + config.dead_letter_queue.size() + TextBytes(config.labels))) break;
    snapshot.queues.push_back(config);
  }
  router_.ForEachExchange([&](const Exchange& exchange) {
    if (!fits(exchange.name.size() + TextBytes(exchange.labels))) return;
    snapshot.exchanges.push_back(exchange);
  });
  router_.ForEachBinding([&](const Binding& binding) {
    const Queue* queue = binding.queue.empty() ? nullptr : FindQueue(binding.queue);
    if (queue && queue->row.temporary) return;
    if (!fits(binding.exchange.size() + binding.queue.size() + binding.to_exchange.size() +
              binding.binding_key.size() + TextBytes(binding.headers))) {
      return;
    }
    snapshot.bindings.push_back(binding);
  });
  if (bytes > command.bytes_max) {
    return command.done(MakeError(
        ErrorReason::kLimitReached,
        absl::StrCat("the definitions are over ", command.bytes_max,
                     " bytes; list queues, exchanges and bindings instead")));
  }
  AnswerWhenDurable(std::move(command.done), std::move(snapshot));
}

}  // namespace sluice::broker
