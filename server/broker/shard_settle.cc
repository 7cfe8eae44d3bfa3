// Settling: ack, nack, extend, and what a lease's end means.
#include <algorithm>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/broker/shard.h"
#include "server/storage/rows.h"

namespace sluice::broker {
namespace {

// Rule 2 of the API contract: how long and for how many messages of a queue an outcome other than
// an ack is remembered.
constexpr int64_t kRemovedRememberedNs = 10LL * 60 * 1'000'000'000;
constexpr size_t kRemovedRememberedMax = 10'000;
constexpr int64_t kNsPerMs = 1'000'000;

absl::Status ReceiptInvalid() {
  return MakeError(ErrorReason::kReceiptInvalid, "the receipt is not one of this queue");
}
absl::Status LeaseExpired() {
  return MakeError(ErrorReason::kLeaseExpired,
                   "the lease has ended and the message was granted again or removed");
}

std::shared_ptr<const MessageOutline> MakeOutline(const storage::StoredMessage& message) {
  return std::make_shared<const MessageOutline>(
      MessageOutline{message.info, static_cast<uint32_t>(message.payload.size())});
}

}  // namespace

// Which message a receipt is good for, if any.
absl::StatusOr<Shard::Honoured> Shard::FindHonoured(Queue& queue, const Receipt& receipt,
                                                    int64_t now_ns) {
  const MessagePosition& at = receipt.position;
  if (at.shard != options_.shard || at.qid != queue.qid || at.lane >= kImmediateLanes ||
      !queue.lanes[at.lane] || at.seq == 0 || at.seq >= queue.lanes[at.lane]->next_seq) {
    return ReceiptInvalid();
  }
  LaneState& lane = *queue.lanes[at.lane];
  if (lane.settled.Contains(at.seq)) {
    if (WasRemoved(queue, at.lane, at.seq, now_ns)) return LeaseExpired();
    return Honoured{&lane, nullptr, true};
  }
  const auto it = lane.open.find(at.seq);
  if (it != lane.open.end()) {
    // One that waits without ever having been out in this boot may have been in an earlier one.
    const bool never_out = it->second.delivery_count == 0;
    const bool good = never_out ? receipt.boot < boot_row_.boot && receipt.delivery_count == 1
                                : it->second.boot == receipt.boot &&
                                      it->second.delivery_count == receipt.delivery_count;
    if (!good) return LeaseExpired();
    return Honoured{&lane, &it->second, false};
  }
  // Whoever wants more of a retry that rests has it read first.
  if (lane.resting.Contains(at.seq)) return LeaseExpired();
  // Not granted in this boot and without history: at most its first grant was made, in an earlier
  // boot, and any other grant would have left a row.
  if (receipt.boot < boot_row_.boot && receipt.delivery_count == 1) {
    return Honoured{&lane, nullptr, false};
  }
  return LeaseExpired();
}

bool Shard::GroupIsOpen(const Queue& queue, uint64_t group_hash) const {
  return queue.groups && queue.groups->OpenOf(group_hash).has_value();
}

// A nack that counts needs to know all of it, and what leaves its size: the sum of its lane would be
// wrong for as long as the queue is in use. To release it is nothing, as the end of the boot that
// granted it has made it ready again.
Shard::Unread Shard::FindOutlines(Queue& queue, std::vector<SettleItem>& items, Now now) {
  Unread unread;
  for (SettleItem& item : items) {
    const MessagePosition& at = item.receipt.position;
    if (item.action == SettleAction::kRelease || item.outline || (!unread.seqs.empty() && at.lane != unread.lane)) continue;
    const auto found = FindHonoured(queue, item.receipt, now.mono_ns);
    if (!found.ok() || found->settled || found->message) continue;
    if (at.seq >= found->lane->visible_end) continue;  // cannot have been out, and cannot be read
    const storage::StoredMessage* known = found->lane->Find(at.seq);
    if (known && known->payload) {
      item.outline = MakeOutline(*known);
    } else {
      unread.lane = at.lane;
      unread.seqs.push_back(at.seq);
    }
  }
  std::sort(unread.seqs.begin(), unread.seqs.end());
  unread.seqs.erase(std::unique(unread.seqs.begin(), unread.seqs.end()), unread.seqs.end());
  return unread;
}

void Shard::NoteOutlines(Lane lane, const std::vector<storage::StoredMessage>& messages,
                         std::vector<SettleItem>* items) {
  absl::flat_hash_map<Seq, std::shared_ptr<const MessageOutline>> outlines;
  for (const storage::StoredMessage& message : messages) {
    outlines[message.seq] = MakeOutline(message);
  }
  for (SettleItem& item : *items) {
    if (item.receipt.position.lane != lane) continue;
    const auto read = outlines.find(item.receipt.position.seq);
    if (read != outlines.end()) item.outline = read->second;
  }
}

// Gives a message that only an earlier boot granted its place among the open ones.
OpenMessage& Shard::OpenFromEarlierBoot(Queue& queue, LaneState& lane, const SettleItem& item) {
  const Receipt& receipt = item.receipt;
  const Seq seq = receipt.position.seq;
  OpenMessage message;
  message.state = OpenState::kReturned;
  message.boot = receipt.boot;
  message.delivery_count = receipt.delivery_count;
  message.maybe_redelivered = true;
  // What is settled has been looked up; the mean is for what cannot be here.
  message.size_bytes =
      static_cast<uint32_t>(lane.unsettled_bytes / std::max<uint64_t>(1, lane.Unsettled()));
  const auto know = [&](const MessageInfo& info, uint32_t size_bytes) {
    message.size_bytes = size_bytes;
    message.ready_since_ms = info.ReadySinceMs();
    message.expire_ms = info.expire_ms;
    message.origin = info.origin;
    message.group_hash = info.group_hash;
  };
  if (item.outline) {
    know(item.outline->info, item.outline->size_bytes);
  } else if (const storage::StoredMessage* known = lane.Find(seq)) {
    know(known->info, known->payload.size());
  } else if (const auto group = queue.groups ? queue.groups->GroupOfParked(lane.position.lane, seq)
                                             : std::nullopt) {
    message.group_hash = *group;
  } else {
    // Its group is not known: all that comes after it waits until it has left for good.
    lane.gap_lsn = last_lsn_ + 1;
  }
  if (message.group_hash != 0) {
    if (!queue.groups) queue.groups = std::make_unique<GroupTable>();
    // Its group has gone on with another one: it can only be settled.
    if (GroupIsOpen(queue, message.group_hash)) message.group_hash = 0;
  }
  uint64_t bytes = 0;
  if (queue.groups && queue.groups->Remove(lane.position.lane, seq, &bytes)) window_bytes_ -= bytes;
  if (message.group_hash != 0) {
    queue.groups->Open(message.group_hash, lane.position.lane, seq);
  }
  lane.holes_bound = std::max(lane.holes_bound, seq + 1);
  lane.returned.insert(seq);
  ++queue.open_messages;
  ++open_messages_;
  return lane.open[seq] = std::move(message);
}

void Shard::Unhook(Queue& queue, LaneState& lane, Seq seq, OpenMessage& message) {
  const MessagePosition at = lane.At(seq);
  switch (message.state) {
    case OpenState::kLeased:
      EndLease(queue, lane, seq, message);
      return;
    case OpenState::kWaiting:
      engine_timers_.Cancel({message.not_before_ms, TimerKind::kRetry, at.lane, at.qid, at.seq});
      message.not_before_ms = 0;
      message.due_row_lsn = 0;
      --lane.waiting;
      return;
    case OpenState::kReturned:
      lane.returned.erase(seq);
      lane.TakeFetched(seq, message, &window_bytes_);
      ScheduleDue(queue, lane);
      Wake(queue);  // what comes after it may fit where it did not
      return;
    case OpenState::kDying: --lane.dying; return;
    case OpenState::kReturning:
      --lane.returning;
      Activate(queue);
      return;
  }
}

void Shard::EndLease(Queue& queue, LaneState& lane, Seq seq, OpenMessage& message) {
  const MessagePosition at = lane.At(seq);
  mono_timers_.Cancel({message.lease_until_ns, TimerKind::kLease, at.lane, at.qid, at.seq});
  --lane.leased;
  if (Consumer* consumer = FindConsumer(message.holder)) {
    consumer->leases.erase({at.lane, seq});
    --consumer->in_flight;
    consumer->bytes_in_flight -= message.size_bytes;
    WakeConsumer(*consumer);
  }
  message.holder = 0;
  message.receiver = nullptr;
  Activate(queue);
}

// When the end of the lease is durable, if the stream is still there.
void Shard::TellLeaseLost(SubscriptionId holder, const Receipt& receipt, ErrorReason reason) {
  const Consumer* consumer = FindConsumer(holder);
  if (!consumer || consumer->ended || consumer->IsReceive()) return;
  effects_.lost_leases.push_back({holder, reason, receipt});
}

// One report for each stream and reason, however many leases a purge or a pause of the client ended.
void Shard::TellLeasesLost(const std::vector<LostLease>& lost) {
  absl::btree_map<std::pair<SubscriptionId, ErrorReason>, std::vector<Receipt>> reports;
  for (const LostLease& lease : lost) {
    reports[{lease.holder, lease.reason}].push_back(lease.receipt);
  }
  for (auto& [of, receipts] : reports) {
    const Consumer* consumer = FindConsumer(of.first);
    if (consumer && !consumer->ended) consumer->sink->OnLeaseLost(std::move(receipts), of.second);
  }
}

void Shard::ReturnMessage(Queue& queue, LaneState& lane, Seq seq, OpenMessage& message, bool failed,
                          int64_t delay_ms, Now now) {
  if (failed) {
    const int32_t max_attempts = queue.row.config.retry.max_attempts;
    const bool exhausted = max_attempts > 0 && message.attempt >= max_attempts;
    ++message.attempt;
    if (exhausted) return Die(queue, lane, seq, message, DeathReason::kAttempts, now);
  }
  if (IsExpired(message.expire_ms, now)) {
    return Die(queue, lane, seq, message, DeathReason::kExpired, now);
  }
  if (failed) ++queue.counters.retried;
  message.cut_short = false;
  // Before its lease ends: who takes over from its holder waits for it.
  if (delay_ms <= 0) ++lane.returning;
  Unhook(queue, lane, seq, message);
  // What nobody holds can be dropped.
  if (queue.row.config.overflow == Overflow::kDropHead) RoomMade(queue);
  message.maybe_redelivered = false;  // its next hand-out is known to be a further one
  const MessagePosition at = lane.At(seq);
  if (delay_ms > 0) {
    message.state = OpenState::kWaiting;
    message.not_before_ms = now.engine_ms + delay_ms;
    ++lane.waiting;
    engine_timers_.Add({message.not_before_ms, TimerKind::kRetry, at.lane, at.qid, at.seq});
    if (MayRest(lane, message)) PrepareRest(queue, lane, seq, message);
    lane.WriteHistory(seq, message, 0, batch_);
    return;
  }
  message.not_before_ms = 0;
  message.state = OpenState::kReturning;
  lane.WriteHistory(seq, message, 0, batch_);
  effects_.returning.push_back({at.qid, at.lane, seq});
}

absl::Status Shard::SettleOne(Queue& queue, const SettleItem& item, Now now) {
  auto found = FindHonoured(queue, item.receipt, now.mono_ns);
  if (!found.ok()) return found.status();
  if (found->settled) return absl::OkStatus();
  LaneState& lane = *found->lane;
  const Seq seq = item.receipt.position.seq;
  // By the end of the boot that granted it, and not counted as an attempt yet.
  const bool cut_short = !found->message || (found->message->cut_short &&
                                             found->message->state == OpenState::kReturned);
  if (cut_short && item.action == SettleAction::kRelease) return absl::OkStatus();
  if (!found->message && (item.action == SettleAction::kRetry || item.action == SettleAction::kDelay)) {
    // Without one, it was out again meanwhile. Or one of its group that overtakes it by its priority
    // is out: it waits for that one anyway.
    if (!item.outline || GroupIsOpen(queue, item.outline->info.group_hash)) return absl::OkStatus();
  }
  OpenMessage& message = found->message ? *found->message : OpenFromEarlierBoot(queue, lane, item);
  const bool leased = message.state == OpenState::kLeased;
  const bool dying = message.state == OpenState::kDying;
  // Of what has died already, the row tells why.
  if (!dying && !item.reason.empty()) message.detail = std::make_unique<std::string>(item.reason);
  switch (item.action) {
    case SettleAction::kAck:
      ++queue.counters.acked;
      Leave(queue, lane, seq, message.size_bytes, message.group_hash);
      return absl::OkStatus();
    case SettleAction::kDiscard:
      ++queue.counters.discarded;
      Leave(queue, lane, seq, message.size_bytes, message.group_hash);
      return absl::OkStatus();
    case SettleAction::kDeadLetter:
      if (dying) return absl::OkStatus();
      // The attempt that rejects it counts.
      if (leased || cut_short) ++message.attempt;
      Die(queue, lane, seq, message, DeathReason::kRejected, now);
      return absl::OkStatus();
    case SettleAction::kRetry:
      // Without a live lease the attempt has failed already.
      if (!leased && !cut_short) return absl::OkStatus();
      ReturnMessage(queue, lane, seq, message, /*failed=*/true,
                    BackoffMs(queue.row.config.retry, message.attempt), now);
      return absl::OkStatus();
    case SettleAction::kDelay:
      if (dying) return absl::OkStatus();
      ReturnMessage(queue, lane, seq, message, /*failed=*/leased || cut_short, item.delay_ms, now);
      return absl::OkStatus();
    case SettleAction::kRelease:
      if (leased) ReturnMessage(queue, lane, seq, message, /*failed=*/false, 0, now);
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

void Shard::Do(SettleCommand& command, Now now) {
  const auto queue_or = GetQueue(command.queue);
  if (!queue_or.ok()) return command.done(queue_or.status());
  Queue* queue = *queue_or;
  queue->last_used_ms = now.engine_ms;
  std::vector<MessagePosition> resting;
  CollectResting(*queue, command.items, &resting);
  if (!resting.empty()) {
    return ReadResting(resting, /*only_due=*/false,
                       [this, resting, command = std::move(command)](Now now) mutable {
                         Do(command, now);
                         RestAgain(resting);
                       });
  }
  if (Unread unread = FindOutlines(*queue, command.items, now); !unread.seqs.empty()) {
    return ReadBodies(*queue, unread.lane, std::move(unread.seqs), kPageBytesMax,
                      [this, lane = unread.lane, command = std::move(command)](
                          Queue*, Bodies bodies, Now now) mutable {
                        NoteOutlines(lane, bodies.messages, &command.items);
                        Do(command, now);
                      });
  }
  SettleOutcome outcome;
  for (size_t i = 0; i < command.items.size(); ++i) {
    absl::Status status = SettleOne(*queue, command.items[i], now);
    if (status.ok()) {
      ++outcome.settled;
    } else {
      outcome.failures.push_back({static_cast<int32_t>(i), std::move(status)});
    }
  }
  // Also when nothing changed: an earlier settle of the same receipt may not be durable yet.
  AnswerWhenDurable(std::move(command.done), std::move(outcome));
}

void Shard::Do(ExtendLeaseCommand& command, Now now) {
  const auto queue_or = GetQueue(command.queue);
  if (!queue_or.ok()) return command.done(queue_or.status());
  Queue* queue = *queue_or;
  queue->last_used_ms = now.engine_ms;
  const int64_t lease_ms = command.lease_ms > 0 ? command.lease_ms : queue->row.config.lease_ms;
  ExtendOutcome outcome;
  const int64_t lease_expires_at_ms = now.engine_ms + lease_ms;
  for (size_t i = 0; i < command.receipts.size(); ++i) {
    const Receipt& receipt = command.receipts[i];
    auto found = FindHonoured(*queue, receipt, now.mono_ns);
    absl::Status status = found.status();
    if (found.ok() && (!found->message || found->message->state != OpenState::kLeased)) {
      status = found->settled
                   ? MakeError(ErrorReason::kLeaseExpired, "the message is settled")
                   : MakeError(ErrorReason::kLeaseExpired,
                               "the lease has ended; the receipt can still settle the message "
                               "until it is granted again");
    }
    if (!status.ok()) {
      outcome.failures.push_back({static_cast<int32_t>(i), std::move(status)});
      continue;
    }
    OpenMessage& message = *found->message;
    const MessagePosition& at = receipt.position;
    mono_timers_.Cancel({message.lease_until_ns, TimerKind::kLease, at.lane, at.qid, at.seq});
    message.lease_until_ns = now.mono_ns + lease_ms * kNsPerMs;
    mono_timers_.Add({message.lease_until_ns, TimerKind::kLease, at.lane, at.qid, at.seq});
    // Otherwise a crash would bring back the lease of the last clean stop.
    if (message.lease_saved) {
      found->lane->WriteHistory(at.seq, message, lease_expires_at_ms, batch_);
    }
    outcome.lease_expires_at_ms = lease_expires_at_ms;
  }
  command.done(std::move(outcome));
}

void Shard::RememberRemoved(Queue& queue, Lane lane, Seq seq, int64_t now_ns) {
  const int64_t until_ns = now_ns + kRemovedRememberedNs;
  queue.removed[{lane, seq}] = until_ns;
  queue.removed_order.push_back({until_ns, {lane, seq}});
  while (queue.removed_order.size() > kRemovedRememberedMax ||
         (!queue.removed_order.empty() && queue.removed_order.front().first <= now_ns)) {
    queue.removed.erase(queue.removed_order.front().second);
    queue.removed_order.pop_front();
  }
}

bool Shard::WasRemoved(Queue& queue, Lane lane, Seq seq, int64_t now_ns) {
  const auto it = queue.removed.find({lane, seq});
  return it != queue.removed.end() && it->second > now_ns;
}

}  // namespace sluice::broker
