// Publishing, settling, transactions, and the editing of messages.
#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "server/model/server_fields.h"
#include "tests/unit/broker/model_features.h"

namespace sluice::broker {
namespace {

// A queue deeper than this is published to more rarely, so that runs stay quick.
constexpr int64_t kDepthWanted = 60;
constexpr uint64_t kGroups = 6;
constexpr uint64_t kDedupIds = 40;

Why WhyOf(SettleAction action) {
  switch (action) {
    case SettleAction::kAck: return Why::kAck;
    case SettleAction::kRetry: return Why::kRetry;
    case SettleAction::kDelay: return Why::kDelay;
    case SettleAction::kDeadLetter: return Why::kDeadLetter;
    case SettleAction::kDiscard: return Why::kDiscard;
    case SettleAction::kRelease: return Why::kRelease;
  }
  return Why::kAck;
}

}  // namespace

// ---- publishing

NewMessage FeatureDriver::MakeMessage(PlannedMessage* planned) {
  planned->body = next_body_++;
  planned->bytes = static_cast<uint32_t>(sizeof(planned->body) + kServerFieldsBytes +
                                         Below(Chance(10) ? 9000 : 200));
  planned->priority = Chance(60) ? kPriorityDefault : static_cast<int>(Below(10));
  NewMessage message;
  message.payload = Payload::Allocate(planned->bytes);
  std::fill_n(message.payload.mutable_data(), planned->bytes, 'x');
  std::copy_n(reinterpret_cast<const char*>(&planned->body), sizeof(planned->body),
              message.payload.mutable_data());
  message.priority = planned->priority;
  if (Chance(50)) return message;
  message.options = std::make_unique<MessageOptions>();
  MessageOptions& options = *message.options;
  if (Chance(50)) options.group_hash = planned->group_hash = 1 + Below(kGroups);
  if (Chance(25)) {
    options.delay_ms = planned->delay_ms = OneOf<int64_t>({1, 2, 30, 500});
  } else if (Chance(15)) {
    options.deliver_at_ms = planned->deliver_at_ms =
        model_.now_ms + OneOf<int64_t>({-5, 0, 1, 3, 200});
  }
  if (Chance(25)) options.ttl_ms = planned->ttl_ms = OneOf<int64_t>({1, 5, 60, 800});
  if (Chance(30)) {
    planned->dedup = Hash128{};
    (*planned->dedup)[1] = static_cast<uint8_t>(1 + Below(kDedupIds));
    options.dedup = planned->dedup;
  }
  return message;
}

void FeatureDriver::MakeRoute(NewMessage& message, const std::string& exchange,
                              PlannedMessage* planned) {
  planned->route.exchange = exchange;
  if (Chance(10)) return;
  if (!message.options) message.options = std::make_unique<MessageOptions>();
  message.options->routing_key = OneOf<const char*>({"", "a", "b", "a.b", "a.b.c", "b.a"});
  if (Chance(50)) message.options->attributes.push_back({"k", OneOf<const char*>({"1", "2"})});
  if (Chance(30)) message.options->attributes.push_back({"l", "1"});
  planned->route.routing_key = message.options->routing_key;
  planned->route.attributes = message.options->attributes;
}

std::string FeatureDriver::LineOf(const Publish& publish, uint64_t caller) const {
  if (publish.queue.empty()) {
    return caller == 0 ? "" : absl::StrCat(publish.exchange, " of caller ", caller);
  }
  const LedgerQueue* queue = model_.ledger.Find(publish.queue);
  return queue ? absl::StrCat("queue ", queue->qid) : "";
}

Publish FeatureDriver::MakePublish(std::shared_ptr<PlannedPublish>* planned,
                                   std::optional<uint64_t> caller) {
  Publish publish;
  PlannedPublish plan;
  if (Chance(70)) {
    publish.queue = plan.queue = SomeName();
  } else {
    publish.exchange = SomeExchange();
    publish.mandatory = plan.mandatory = Chance(25);
  }
  const uint64_t count = Chance(85) ? 1 + Below(4) : 1 + Below(20);
  plan.messages.resize(count);
  for (PlannedMessage& message : plan.messages) {
    publish.messages.push_back(MakeMessage(&message));
    if (publish.queue.empty()) MakeRoute(publish.messages.back(), publish.exchange, &message);
  }
  if (caller) {
    if (*caller != 0 && Chance(50)) publish.wait_when_full_ms = OneOf<int64_t>({1, 20, 300});
    plan.line = LineOf(publish, *caller);
  }
  *planned = model_.Plan(std::move(plan));
  return publish;
}

void FeatureDriver::CheckPublishResult(
    PlannedPublish& planned, const absl::StatusOr<std::vector<PublishedMessage>>& result) {
  model_.Answered(planned, result);
  if (result.ok()) return;
  const ErrorReason reason = ReasonOf(result.status());
  const bool to_queue = !planned.queue.empty();
  const bool of_producer =
      reason == ErrorReason::kProducerFenced || reason == ErrorReason::kSequenceRefused;
  if (absl::IsCancelled(result.status())) {
    ++model_.seen["publishes abandoned"];
    return Check(planned.abandoned, "a publish was given up though its caller is there");
  }
  const bool no_target =
      to_queue ? reason == ErrorReason::kQueueNotFound || reason == ErrorReason::kQueueDeleted
               : reason == ErrorReason::kExchangeNotFound || reason == ErrorReason::kNoRoute;
  Check(reason == ErrorReason::kQueueFull || no_target || (planned.producer && of_producer),
        absl::StrCat("publish refused: ", result.status().ToString()));
}

// Numbers are never used again.
uint64_t FeatureDriver::SomeCaller() {
  constexpr size_t kCallersMax = 4;
  if (callers_.empty() || Chance(40)) {
    if (callers_.size() == kCallersMax) callers_.pop_front();
    callers_.push_back({next_caller_++, {}});
  }
  return callers_[Below(callers_.size())].number;
}

void FeatureDriver::DoAbandon() {
  if (callers_.empty()) return;
  const size_t index = Below(callers_.size());
  Caller caller = std::move(callers_[index]);
  callers_.erase(callers_.begin() + static_cast<int64_t>(index));
  for (const auto& publish : caller.publishes) {
    if (publish->answered || publish->stored_lsn != 0) continue;
    publish->abandoned = true;
    abandoned_.push_back(publish);
  }
  world_.shard->Apply(AbandonPublishesCommand{caller.number}, now());
}

void FeatureDriver::DoPublish() {
  PublishCommand command;
  std::shared_ptr<PlannedPublish> planned;
  // Those that may wait have a caller; streams have one always.
  command.caller = Chance(50) ? SomeCaller() : 0;
  command.publish = MakePublish(&planned, command.caller);
  int64_t deepest = 0;
  for (const LedgerQueue* queue : model_.ledger.live()) {
    const bool target = command.publish.queue.empty() || queue->name() == command.publish.queue;
    if (target) deepest = std::max(deepest, queue->messages);
  }
  if (deepest > kDepthWanted && Chance(90)) return;
  for (Caller& caller : callers_) {
    if (caller.number == command.caller) caller.publishes.push_back(planned);
  }
  command.done = [this, planned, call = NewCall(/*may_wait=*/true)](auto result) {
    Answered(call);
    CheckPublishResult(*planned, result);
  };
  world_.shard->Apply(std::move(command), now());
}

// ---- settling

Receipt FeatureDriver::SomeReceipt(const LedgerQueue& queue) {
  if (!sinks_.empty() && Chance(70)) {
    const FeatureConsumer& consumer = sinks_[Below(sinks_.size())]->consumer;
    if (consumer.qid == queue.qid && !consumer.shown.empty()) {
      const size_t back = Below(std::min<size_t>(consumer.shown.size(), 6));
      return consumer.shown[consumer.shown.size() - 1 - back];
    }
  }
  for (int i = 0; i < 8 && !receipts_.empty(); ++i) {
    const Receipt& receipt = receipts_[receipts_.size() - 1 - Below(std::min<size_t>(
                                                                  receipts_.size(), 60))];
    if (receipt.position.qid == queue.qid) return receipt;
  }
  if (!receipts_.empty() && Chance(50)) return receipts_[Below(receipts_.size())];
  // Of no message that there has ever been: the text of a receipt cannot be made up.
  const bool no_lane = Chance(50);
  return {{0, queue.qid, static_cast<Lane>(no_lane ? kLanes + Below(3) : Below(kLanes)),
           no_lane ? 1 : OneOf<Seq>({0, 1'000'000'000})},
          1,
          1};
}

// Of a lease that has not ended.
std::optional<Receipt> FeatureDriver::SomeLiveReceipt() {
  constexpr size_t kLookedAtMax = 60;
  const size_t lately = std::min(receipts_.size(), kLookedAtMax);
  for (int tries = 0; tries < 10 && lately > 0; ++tries) {
    const Receipt& receipt = receipts_[receipts_.size() - 1 - Below(lately)];
    const LedgerMessage* message = model_.ledger.At(receipt.position);
    const bool live = message && message->queue->exists && message->leased &&
                      message->until_ms > model_.now_ms && *message->last == receipt;
    if (live) return receipt;
  }
  return std::nullopt;
}

SettleItem FeatureDriver::SomeItem(const LedgerQueue& queue) {
  SettleItem item;
  item.receipt = SomeReceipt(queue);
  const uint64_t dice = Below(100);
  item.action = dice < 45   ? SettleAction::kAck
                : dice < 60 ? SettleAction::kRetry
                : dice < 70 ? SettleAction::kDelay
                : dice < 80 ? SettleAction::kDeadLetter
                : dice < 85 ? SettleAction::kDiscard
                            : SettleAction::kRelease;
  if (item.action == SettleAction::kDelay) item.delay_ms = OneOf<int64_t>({0, 1, 40, 700});
  if (item.action != SettleAction::kAck && Chance(30)) {
    item.reason = absl::StrCat("reason ", Below(5));
  }
  return item;
}

FeatureDriver::Judged FeatureDriver::AskSettle(const LedgerQueue& queue, const SettleItem& item) {
  Judged judged{model_.Judge(queue, item.receipt), item.receipt.position, item.receipt,
                item.action, nullptr};
  LedgerMessage* message = model_.ledger.At(judged.at);
  const bool void_receipt =
      judged.honour == Honour::kInvalid || judged.honour == Honour::kExpired;
  if (void_receipt || !message || message->state.settled) return judged;
  // What is dying stays so, but for an ack.
  const bool certain = judged.honour == Honour::kOk && !message->Dying() &&
                       !(message->leased && message->until_ms <= model_.now_ms);
  judged.intent = model_.Ask(*message, {.why = WhyOf(item.action),
                                        .certain = certain,
                                        .delay_ms = item.delay_ms,
                                        .detail = item.reason});
  return judged;
}

void FeatureDriver::CheckSettleResult(const Judged& judged, ErrorReason reason) {
  const LedgerMessage* message = model_.ledger.At(judged.at);
  const bool ok = reason == ErrorReason::kUnspecified;
  const bool right = judged.honour == Honour::kOk        ? ok
                     : judged.honour == Honour::kExpired ? reason == ErrorReason::kLeaseExpired
                     : judged.honour == Honour::kInvalid ? reason == ErrorReason::kReceiptInvalid
                     : ok || reason == ErrorReason::kLeaseExpired ||
                           ((!judged.intent || (message && !message->queue->exists)) &&
                            reason == ErrorReason::kReceiptInvalid);
  if (!right) {
    const std::string what =
        absl::StrCat("a receipt was judged ", std::string(ErrorReasonName(reason)),
                     " instead of ", static_cast<int>(judged.honour));
    if (message) return model_.Fail(*message, what);
    return Fail(what);
  }
  const bool settles =
      judged.action == SettleAction::kAck || judged.action == SettleAction::kDiscard;
  if (ok && settles && message && message->queue->exists &&
      !model_.IsSettledBy(*message, model_.durable_lsn)) {
    model_.Fail(*message, "acked, but that is not durable");
  }
}

void FeatureDriver::Settle(const LedgerQueue& queue, std::vector<SettleItem> items) {
  SettleCommand command;
  command.queue = queue.name();
  std::vector<Judged> judged;
  bool reads = false;
  for (const SettleItem& item : items) {
    judged.push_back(AskSettle(queue, item));
    const LedgerMessage* message = model_.ledger.At(item.receipt.position);
    reads = reads || (message && message->state.has_row && message->state.row.has_due_row);
    // What only an earlier boot granted has no row.
    reads = reads || (message && item.action != SettleAction::kRelease &&
                      item.receipt.boot != model_.boot && item.receipt.delivery_count == 1);
  }
  // Those are read first, and all of the command waits for it.
  for (Judged& one : judged) {
    if (!reads) break;
    if (one.honour != Honour::kInvalid) one.honour = Honour::kEither;
    LedgerMessage* message = model_.ledger.At(one.at);
    if (!one.intent && message && one.honour != Honour::kInvalid) {
      one.intent = model_.Ask(*message, {.why = WhyOf(one.action)});
    }
    if (!one.intent) continue;
    one.intent->certain = false;
    one.intent->lasting = true;
  }
  command.items = std::move(items);
  command.done = [this, judged = std::move(judged), call = NewCall(reads)](auto result) {
    Answered(call);
    for (const Judged& one : judged) {
      if (one.intent) one.intent->over = true;
    }
    // Its queue may be gone meanwhile.
    if (!result.ok() && call->may_wait) return;
    if (!result.ok()) return Fail("settle refused");
    std::map<int32_t, ErrorReason> failures;
    for (const SettleFailure& failure : result->failures) {
      failures[failure.index] = ReasonOf(failure.status);
    }
    Check(result->settled == static_cast<int32_t>(judged.size() - failures.size()),
          "settled is not the number of items that did not fail");
    for (size_t i = 0; i < judged.size(); ++i) {
      const auto it = failures.find(static_cast<int32_t>(i));
      CheckSettleResult(judged[i], it == failures.end() ? ErrorReason::kUnspecified : it->second);
    }
  };
  world_.shard->Apply(std::move(command), now());
}

void FeatureDriver::DoSettle() {
  LedgerQueue* queue = model_.ledger.Find(SomeName());
  if (!queue) return;
  model_.Used(*queue);
  std::vector<SettleItem> items;
  const size_t count = 1 + Below(Chance(80) ? 4 : 20);
  for (size_t i = 0; i < count; ++i) items.push_back(SomeItem(*queue));
  Settle(*queue, std::move(items));
}

void FeatureDriver::DoExtend() {
  LedgerQueue* queue = model_.ledger.Find(SomeName());
  if (!queue) return;
  model_.Used(*queue);
  ExtendLeaseCommand command;
  command.queue = queue->name();
  const Receipt receipt = SomeReceipt(*queue);
  command.receipts = {receipt};
  command.lease_ms = OneOf<int64_t>({1, 200, 4000});
  const int64_t until_ms = model_.now_ms + command.lease_ms;
  LedgerMessage* message = model_.ledger.At(receipt.position);
  const bool live = message && message->at.qid == queue->qid && message->leased &&
                    message->until_ms > model_.now_ms && *message->last == receipt;
  // A lease that has run out and whose end this turn has still to do is still there.
  const bool ending = message && message->leased && !live;
  const bool exact =
      model_.Exact() &&
      (!message || (message->intents.empty() && !ending));
  command.done = [&](auto result) {
    if (!result.ok()) return Fail("extend refused");
    const bool extended = result->failures.empty();
    if (exact) Check(extended == live, "extended wrongly");
    Check(result->lease_expires_at_ms == (extended ? until_ms : 0), "wrong end of an extension");
    if (!extended || !message) return;
    if (message->leased && *message->last == receipt) model_.Extend(*message, until_ms);
  };
  world_.shard->Apply(std::move(command), now());
}

// ---- transactions

void FeatureDriver::DoTransact() {
  TransactCommand command;
  auto judged = std::make_shared<std::vector<Judged>>();
  auto planned = std::make_shared<std::vector<std::shared_ptr<PlannedPublish>>>();
  for (uint64_t i = Below(3); i > 0; --i) {
    const LedgerQueue* queue = model_.ledger.Find(SomeName());
    if (!queue) continue;
    const bool ack = Chance(60);
    SettleItem item = SomeItem(*queue);
    // One receipt that is void refuses all: mostly they are good.
    if (const auto live = Chance(70) ? SomeLiveReceipt() : std::nullopt) {
      item.receipt = *live;
      queue = &model_.ledger.queues.at(live->position.qid);
    }
    TransactCommand::Settle settle;
    settle.queue = queue->name();
    if (ack) {
      item.action = SettleAction::kAck;
    } else if (item.action == SettleAction::kAck) {
      item.action = SettleAction::kRetry;
    }
    judged->push_back(AskSettle(*queue, item));
    // It is not sure to be done, and may have to wait for reads.
    LedgerMessage* message = model_.ledger.At(item.receipt.position);
    auto& intent = judged->back().intent;
    if (!intent && message) intent = model_.Ask(*message, {.why = WhyOf(item.action)});
    if (intent) {
      intent->certain = false;
      intent->lasting = true;
    }
    settle.items.push_back(std::move(item));
    (ack ? command.acks : command.nacks).push_back(std::move(settle));
  }
  for (uint64_t i = Below(3); i > 0; --i) {
    std::shared_ptr<PlannedPublish> publish;
    command.publishes.push_back(MakePublish(&publish, std::nullopt));
    publish->of_transaction = true;
    planned->push_back(std::move(publish));
  }
  command.done = [this, judged, planned, call = NewCall(/*may_wait=*/true)](auto result) {
    Answered(call);
    ++model_.seen[result.ok() ? "transactions" : "transactions refused"];
    std::set<Lsn> lsns;  // of all that it did
    for (const Judged& settle : *judged) {
      if (settle.intent) settle.intent->over = true;
      const LedgerMessage* message = model_.ledger.At(settle.at);
      if (settle.intent && settle.intent->done_lsn != 0) lsns.insert(settle.intent->done_lsn);
      if (!result.ok() && !lsns.empty() && message) {
        model_.Fail(*message, "settled in a transaction that was refused");
      }
      if (!result.ok() && settle.intent) model_.Withdraw(*model_.ledger.At(settle.at), settle.intent);
      const bool lasts = message && message->queue->exists && message->leased &&
                         *message->last == settle.receipt;
      if (result.ok() && lasts) {
        model_.Fail(*message, "settled in a transaction, but its lease goes on");
      }
      if (!result.ok() || settle.action != SettleAction::kAck || !message) continue;
      if (message->queue->exists && !model_.IsSettledBy(*message, model_.durable_lsn)) {
        model_.Fail(*message, "acked in a transaction, but that is not durable");
      }
    }
    if (result.ok() && result->size() != planned->size()) return Fail("not all were answered");
    for (size_t i = 0; i < planned->size(); ++i) {
      PlannedPublish& publish = *(*planned)[i];
      if (result.ok()) {
        model_.Answered(publish, (*result)[i]);
      } else {
        model_.Answered(publish, result.status());
      }
      if (publish.stored_lsn != 0) lsns.insert(publish.stored_lsn);
    }
    Check(lsns.size() <= 1, "a split transaction");
  };
  world_.shard->Apply(std::move(command), now());
}

// ---- looking and editing

LedgerMessage* FeatureDriver::SomeMessage(LedgerQueue& queue) {
  LedgerLane& lane = queue.lanes[Chance(40) ? kDelayedLane : Below(kLanes)];
  if (lane.unsettled.empty()) return nullptr;
  auto it = lane.unsettled.lower_bound(lane.unsettled.begin()->first + Below(20));
  return it == lane.unsettled.end() ? lane.unsettled.begin()->second : it->second;
}

void FeatureDriver::DoEdit() {
  LedgerQueue* queue = model_.ledger.Find(SomeName());
  if (!queue) return;
  EditMessagesCommand command;
  command.queue = queue->name();
  const uint64_t dice = Below(3);
  command.action = dice == 0   ? EditMessagesCommand::Action::kDelete
                   : dice == 1 ? EditMessagesCommand::Action::kReschedule
                               : EditMessagesCommand::Action::kMove;
  command.include_leased = Chance(30);
  if (dice == 1) {
    if (Chance(50)) command.delay_ms = OneOf<int64_t>({1, 40, 900});
    else command.deliver_at_ms = model_.now_ms + OneOf<int64_t>({-10, 1, 100});
  }
  if (dice == 2 && Chance(60)) command.to_queue = SomeName();
  if (!command.to_queue.empty() && !model_.ledger.Find(command.to_queue)) return;
  auto intents = std::make_shared<std::vector<std::shared_ptr<Intent>>>();
  for (uint64_t i = 1 + Below(4); i > 0; --i) {
    LedgerMessage* message = SomeMessage(*queue);
    if (!message) continue;
    command.positions.push_back(message->at);
    message->may_have_been_held |= dice == 0 && command.include_leased;
    intents->push_back(model_.Ask(
        *message, {.why = dice == 0   ? Why::kDelete
                          : dice == 1 ? Why::kReschedule
                                      : Why::kMove,
                   .certain = false, .lasting = true, .delay_ms = command.delay_ms,
                   .deliver_at_ms = command.deliver_at_ms, .to_queue = command.to_queue}));
  }
  command.done = [this, intents, call = NewCall(/*may_wait=*/true)](auto result) {
    Answered(call);
    for (const auto& intent : *intents) intent->over = true;
    if (!result.ok()) {
      return Check(ReasonOf(result.status()) == ErrorReason::kQueueNotFound, "edit refused");
    }
    Check(*result <= static_cast<int64_t>(intents->size()), "edited more than was asked for");
    model_.seen["edited"] += static_cast<uint64_t>(*result);
  };
  world_.shard->Apply(std::move(command), now());
}

// At any time: whatever it shows, it changes nothing (the batches tell).
void FeatureDriver::DoList() {
  ListMessagesCommand command;
  command.queue = SomeName();
  command.cursor = {static_cast<Lane>(Below(kLanes)), Below(50)};
  command.scan_max = OneOf({1, 10, 1000});
  command.done = [this, cursor = command.cursor, call = NewCall(/*may_wait=*/true)](auto result) {
    Answered(call);
    if (!result.ok()) return;
    std::pair<Lane, Seq> after{cursor.lane, cursor.seq};
    for (const ListedMessage& listed : result->messages) {
      const std::pair<Lane, Seq> at{listed.position.lane, listed.position.seq};
      const LedgerMessage* message = model_.ledger.At(listed.position);
      Check(at >= after, "listed out of order");
      after = {at.first, at.second + 1};
      Check(message && message->stored_lsn <= model_.durable_lsn, "listed before it was durable");
    }
  };
  world_.shard->Apply(std::move(command), now());
}

void FeatureDriver::DoGetMessage() {
  LedgerQueue* queue = model_.ledger.Find(SomeName());
  LedgerMessage* message = queue ? SomeMessage(*queue) : nullptr;
  if (!message) return;
  GetMessageCommand command;
  command.queue = queue->name();
  command.id = message->id;
  const bool durable = message->stored_lsn <= model_.durable_lsn;
  command.done = [this, at = message->at, id = message->id, body = message->body, durable,
                  boot = model_.boot, call = NewCall(/*may_wait=*/true)](auto result) {
    Answered(call);
    if (result.ok()) {
      const LedgerMessage* found = model_.ledger.At(result->position);
      const bool right = found && (found->body == body || found->has_twin);
      return Check(right && found->id == id, "found another message");
    }
    ++model_.seen["not found"];
    if (ReasonOf(result.status()) == ErrorReason::kQueueNotFound) return;
    // Right only if it leaves with the batch of this turn.
    const LedgerMessage* wanted = model_.ledger.At(at);
    if (durable && wanted && !wanted->has_twin) not_found_.push_back({at, body});
  };
  world_.shard->Apply(std::move(command), now());
}

}  // namespace sluice::broker
