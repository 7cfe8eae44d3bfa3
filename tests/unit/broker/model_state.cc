#include "tests/unit/broker/model_state.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace sluice::broker {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
constexpr int64_t kRemovedRememberedMs = 10 * kMinuteMs;
// Unseen hand-outs that may have failed one after the other before one is seen again.
constexpr int32_t kUnseenAttemptsMax = 50;

bool Newer(const Receipt& a, const Receipt& b) {
  return std::pair(a.boot, a.delivery_count) > std::pair(b.boot, b.delivery_count);
}

}  // namespace

void NaiveModel::Fail(const ModelMessage& message, const std::string& what) {
  fail_(absl::StrCat(what, " (queue ", message.at.qid, " lane ", message.at.lane, " seq ",
                     message.at.seq, ", attempt ", message.record.attempt, ", now ", now_ms,
                     ", boot ", boot, ", durable ", durable_lsn, " of ", appended_lsn, ")"));
}

void NaiveModel::Touch(ModelMessage& message) {
  message.touched = true;
  touched_.insert(message.id);
}

int64_t NaiveModel::DurableAtMs(Lsn lsn) const {
  if (lsn > durable_lsn) return kNever;
  const auto it = durable_at_ms_.find(lsn);
  return it == durable_at_ms_.end() ? 0 : it->second;  // 0: in an earlier boot
}

// --- time, turns and batches

void NaiveModel::BeginTurn() {
  in_turn_ = true;
  ++turn_;
  turns_[now_ms] = {turn_, 0};
  last_turn_ms_ = now_ms;
  while (!leases_.empty() && leases_.begin()->first <= now_ms) {
    Return(*messages.at(leases_.begin()->second), /*failed=*/true, 0);
  }
}

void NaiveModel::EndTurn(Lsn lsn) {
  in_turn_ = false;
  appended_lsn = lsn;
  turns_[now_ms].lsn = lsn;
  for (const uint64_t id : touched_) {
    ModelMessage& message = *messages.at(id);
    message.touched = false;
    if (!message.publish_lsn) message.publish_lsn = lsn;
    if (!message.return_lsn) message.return_lsn = lsn;
    message.versions[lsn] = message.record;
    // Of what is durable only the last version matters.
    auto durable = message.versions.upper_bound(durable_lsn);
    if (durable != message.versions.begin()) {
      message.versions.erase(message.versions.begin(), std::prev(durable));
    }
  }
  touched_.clear();
  for (auto& [qid, queue] : queues) {
    if (!queue->created_lsn) queue->created_lsn = lsn;
    if (queue->deleted && !queue->deleted_lsn) queue->deleted_lsn = lsn;
  }
  if (!EverythingDurable()) return;
  for (const uint64_t id : obliged_) {
    ModelMessage& message = *messages.at(id);
    if (message.granted_by_ms != kNever && !MayHaveFailedUnseen(message, now_ms)) {
      Fail(message, "passed over by a message that has to come later");
    }
  }
  obliged_.clear();
}

void NaiveModel::Durable(Lsn lsn) {
  while (durable_lsn < lsn) durable_at_ms_[++durable_lsn] = now_ms;
}

void NaiveModel::Restore(ModelMessage& message) {
  message.record = message.versions.rbegin()->second;
  message.touched = false;
  message.return_lsn = 0;
  message.granted_by_ms = kNever;
  message.in_limbo = 0;
  message.holder = nullptr;
  message.leased = false;
  ModelQueue& queue = *queues.at(message.at.qid);
  if (message.record.settled) {
    queue.unsettled[message.at.lane].erase(message.at.seq);
  } else {
    queue.unsettled[message.at.lane][message.at.seq] = &message;
  }
}

void NaiveModel::Crash(bool unseen_batches) {
  for (auto& [qid, queue] : queues) {
    queue->crashes_seen += 1;
    if (queue->deleted && (!queue->deleted_lsn || *queue->deleted_lsn > durable_lsn)) {
      queue->deleted = false;
      queue->deleted_lsn.reset();
    }
  }
  for (auto it = live_.begin(); it != live_.end();) {
    ModelMessage& message = *messages.at(*it);
    ModelQueue& queue = *queues.at(message.at.qid);
    if (queue.deleted) {
      it = live_.erase(it);
      continue;
    }
    if (!message.publish_lsn || *message.publish_lsn > durable_lsn) {
      queue.unsettled[message.at.lane].erase(message.at.seq);
      queue.all[message.at.lane].erase(message.at.seq);
      Seq& next = queue.next_seq[message.at.lane];
      next = std::min(next, message.at.seq);
      messages.erase(*it);
      it = live_.erase(it);
      continue;
    }
    if (message.leased) message.lost_in_crash = true;
    // A restored message whose lease is unknown to the model may have been granted unseen.
    if (!message.leased && (unseen_batches || MayHaveFailedUnseen(message, now_ms))) {
      message.disturbed = true;
    }
    message.versions.erase(message.versions.upper_bound(durable_lsn), message.versions.end());
    Restore(message);
    it = message.record.settled ? live_.erase(it) : std::next(it);
  }
  std::erase_if(queues, [&](const auto& entry) {
    const auto& created = entry.second->created_lsn;
    return !created || *created > durable_lsn;
  });
}

void NaiveModel::CleanStop() {
  for (const auto& [until_ms, id] : leases_) {
    ModelMessage& message = *messages.at(id);
    message.record.saved_lease_ms = until_ms;
    message.versions[appended_lsn] = message.record;
  }
  for (auto it = live_.begin(); it != live_.end();) {
    ModelMessage& message = *messages.at(*it);
    if (queues.at(message.at.qid)->deleted) {
      it = live_.erase(it);
      continue;
    }
    if (!message.leased && MayHaveFailedUnseen(message, now_ms)) message.disturbed = true;
    Restore(message);
    it = message.record.settled ? live_.erase(it) : std::next(it);
  }
}

void NaiveModel::StartBoot() {
  leases_.clear();
  touched_.clear();
  obliged_.clear();
  turns_.clear();
  durable_at_ms_.clear();
  appended_lsn = durable_lsn;
  ++boot;
  for (const uint64_t id : live_) {
    ModelMessage& message = *messages.at(id);
    const int64_t saved_ms = message.record.saved_lease_ms;
    if (saved_ms > now_ms) {
      Lease(message, nullptr, saved_ms);
    } else if (saved_ms > 0) {
      // Ran out while the server was down.
      ++message.record.attempt;
      message.record.saved_lease_ms = 0;
    }
  }
}

// --- what was decided

ModelQueue& NaiveModel::Create(const std::string& name, int64_t lease_ms,
                               const RetryPolicy& retry) {
  auto queue = std::make_unique<ModelQueue>();
  queue->name = name;
  queue->qid = queues.empty() ? 1 : queues.rbegin()->first + 1;
  queue->lease_ms = lease_ms;
  queue->retry = retry;
  ModelQueue& made = *queue;
  queues[made.qid] = std::move(queue);
  return made;
}

ModelQueue* NaiveModel::Find(const std::string& name) {
  for (auto& [qid, queue] : queues) {
    if (!queue->deleted && queue->name == name) return queue.get();
  }
  return nullptr;
}

void NaiveModel::Delete(ModelQueue& queue) {
  queue.deleted = true;
  for (auto& [lane, messages_of_lane] : queue.unsettled) {
    for (auto& [seq, message] : messages_of_lane) {
      if (message->leased) leases_.erase({message->lease_until_ms, message->id});
      DropFromHolder(*message);
      message->leased = false;
      message->granted_by_ms = kNever;
    }
  }
}

ModelMessage& NaiveModel::Publish(ModelQueue& queue, int priority, uint64_t id, uint32_t bytes) {
  const Lane lane = LaneOfPriority(priority);
  Seq& next = queue.next_seq[lane];
  if (next == 0) next = 1;
  auto message = std::make_unique<ModelMessage>();
  message->id = id;
  message->at = {0, queue.qid, lane, next++};
  message->bytes = bytes;
  message->return_lsn.reset();
  ModelMessage& made = *message;
  queue.all[lane][made.at.seq] = queue.unsettled[lane][made.at.seq] = &made;
  messages[id] = std::move(message);
  live_.insert(id);
  Touch(made);
  return made;
}

ModelMessage* NaiveModel::At(const MessagePosition& at) {
  const auto queue = queues.find(at.qid);
  if (at.shard != 0 || queue == queues.end()) return nullptr;
  const auto lane = queue->second->all.find(at.lane);
  if (lane == queue->second->all.end()) return nullptr;
  const auto it = lane->second.find(at.seq);
  return it == lane->second.end() ? nullptr : it->second;
}

// Whether a receipt may act on its message (API rule 2).
Verdict NaiveModel::Judge(ModelQueue* queue, const Receipt& receipt) {
  ModelMessage* message = At(receipt.position);
  if (!message || receipt.position.qid != queue->qid) return Verdict::kInvalid;
  const bool last = !message->receipts.empty() && message->receipts.back() == receipt;
  if (message->record.settled) {
    if (!message->record.removed) return last ? Verdict::kOk : Verdict::kEither;
    const bool known = last && receipt.boot == boot && message->removed_boot == boot &&
                       now_ms < message->removed_ms + kRemovedRememberedMs;
    return known ? Verdict::kExpired : Verdict::kEither;
  }
  if (last && message->leased) return Verdict::kOk;
  // If it turns out settled, any receipt is OK.
  if (message->in_limbo) return Verdict::kEither;
  if (!last) return Verdict::kExpired;
  if (message->disturbed || MayHaveFailedUnseen(*message, now_ms)) return Verdict::kEither;
  if (MayBeGranted(*message, now_ms) && !EverythingDurable()) return Verdict::kEither;
  return Verdict::kOk;
}

void NaiveModel::DropFromHolder(ModelMessage& message) {
  ModelConsumer* holder = std::exchange(message.holder, nullptr);
  if (!holder || holder->leases.erase(message.id) == 0) return;
  holder->bytes_in_flight -= message.bytes;
}

void NaiveModel::Settle(ModelMessage& message, bool removed) {
  if (message.leased) leases_.erase({message.lease_until_ms, message.id});
  DropFromHolder(message);
  message.leased = false;
  message.granted_by_ms = kNever;
  message.record.settled = true;
  message.record.removed = removed;
  message.removed_ms = now_ms;
  message.removed_boot = boot;
  message.settled_before_turn = turn_ + 1;
  ModelQueue& queue = *queues.at(message.at.qid);
  auto& unsettled = queue.unsettled[message.at.lane];
  unsettled.erase(message.at.seq);
  if (message.receipts.empty() || message.receipts.back().boot != boot) {
    queue.bytes_near.insert(message.at.lane);
  }
  Touch(message);
}

void NaiveModel::SettleIn(ModelMessage& message, uint64_t turn, Lsn lsn) {
  if (message.record.settled) return;
  const bool was_touched = message.touched;
  Settle(message, /*removed=*/false);
  message.settled_before_turn = turn;
  message.versions[lsn] = message.record;
  if (was_touched) return;
  message.touched = false;
  touched_.erase(message.id);
}

void NaiveModel::Return(ModelMessage& message, bool failed, int64_t delay_ms) {
  // On its way back already it is ready when that is durable, whatever is said once more.
  const bool returning = !message.leased && message.record.not_before_ms == 0 && delay_ms == 0 &&
                         (!message.return_lsn || *message.return_lsn > durable_lsn);
  if (message.leased) leases_.erase({message.lease_until_ms, message.id});
  DropFromHolder(message);
  message.leased = false;
  message.granted_by_ms = kNever;
  if (failed) ++message.record.attempt;
  message.record.not_before_ms = delay_ms > 0 ? now_ms + delay_ms : 0;
  message.record.saved_lease_ms = 0;
  message.lost_in_crash = false;  // given back by its holder after all
  if (!returning) message.return_lsn.reset();
  Touch(message);
}

void NaiveModel::ReleaseUnwritten(const Receipt& receipt) {
  ModelMessage* message = At(receipt.position);
  if (!message || !message->leased || !(message->receipts.back() == receipt)) return;
  Return(*message, /*failed=*/false, 0);
  message->disturbed = true;
}

void NaiveModel::Extend(ModelMessage& message, int64_t lease_ms) {
  leases_.erase({message.lease_until_ms, message.id});
  message.lease_until_ms = now_ms + lease_ms;
  leases_.insert({message.lease_until_ms, message.id});
  if (message.record.saved_lease_ms > 0) {
    message.record.saved_lease_ms = message.lease_until_ms;
    Touch(message);
  }
}

int64_t NaiveModel::Purge(ModelQueue& queue, bool include_leased) {
  int64_t purged = 0;
  for (auto& [lane, of_lane] : queue.unsettled) {
    for (auto it = of_lane.begin(); it != of_lane.end();) {
      ModelMessage& message = *(it++)->second;  // settling takes it out
      if (message.leased && !include_leased) continue;
      Settle(message, /*removed=*/true);
      ++purged;
    }
    // A purge counts the bytes of what stays anew, from the sizes that are in memory.
    for (const auto& [seq, message] : of_lane) {
      if (message->receipts.back().boot != boot) queue.bytes_near.insert(lane);
    }
  }
  return purged;
}

void NaiveModel::Disturb(ModelQueue& queue) {
  for (auto& [lane, of_lane] : queue.unsettled) {
    for (auto& [seq, message] : of_lane) {
      if (message->leased) continue;
      message->disturbed = true;
      message->granted_by_ms = kNever;
    }
  }
}

bool NaiveModel::IsDisturbed(ModelQueue& queue) {
  for (auto& [lane, of_lane] : queue.unsettled) {
    for (auto& [seq, message] : of_lane) {
      if (message->disturbed && !message->leased) return true;
    }
  }
  return false;
}

ModelDepth NaiveModel::Depth(ModelQueue& queue) {
  ModelDepth depth;
  for (auto& [lane, of_lane] : queue.unsettled) {
    // What this very turn has settled may still come back.
    if (of_lane.empty() && EverythingDurable() && touched_.empty()) queue.bytes_near.erase(lane);
    for (auto& [seq, message] : of_lane) {
      ++depth.total;
      depth.bytes += message->bytes;
      depth.in_limbo |= message->in_limbo > 0;
      if (message->leased) {
        ++depth.leased;
      } else if (message->record.not_before_ms > last_turn_ms_) {
        ++depth.delayed;
        if (message->record.not_before_ms <= now_ms) ++depth.just_due;
      } else if (message->disturbed) {
        ++depth.leased_unseen_max;
      }
    }
  }
  depth.bytes_near = !queue.bytes_near.empty();
  return depth;
}

// Could the shard have granted it in a turn before this time?
bool NaiveModel::MayBeGranted(const ModelMessage& message, int64_t before_turn_ms) const {
  if (message.record.settled || message.leased || message.in_limbo) return false;
  if (!message.publish_lsn || DurableAtMs(*message.publish_lsn) >= before_turn_ms) return false;
  if (message.record.not_before_ms > 0) {
    // Due in an earlier turn: within one, some grants come before the retries that are due.
    const auto due = turns_.lower_bound(message.record.not_before_ms);
    return due != turns_.end() && due->first < before_turn_ms;
  }
  return message.return_lsn && DurableAtMs(*message.return_lsn) < before_turn_ms;
}

// When it became ready, in this boot; kNever: not yet.
int64_t NaiveModel::ReadySinceMs(const ModelMessage& message) const {
  if (!message.publish_lsn) return kNever;
  int64_t since_ms = DurableAtMs(*message.publish_lsn);
  if (message.record.not_before_ms > 0) {
    const auto due = turns_.lower_bound(message.record.not_before_ms);
    return due == turns_.end() ? kNever : std::max(since_ms, due->first);
  }
  if (!message.return_lsn) return kNever;
  return std::max(since_ms, DurableAtMs(*message.return_lsn));
}

// A delivery that is held back for its batch is dropped when its lease ends meanwhile: could that
// have happened to a ready message before `until_ms`?
bool NaiveModel::MayHaveFailedUnseen(const ModelMessage& message, int64_t until_ms) const {
  const int64_t since_ms = ReadySinceMs(message);
  for (auto turn = turns_.lower_bound(since_ms); turn != turns_.end() && turn->first < until_ms;
       ++turn) {
    const auto expiry = turns_.lower_bound(turn->first + kModelLeaseMsMin);
    if (expiry == turns_.end()) return false;
    const int64_t durable_ms = turn->second.lsn == 0 ? kNever : DurableAtMs(turn->second.lsn);
    if (expiry->first <= durable_ms) return true;
  }
  return false;
}

// --- what was shown

void NaiveModel::Lease(ModelMessage& message, ModelConsumer* holder, int64_t until_ms) {
  message.leased = true;
  message.lease_until_ms = until_ms;
  message.holder = holder;
  leases_.insert({until_ms, message.id});
  if (!holder) return;
  holder->leases.insert(message.id);
  holder->bytes_in_flight += message.bytes;
}

void NaiveModel::Oblige(ModelMessage& message, int64_t granted_by_ms) {
  if (message.disturbed) return;
  message.granted_by_ms = std::min(message.granted_by_ms, granted_by_ms);
  obliged_.insert(message.id);
}

// Whoever was ready and should have come first must have been granted by the same turn.
void NaiveModel::CheckOrder(ModelQueue& queue, const ModelMessage& message, bool first,
                            int64_t grant_ms) {
  for (auto& [lane, of_lane] : queue.unsettled) {
    if (lane > message.at.lane) break;
    for (auto& [seq, other] : of_lane) {
      if (lane == message.at.lane && (!first || seq >= message.at.seq)) break;
      if (lane == message.at.lane && !other->receipts.empty()) continue;
      if (MayBeGranted(*other, grant_ms)) Oblige(*other, grant_ms);
    }
  }
}

void NaiveModel::CheckGrant(const ModelMessage& message, const OutgoingDelivery& delivery,
                            int64_t grant_ms) {
  const auto turn = turns_.find(grant_ms);
  if (turn == turns_.end()) return Fail(message, "its lease does not begin with a turn");
  if (message.record.settled &&
      (!message.record.removed || turn->second.number >= message.settled_before_turn)) {
    Fail(message, "delivered after it was settled");
  }
  if (delivery.receipt.boot != boot) Fail(message, "receipt of another boot");
  const bool again = !message.receipts.empty();
  if (again && !Newer(delivery.receipt, message.receipts.back())) {
    Fail(message, "receipt not newer than the one before");
  }
  const bool exact = !message.disturbed && !MayHaveFailedUnseen(message, grant_ms);
  if (exact && again && message.receipts.back().boot == boot &&
      delivery.receipt.delivery_count != message.receipts.back().delivery_count + 1) {
    Fail(message, absl::StrCat("delivery count skips to ", delivery.receipt.delivery_count,
                               " from ", message.receipts.back().delivery_count));
  }
  if (again && ((in_turn_ && grant_ms == now_ms) || turn->second.lsn > durable_lsn)) {
    Fail(message, "granted again and shown before that was durable");
  }
  if (message.leased) Fail(message, "second live lease");
  if (!message.publish_lsn || *message.publish_lsn > durable_lsn) {
    Fail(message, "shown before it was durable");
  }
  if (!message.return_lsn || (!message.record.settled && *message.return_lsn > durable_lsn)) {
    Fail(message, "shown before the end of its last lease was durable");
  }
  if (message.record.not_before_ms > grant_ms) Fail(message, "granted before its retry time");
  const int32_t attempt_max = message.record.attempt + (exact ? 0 : kUnseenAttemptsMax);
  if (delivery.attempt < message.record.attempt || delivery.attempt > attempt_max) {
    Fail(message, absl::StrCat("attempt ", delivery.attempt, " shown"));
  }
  const bool flagged = delivery.maybe_redelivered;
  // A grant of before the last stop may have been followed by a crash for all the shard knows.
  const bool old_grant = again && message.receipts.back().boot + 1 < boot;
  if (flagged && !old_grant && exact && queues.at(message.at.qid)->crashes_seen == 0) {
    Fail(message, "flagged maybe_redelivered without a crash");
  }
  // An unseen hand-out of a boot that stopped cleanly stands for the one that was lost.
  if (message.lost_in_crash && !flagged && !message.disturbed &&
      delivery.attempt <= message.shown_attempt) {
    Fail(message, "held when the process died, but not flagged maybe_redelivered");
  }
}

void NaiveModel::Shown(ModelConsumer& consumer, const OutgoingDelivery& delivery) {
  ModelMessage* found = At(delivery.receipt.position);
  if (!found || found->at.qid != consumer.queue->qid) return fail_("delivery of no known message");
  ModelMessage& message = *found;
  ++deliveries;
  if (!message.receipts.empty()) ++redeliveries;
  uint64_t id = 0;
  const std::string_view body = delivery.payload.view();
  if (body.size() >= sizeof(id)) body.copy(reinterpret_cast<char*>(&id), sizeof(id));
  if (id != message.id || body.size() != message.bytes) Fail(message, "body of another message");
  const int64_t grant_ms = delivery.lease_expires_at_ms - consumer.lease_ms;
  CheckGrant(message, delivery, grant_ms);
  if (message.granted_by_ms < grant_ms && !MayHaveFailedUnseen(message, grant_ms)) {
    Fail(message, "passed over: granted too late");
  }
  CheckOrder(*consumer.queue, message, message.receipts.empty(), grant_ms);

  message.granted_by_ms = kNever;
  message.disturbed = false;
  message.lost_in_crash = false;
  message.shown_after_turn = turn_;
  message.receipts.push_back(delivery.receipt);
  message.shown_attempt = delivery.attempt;
  if (message.record.settled) return;
  message.record.attempt = delivery.attempt;
  message.record.not_before_ms = 0;
  message.record.saved_lease_ms = 0;
  if (in_turn_ && grant_ms == now_ms) {
    Touch(message);
  } else {
    message.versions[turns_[grant_ms].lsn] = message.record;
  }
  Lease(message, &consumer, delivery.lease_expires_at_ms);
  if (static_cast<int64_t>(consumer.leases.size()) > consumer.max_in_flight) {
    Fail(message, "more in flight than the credit");
  }
  if (consumer.leases.size() > 1 && consumer.bytes_in_flight > consumer.max_bytes_in_flight) {
    Fail(message, "more bytes in flight than the credit");
  }
  if (delivery.lease_expires_at_ms <= last_turn_ms_) {
    Fail(message, "shown after its lease ended");
  }
}

}  // namespace sluice::broker
