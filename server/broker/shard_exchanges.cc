// Commands about exchanges and bindings: the router decides, rows make it last.
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/broker/shard.h"
#include "server/storage/rows.h"

namespace sluice::broker {

using storage::Family;

void Shard::StoreExchangeRow(const std::string& name) {
  routes_changed_ = true;
  const Router::StoredExchange& stored = *router_.FindExchange(name);
  batch_.Put(Family::kMeta, storage::ExchangeKey(options_.shard, stored.number),
             storage::EncodeExchange(stored.exchange));
}

absl::StatusOr<bool> Shard::AddExchange(const ExchangeChange& wanted) {
  const auto created = router_.CreateExchange(wanted, boot_row_.next_number);
  if (!created.ok() || !*created) return created;
  ++boot_row_.next_number;
  StoreExchangeRow(wanted.name);
  return true;
}

absl::Status Shard::RemoveExchange(const std::string& name, bool if_unused) {
  const auto removed = router_.DeleteExchange(name, if_unused);
  if (!removed.ok()) return removed.status();
  routes_changed_ = true;
  batch_.Delete(Family::kMeta, storage::ExchangeKey(options_.shard, removed->exchange));
  RemoveProducersOf({.is_exchange = true, .number = removed->exchange});
  for (const uint64_t number : removed->bindings) {
    batch_.Delete(Family::kMeta, storage::BindingKey(options_.shard, number));
  }
  return absl::OkStatus();
}

absl::Status Shard::AddBinding(const Binding& binding, bool* created) {
  if (!binding.queue.empty() && !FindQueue(binding.queue)) {
    return MakeError(ErrorReason::kQueueNotFound,
                     absl::StrCat("queue '", binding.queue, "' does not exist"));
  }
  const uint64_t number = boot_row_.next_number;
  const auto added = router_.CreateBinding(binding, number);
  if (!added.ok()) return added.status();
  if (created) *created = *added;
  if (*added) {
    ++boot_row_.next_number;
    routes_changed_ = true;
    batch_.Put(Family::kMeta, storage::BindingKey(options_.shard, number),
               storage::EncodeBinding(binding));
  }
  return absl::OkStatus();
}

absl::Status Shard::RemoveBinding(const Binding& binding) {
  const auto number = router_.DeleteBinding(binding);
  if (!number.ok()) return number.status();
  routes_changed_ = true;
  batch_.Delete(Family::kMeta, storage::BindingKey(options_.shard, *number));
  return absl::OkStatus();
}

void Shard::RemoveBindingsOf(const Queue& queue) {
  for (const uint64_t number : router_.RemoveBindingsTo(queue.row.config.name)) {
    routes_changed_ = true;
    batch_.Delete(Family::kMeta, storage::BindingKey(options_.shard, number));
  }
}

absl::Status Shard::LoadExchange(uint64_t number, std::string_view value) {
  auto exchange = storage::ParseExchange(value);
  if (!exchange.ok()) return exchange.status();
  return router_.RestoreExchange(*std::move(exchange), number);
}

absl::Status Shard::LoadBinding(uint64_t number, std::string_view value) {
  auto binding = storage::ParseBinding(value);
  if (!binding.ok()) return binding.status();
  const std::string what =
      absl::StrCat("the store has a binding from '", binding->exchange, "' to '", binding->queue,
                   binding->to_exchange, "'");
  if (!binding->queue.empty() && !FindQueue(binding->queue)) {
    return MakeError(ErrorReason::kDataDamaged, absl::StrCat(what, ", but not that queue"));
  }
  const auto created = router_.RestoreBinding(*std::move(binding), number);
  if (created.ok() && *created) return absl::OkStatus();
  return MakeError(ErrorReason::kDataDamaged,
                   absl::StrCat(what, created.ok() ? " twice" : ", which cannot be: ",
                                created.ok() ? "" : created.status().message()));
}

// ---- commands

void Shard::Do(CreateExchangeCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  if (!refused.ok()) return command.done(refused);
  const auto created = AddExchange(command.exchange);
  if (!created.ok()) return command.done(created.status());
  CreateExchangeCommand::Outcome outcome{router_.FindExchange(command.exchange.name)->exchange,
                                         *created};
  AnswerWhenDurable(std::move(command.done), std::move(outcome));
}

void Shard::Do(GetExchangeCommand& command, Now now) {
  absl::Status missing = router_.CheckExchange(command.exchange);
  if (!missing.ok()) return command.done(missing);
  AnswerWhenDurable(std::move(command.done), router_.FindExchange(command.exchange)->exchange);
}

void Shard::Do(ListExchangesCommand& command, Now now) {
  Router::ExchangePage page =
      router_.ListExchanges(command.name_glob, command.after_name, command.limit);
  AnswerWhenDurable(std::move(command.done),
                    ListExchangesCommand::Outcome{std::move(page.exchanges), page.more});
}

void Shard::Do(UpdateExchangeCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  if (!refused.ok()) return command.done(refused);
  const auto changed = router_.UpdateExchange(command.exchange, command.replace);
  if (!changed.ok()) return command.done(changed.status());
  if (*changed) StoreExchangeRow(command.exchange.name);
  AnswerWhenDurable(std::move(command.done),
                    router_.FindExchange(command.exchange.name)->exchange);
}

void Shard::Do(DeleteExchangeCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  if (refused.ok()) refused = RemoveExchange(command.exchange, command.if_unused);
  if (!refused.ok()) return command.done(refused);
  ReplyWhenDurable(std::move(command.done));
}

void Shard::Do(CreateBindingCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  bool created = false;
  if (refused.ok()) refused = AddBinding(command.binding, &created);
  if (!refused.ok()) return command.done(refused);
  AnswerWhenDurable(std::move(command.done), created);
}

void Shard::Do(DeleteBindingCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  if (refused.ok()) refused = RemoveBinding(command.binding);
  if (!refused.ok()) return command.done(refused);
  ReplyWhenDurable(std::move(command.done));
}

void Shard::Do(ListBindingsCommand& command, Now now) {
  Router::BindingSelection selection;
  selection.exchange = std::move(command.exchange);
  selection.queue = std::move(command.queue);
  selection.limit = command.limit;
  absl::StatusOr<Binding> after;
  if (!command.cursor.empty()) {
    // The last binding of the page before, as it is stored: it has no shorter name.
    after = storage::ParseBinding(command.cursor);
    if (!after.ok()) {
      return command.done(MakeError(ErrorReason::kPageTokenInvalid, "not a token of this listing"));
    }
    selection.after = &*after;
  }
  Router::BindingPage page = router_.ListBindings(selection);
  ListBindingsCommand::Outcome outcome;
  if (page.more) outcome.next_cursor = storage::EncodeBinding(page.bindings.back());
  outcome.bindings = std::move(page.bindings);
  AnswerWhenDurable(std::move(command.done), std::move(outcome));
}

}  // namespace sluice::broker
