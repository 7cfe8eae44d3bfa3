// Turns, receipts and leases, what consumers are shown, and what has to hold at rest.
#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "tests/unit/broker/model_rules.h"

namespace sluice::broker {
namespace {

constexpr int64_t kRemovedRememberedMs = 10 * kMinuteMs;

}  // namespace

void FeatureModel::Fail(const LedgerMessage& message, const std::string& what) {
  const LedgerMessage::State& state = message.state;
  fail_(absl::StrCat(
      what, " (queue ", message.queue ? message.queue->name() : "?", " lane ", message.at.lane,
      " seq ", message.at.seq, ", body ", message.body, ", attempt ", message.Attempt(), ", row ",
      state.has_row ? absl::StrCat(state.row.boot, "/", state.row.delivery_count, " not before ",
                                   state.row.not_before_ms)
                    : "none",
      ", shown ", message.last ? absl::StrCat(message.last->boot, "/", message.last->delivery_count)
                               : "never",
      message.info.group_hash != 0 ? absl::StrCat(", group ", message.info.group_hash) : "",
      message.info.origin ? absl::StrCat(", deaths ", message.info.origin->deaths.size()) : "",
      state.settled ? absl::StrCat(state.removed ? ", removed in " : ", settled in ",
                                   state.settled_lsn)
                    : "",
      message.leased ? absl::StrCat(", leased until ", message.until_ms) : "", ", intents ",
      message.intents.size(), ", expires ", message.info.expire_ms, ", stored in ",
      message.stored_lsn, ", now ", now_ms, ", boot ", boot, ", durable ", durable_lsn, " of ",
      appended_lsn, ")"));
}

// --- turns

void FeatureModel::BeginTurn() {
  in_turn_ = true;
  known_ = durable_lsn == appended_lsn;
  exact_ = true;
  nothing_is_read_ = false;
  durable_before_ = durable_lsn;
  NoteCredit();
  granted_.clear();
  changed_now_.clear();
  withdrawn_now_.clear();
  regranted_.clear();
  if (!known_) return;
  for (const auto& [message, dropped_ms] : std::exchange(passed_over_, {})) {
    Fail(*message, "an older message than what was dropped for want of room");
  }
}

void FeatureModel::EndTurn() {
  for (const Grant& grant : granted_) {
    if (!grant.message->state.settled) CheckGroup(*grant.message, grant.fresh);
    CheckLeftForGood(*grant.message);
  }
  CheckOrder();
  CheckConsumerPriority();
  CheckAging();
  CheckIdleStreams();
  CheckUnrouted();
  CheckTargetsGone();
  CheckPromises();
  NoteUses();
  if (routing != ledger.routing) Fail("exchanges and bindings are not what was asked for");
  asked_rows_.clear();
  may_go_.clear();
  booting_ = false;
  for (auto it = asked_.begin(); it != asked_.end();) {
    auto& intents = (*it)->intents;
    std::erase_if(intents, [](const auto& intent) { return !intent->lasting || intent->over; });
    it = intents.empty() ? asked_.erase(it) : std::next(it);
  }
  for (auto& [qid, configs] : recent_configs_) configs.clear();
  recent_configs_.clear();
  last_turn_ms_ = now_ms;
  in_turn_ = false;
}

// What had to happen in this turn.
void FeatureModel::CheckPromises() {
  while (!leases_.empty() && leases_.begin()->first <= now_ms) {
    LedgerMessage& message = *leases_.begin()->second;
    if (message.queue->exists) {
      return Fail(message, "its lease ran out and it was not returned");
    }
    EndLease(message);
  }
  for (LedgerMessage* message : asked_) {
    if (message->intents.size() != 1 || !message->queue->exists) continue;
    const Intent& intent = *message->intents.front();
    if (!intent.certain || intent.lasting) continue;
    const bool settled = message->state.settled && message->state.settled_lsn == appended_lsn;
    const bool changed = changed_now_.contains(message);
    switch (intent.why) {
      case Why::kAck:
      case Why::kDiscard:
      case Why::kPurge:
        if (!settled) Fail(*message, "should have been settled");
        break;
      case Why::kDeadLetter:
        if (!settled && !message->Dying()) Fail(*message, "should have died");
        break;
      case Why::kRetry:
      case Why::kRelease:
      case Why::kClosed:
        if (intent.was_leased && !changed) Fail(*message, "its lease should have ended");
        if (intent.was_leased && intent.why != Why::kRelease && changed && !settled &&
            !message->Dying() &&
            !Allows(message->at.qid, [&](const QueueConfig& config) {
              return config.retry.max_attempts == 0 ||
                     message->Attempt() <= config.retry.max_attempts;
            })) {
          Fail(*message, "should have died of its attempts");
        }
        break;
      default: break;
    }
  }
}

void FeatureModel::Durable(Lsn lsn) {
  durable_lsn = std::max(durable_lsn, lsn);
  while (!leaving_.empty() && leaving_.front()->state.settled_lsn <= durable_lsn) {
    leaving_.pop_front();
  }
  ledger.Durable(lsn);
}

void FeatureModel::Crash() {
  for (const auto& [until_ms, message] : leases_) message->lost = true;
  passed_over_.clear();
  leaving_.clear();
  ledger.Rollback(durable_lsn);
  routing = routing_of_last_turn_ = ledger.routing;
  unrouted_.clear();
  without_target_.clear();
  ++routing_version_;
  for (ModelProducer& producer : producers) {
    std::erase_if(producer.stored,
                  [&](const auto& entry) { return entry.second > durable_lsn; });
  }
  for (auto& [qid, queue] : ledger.queues) queue.crashed = true;
}

void FeatureModel::CleanStop() {}

void FeatureModel::StartBoot() {
  leases_.clear();
  asked_.clear();
  granted_.clear();
  changed_now_.clear();
  passed_over_.clear();
  aged_passes_.clear();
  recent_configs_.clear();
  appended_lsn = durable_lsn;
  read_through_lsn_ = 0;
  booting_ = true;
  queue_grants_.clear();
  for (ModelProducer& producer : producers) {
    producer.refused.clear();
    producer.opened_after = 0;
  }
  for (auto& [qid, queue] : ledger.queues) {
    Used(queue);
    queue.deepest = queue.messages;
    for (LedgerLane& lane : queue.lanes) {
      for (auto& [seq, message] : lane.unsettled) {
        message->leased = false;
        message->holder = nullptr;
        message->ran_out_while_down = false;
        message->intents.clear();
        if (!message->state.has_row || message->state.row.lease_until_ms == 0) continue;
        message->lost = false;
        storage::HistoryRow& row = message->state.row;
        if (row.lease_until_ms > now_ms) {
          message->leased = true;
          message->until_ms = row.lease_until_ms;
          leases_.insert({message->until_ms, message});
        } else {
          // Its row is not rewritten: the outcome is the same after another crash.
          if (!std::exchange(message->state.ran_out_while_down, true)) ++row.attempt;
          message->ran_out_while_down = true;
        }
      }
    }
  }
}

// --- asking

std::shared_ptr<PlannedPublish> FeatureModel::Plan(PlannedPublish plan) {
  auto publish = std::make_shared<PlannedPublish>(std::move(plan));
  publish->number = ++publishes_;
  publish->asked_after = appended_lsn;
  if (publish->queue.empty()) publish->routing = routing;
  publish->asked_ms = now_ms;
  publish->routing_version = routing_version_;
  for (size_t i = 0; i < publish->messages.size(); ++i) {
    planned_[publish->messages[i].body] = {publish, i};
  }
  return publish;
}

std::shared_ptr<Intent> FeatureModel::Ask(LedgerMessage& message, Intent intent) {
  auto asked = std::make_shared<Intent>(std::move(intent));
  asked->was_leased = message.leased;
  message.intents.push_back(asked);
  asked_.insert(&message);
  return asked;
}

void FeatureModel::Withdraw(LedgerMessage& message, const std::shared_ptr<Intent>& intent) {
  std::erase(message.intents, intent);
  withdrawn_now_.insert(&message);
  if (message.intents.empty()) asked_.erase(&message);
}

// Whether a receipt may act on its message (API rule 2).
Honour FeatureModel::Judge(const LedgerQueue& queue, const Receipt& receipt) {
  const MessagePosition& at = receipt.position;
  LedgerMessage* message = at.qid == queue.qid && at.lane < kImmediateLanes && at.shard == 0
                               ? ledger.At(at) : nullptr;
  if (!message) {
    // It may have been stored in this very turn.
    const bool may_be_new = at.qid == queue.qid && at.lane < kImmediateLanes && at.seq != 0 &&
                            at.shard == 0;
    return may_be_new ? Honour::kEither : Honour::kInvalid;
  }
  if (!exact_ || message->state.unsure) return Honour::kEither;
  if (!message->intents.empty()) return Honour::kEither;
  const LedgerMessage::State& state = message->state;
  const bool last = message->last && *message->last == receipt;
  if (state.settled) {
    if (!state.removed) return last ? Honour::kOk : Honour::kEither;
    const bool remembered =
        message->removed_boot == boot && now_ms < message->removed_ms + kRemovedRememberedMs;
    return remembered && message->last ? Honour::kExpired : Honour::kEither;
  }
  if (message->leased && message->until_ms > now_ms) return last ? Honour::kOk : Honour::kExpired;
  // It was put off, and nobody knows whether it had been out.
  if (state.has_row && state.row.delivery_count == 0) return last ? Honour::kOk : Honour::kEither;
  if (state.has_row) {
    const bool named =
        state.row.boot == receipt.boot && state.row.delivery_count == receipt.delivery_count;
    return named ? Honour::kOk : Honour::kExpired;
  }
  if (message->ShownNow(boot)) return last ? Honour::kOk : Honour::kExpired;
  // One hand-out of an earlier boot, and perhaps one of this boot that nobody has seen.
  return Honour::kEither;
}

void FeatureModel::Extend(LedgerMessage& message, int64_t until_ms) {
  leases_.erase({message.until_ms, &message});
  message.until_ms = until_ms;
  leases_.insert({until_ms, &message});
}

void FeatureModel::DropFromHolder(LedgerMessage& message) {
  FeatureConsumer* holder = std::exchange(message.holder, nullptr);
  if (!holder || holder->leases.erase(&message) == 0) return;
  holder->bytes_in_flight -= message.bytes;
}

void FeatureModel::EndLease(LedgerMessage& message) {
  passed_over_.erase(&message);
  message.ran_out_while_down = false;
  message.lost = false;
  if (!message.leased) return;
  leases_.erase({message.until_ms, &message});
  DropFromHolder(message);
  message.leased = false;
}

// It was somebody's, so that what was given out after it may be shown before it leaves for good.
void FeatureModel::NoteReleasedUnseen(QueueId qid) {
  released_unseen_.insert(qid);
  const auto queue = ledger.queues.find(qid);
  const bool holds_nothing_back = durable_lsn == appended_lsn;
  if (queue == ledger.queues.end() || holds_nothing_back) return;
  for (Lane lane = 0; lane < kImmediateLanes; ++lane) {
    for (const auto& [seq, message] : queue->second.lanes[lane].unsettled) {
      if (message->stored_lsn > durable_lsn) break;
      if (MayBeHeldUnseen(*message, message->state)) message->may_have_been_held = true;
    }
  }
}

// A hand-out that was shown to a stream, but not written by it: it ends, and is no failure.
void FeatureModel::TakeBack(const Receipt& receipt) {
  LedgerMessage* message = ledger.At(receipt.position);
  if (!message || !message->leased || !(*message->last == receipt)) return;
  Ask(*message, {.why = Why::kUnwritten, .certain = message->until_ms > now_ms});
  EndLease(*message);
}

// --- what is shown

void FeatureModel::Shown(FeatureConsumer& consumer, const OutgoingDelivery& delivery) {
  LedgerMessage* found = ledger.At(delivery.receipt.position);
  if (!found || found->at.qid != consumer.qid) return Fail("delivery of no known message");
  LedgerMessage& message = *found;
  ++deliveries;
  if (message.last) ++redeliveries;
  uint64_t body = 0;
  const std::string_view wire = delivery.payload.view();
  if (wire.size() >= sizeof(body)) std::memcpy(&body, wire.data(), sizeof(body));
  if (body != message.body || wire.size() != message.bytes) {
    Fail(message, "body of another message");
  }
  const int64_t grant_ms = delivery.lease_expires_at_ms - consumer.lease_ms;
  if (const auto it = passed_over_.find(&message);
      it != passed_over_.end() && grant_ms <= it->second) {
    passed_over_.erase(it);
  }
  consumer.last_grant_ms = std::max(consumer.last_grant_ms, grant_ms);
  CheckReceipt(message, delivery);
  CheckGrant(consumer, message, grant_ms);
  CheckRates(consumer, message, grant_ms);
  const bool fresh = !message.state.has_row;
  // What else the turn did, the log does not show yet.
  if (in_turn_ && grant_ms == now_ms && fresh) {
    granted_.push_back({&message, fresh});
  } else {
    if (fresh) CheckGroup(message, /*fresh=*/true);
    CheckLeftForGood(message);
  }

  message.last = delivery.receipt;
  message.lost = false;
  message.leased = true;
  message.until_ms = delivery.lease_expires_at_ms;
  message.holder = &consumer;
  leases_.insert({message.until_ms, &message});
  consumer.leases.insert(&message);
  consumer.bytes_in_flight += message.bytes;
  consumer.unwritten_bytes += message.bytes;
  consumer.shown.push_back(delivery.receipt);
  CheckCredit(consumer, message);
}

void FeatureModel::CheckCredit(const FeatureConsumer& consumer, const LedgerMessage& message) {
  if (consumer.credit_was_cut) return;
  int32_t held = 0;
  int64_t bytes = 0;
  for (const LedgerMessage* other : consumer.leases) {
    // What was decided in this turn is not in the log yet.
    if (!other->intents.empty() || other->until_ms <= now_ms) continue;
    ++held;
    bytes += other->bytes;
  }
  if (held > consumer.max_in_flight) Fail(message, "more in flight than the credit");
  if (held > 1 && bytes > consumer.max_bytes_in_flight) {
    Fail(message, "more bytes in flight than the credit");
  }
}

void FeatureModel::CheckReceipt(LedgerMessage& message, const OutgoingDelivery& delivery) {
  const LedgerMessage::State& state = message.state;
  const Receipt& receipt = delivery.receipt;
  if (receipt.boot != boot) Fail(message, "receipt of another boot");
  if (state.has_row) {
    if (state.row.boot != boot || state.row.delivery_count != receipt.delivery_count) {
      Fail(message, absl::StrCat("hand-out ", receipt.delivery_count, " is not in its row"));
    }
    if (state.count_lsn > durable_lsn && state.row.lease_until_ms == 0) {
      Fail(message, "granted again and shown too soon");
    }
  } else {
    if (receipt.delivery_count != 1) Fail(message, "a first hand-out with another number");
    if (message.at.seq >= message.queue->lanes[message.at.lane].durable_grant_bound) {
      Fail(message, "shown before it was durable that it may have been");
    }
  }
  if (delivery.attempt != message.Attempt()) {
    Fail(message, absl::StrCat("attempt ", delivery.attempt, " shown"));
  }
  if (message.last && *message.last == receipt) {
    Fail(message, "shown twice");
  }
  static const Deaths kNone;
  const Deaths& deaths = message.info.origin ? message.info.origin->deaths : kNone;
  // After a restart the deaths of what was granted before come back with the body.
  if (!((delivery.deaths ? *delivery.deaths : kNone) == deaths)) {
    Fail(message, "shown with other deaths");
  }
  if (message.lost && !delivery.maybe_redelivered) {
    Fail(message, "held when the process died, but not flagged maybe_redelivered");
  }
  // A hand-out of before the last stop may have been followed by a crash for all the shard knows.
  if (delivery.maybe_redelivered && message.stored_boot == boot) {
    Fail(message, "flagged maybe_redelivered without a crash");
  }
}

void FeatureModel::CheckGrant(FeatureConsumer& consumer, LedgerMessage& message,
                              int64_t grant_ms) {
  const LedgerQueue& queue = *message.queue;
  if (message.state.settled) Fail(message, "delivered after it was settled");
  if (message.Dying()) Fail(message, "delivered after its death");
  if (message.leased) Fail(message, "second live lease");
  if (message.stored_lsn > durable_lsn) Fail(message, "shown before it was durable");
  if (message.at.lane == kDelayedLane) Fail(message, "delivered from the delayed lane");
  if (message.NotBeforeMs() > grant_ms) Fail(message, "granted before its retry time");
  if (message.info.expire_ms != 0 && message.info.expire_ms <= grant_ms) {
    Fail(message, "granted though it has expired");
  }
  if (grant_ms + consumer.lease_ms <= last_turn_ms_) Fail(message, "shown after its lease ended");
  if (grant_ms < consumer.since_ms || grant_ms > now_ms) {
    Fail(message, "its lease does not begin with a turn");
  }
  if (queue.row.paused && queue.paused_ms < grant_ms && !recent_configs_.contains(queue.qid)) {
    Fail(message, "granted while paused");
  }
  if (queue.row.config.single_active_consumer && grant_ms > queue.row.update_ms &&
      !recent_configs_.contains(queue.qid)) {
    for (const auto& [until_ms, other] : leases_) {
      if (other->queue == &queue && other->holder != &consumer && until_ms > now_ms &&
          other != &message && other->intents.empty()) {
        return Fail(*other, absl::StrCat("another than its holder is given lane ", message.at.lane,
                                         " seq ", message.at.seq));
      }
    }
  }
}

// One open message per group, and within a priority the earlier one first.
void FeatureModel::CheckGroup(const LedgerMessage& message, bool fresh) {
  const uint64_t group = message.info.group_hash;
  if (group == 0) return;
  for (Lane lane = 0; lane < kImmediateLanes; ++lane) {
    for (const auto& [seq, other] : message.queue->lanes[lane].unsettled) {
      if (other == &message || other->info.group_hash != group || other->Dying()) continue;
      // What ends in this turn is not in the log yet.
      const int64_t expire_ms = other->info.expire_ms;
      const bool expired = expire_ms != 0 && expire_ms <= now_ms;
      if (other->leased ? other->until_ms <= now_ms : expired) continue;
      if (!other->intents.empty() || changed_now_.contains(other)) continue;
      const bool open = other->leased || (other->state.has_row && other->state.row.boot == boot);
      if (open && fresh) {
        return Fail(*other, absl::StrCat("open while its group goes on with lane ", message.at.lane,
                                         " seq ", message.at.seq));
      }
      if (!fresh && other->leased) {
        return Fail(message,
                    absl::StrCat("granted again while seq ", seq, " of its group is leased"));
      }
      const bool before = lane == message.at.lane && seq < message.at.seq;
      if (before && fresh) {
        return Fail(*other, absl::StrCat("its group goes on with seq ", message.at.seq));
      }
    }
  }
}

// What came before it, and would be handed out before it if it came back after a crash, has to have
// left for good: of its group, and of what nobody has ever been given.
void FeatureModel::CheckLeftForGood(const LedgerMessage& message) {
  for (const LedgerMessage* other : leaving_) {
    if (other->queue != message.queue || other->at.lane != message.at.lane ||
        other->at.seq >= message.at.seq || other->state.settled_lsn <= durable_lsn) {
      continue;
    }
    // What has expired is not handed out again.
    if (other->info.expire_ms != 0 && other->info.expire_ms <= now_ms) continue;
    const bool of_group =
        message.info.group_hash != 0 && other->info.group_hash == message.info.group_hash;
    // One that its group held back could rightly be overtaken.
    const bool first = !message.state.has_row && !other->last && !other->state.has_row &&
                       other->info.group_hash == 0;
    if (of_group || (first && !other->may_have_been_held)) {
      return Fail(message, absl::StrCat("shown before it is durable that seq ", other->at.seq,
                                        of_group ? " of its group" : "", " (body ", other->body,
                                        ", settled in ", other->state.settled_lsn,
                                        other->state.removed ? ", removed" : "", ", deaths ",
                                        other->info.origin ? other->info.origin->deaths.size() : 0,
                                        ", expires ", other->info.expire_ms, ", ", other->left_as,
                                        ") has left"));
    }
  }
}

// --- order

bool FeatureModel::IsReady(const LedgerMessage& message) const {
  if (message.leased || message.Dying() || message.state.settled) {
    return false;
  }
  if (message.at.lane == kDelayedLane || message.NotBeforeMs() > last_turn_ms_) return false;
  if (message.info.expire_ms != 0 && message.info.expire_ms <= now_ms) return false;
  if (message.info.group_hash == 0) return true;
  for (Lane lane = 0; lane < kImmediateLanes; ++lane) {
    for (const auto& [seq, other] : message.queue->lanes[lane].unsettled) {
      if (other != &message && other->info.group_hash == message.info.group_hash) return false;
    }
  }
  return true;
}

// It was ready when the turn began, and is not on its way to anybody.
bool FeatureModel::MustHaveBeenGranted(const LedgerMessage& message) const {
  const Lsn since = std::max(message.stored_lsn, message.state.row_lsn);
  if (since > durable_before_ || changed_now_.contains(&const_cast<LedgerMessage&>(message)) ||
      !message.intents.empty() || (message.ShownNow(boot) && !message.state.has_row)) {
    return false;
  }
  const LedgerLane& lane = message.queue->lanes[message.at.lane];
  if (!message.state.has_row && message.at.seq >= lane.durable_grant_bound) return false;
  // One that its group has held back may have to be read again, and does not stop the others.
  return message.info.group_hash == 0 && IsReady(message);
}

// Nothing that was ready has been passed over by what has to come later.
void FeatureModel::CheckOrder() {
  if (!known_) return;
  std::map<LedgerQueue*, LedgerMessage*> latest;
  for (const Grant& grant : granted_) {
    LedgerMessage*& last = latest[grant.message->queue];
    const auto place = [](const LedgerMessage& m) { return std::pair(m.at.lane, m.at.seq); };
    // What a group has held back does not tell how far dispatch has come in its lane.
    if (grant.message->info.group_hash != 0) continue;
    if (!last || place(*last) < place(*grant.message)) last = grant.message;
  }
  for (const auto& [queue, last] : latest) {
    if (!last || SomeWaitForTheDisk(*queue) || queue->row.config.priority_aging_ms != 0 ||
        recent_configs_.contains(queue->qid)) {
      continue;
    }
    for (Lane lane = 0; lane <= last->at.lane; ++lane) {
      for (const auto& [seq, message] : queue->lanes[lane].unsettled) {
        if (lane == last->at.lane && seq >= last->at.seq && !message->state.has_row) break;
        if (!MustHaveBeenGranted(*message)) continue;
        Fail(*message, absl::StrCat("passed over by lane ", last->at.lane, " seq ", last->at.seq));
        return;
      }
    }
  }
}

}  // namespace sluice::broker
