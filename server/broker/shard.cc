#include "server/broker/shard.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/model/server_fields.h"
#include "server/storage/rows.h"

namespace sluice::broker {

using storage::Family;

Shard::Shard(const ShardOptions& options, ShardPort* port) : options_(options), port_(port) {}
Shard::~Shard() = default;

void Shard::Apply(Command command, Now now) {
  std::visit([&](auto& typed) { Do(typed, now); }, command);
}

absl::StatusOr<Queue*> Shard::GetQueue(const std::string& name) {
  if (Queue* queue = FindQueue(name)) return queue;
  return QueueNotFound(name);
}

absl::Status Shard::QueueNotFound(const std::string& name) {
  return MakeError(ErrorReason::kQueueNotFound,
                   absl::StrCat("queue '", name, "' does not exist"));
}

absl::Status Shard::QueueDeleted(const std::string& name) {
  return MakeError(ErrorReason::kQueueDeleted, absl::StrCat("queue '", name, "' was deleted"));
}

LaneState& Shard::LaneOf(Queue& queue, Lane lane) {
  auto& slot = queue.lanes[lane];
  if (!slot) {
    slot = std::make_unique<LaneState>(MessagePosition{options_.shard, queue.qid, lane, 0});
  }
  return *slot;
}

void Shard::MarkDirty(Queue& queue, LaneState& lane) {
  // `dirty` may already have been set by the lane itself; the list is kept free of repeats by
  // WriteDirty clearing the flag when it meets the first of them.
  lane.dirty = true;
  if (dirty_lanes_.empty() ||
      dirty_lanes_.back() != std::pair{queue.qid, lane.position.lane}) {
    dirty_lanes_.push_back({queue.qid, lane.position.lane});
  }
}

absl::Status Shard::RefuseWhenDraining() const {
  if (!draining_) return absl::OkStatus();
  return MakeDrainingError();
}

void Shard::ReplyWhenDurable(Reply reply) { effects_.replies.push_back(std::move(reply)); }

void Shard::Do(InspectCommand& command, Now now) {
  ShardInfo info;
  info.totals = {.queues = queues_.size(),
                 .open_messages = open_messages_,
                 .window_bytes = window_bytes_,
                 .lsn = last_lsn_,
                 .durable_lsn = durable_lsn_,
                 .unrouted = unrouted_,
                 .producers_fenced = producers_.fenced()};
  for (auto& [name, queue] : queues_) {
    info.totals.subscriptions += queue->subscriptions.size();
    QueueInfo described = Describe(*queue, now);
    if (info.queues.size() < command.queues_max) {
      info.queues.push_back(std::move(described));
      continue;
    }
    const QueueStats& stats = described.stats;
    QueueStats& sum = info.other_stats;
    sum.ready += stats.ready;
    sum.leased += stats.leased;
    sum.delayed += stats.delayed;
    sum.blocked += stats.blocked;
    sum.dying += stats.dying;
    sum.bytes += stats.bytes;
    sum.consumers += stats.consumers;
    sum.oldest_ready_age_ms = std::max(sum.oldest_ready_age_ms, stats.oldest_ready_age_ms);
    const QueueCounters& counters = described.counters;
    QueueCounters& total = info.other_counters;
    total.published += counters.published;
    total.published_bytes += counters.published_bytes;
    total.delivered += counters.delivered;
    total.redelivered += counters.redelivered;
    total.acked += counters.acked;
    total.discarded += counters.discarded;
    total.retried += counters.retried;
    total.leases_expired += counters.leases_expired;
    total.purged += counters.purged;
    total.dead_lettered += counters.dead_lettered;
    total.expired += counters.expired;
    total.dropped += counters.dropped;
    total.duplicates += counters.duplicates;
    total.moved += counters.moved;
  }
  command.done(std::move(info));
}

void Shard::Do(DrainCommand& command, Now now) {
  draining_ = true;
  RefuseParked(RefuseWhenDraining());
  std::vector<SubscriptionId> ids;
  for (const auto& [id, consumer] : consumers_) ids.push_back(id);
  for (const SubscriptionId id : ids) {
    Consumer& consumer = *consumers_.at(id);
    if (consumer.IsReceive()) {
      if (!consumer.answered) AnswerReceive(consumer);
    } else {
      EndSubscription(consumer, RefuseWhenDraining());
    }
  }
  ReplyWhenDurable([done = std::move(command.done)](const absl::Status&) mutable { done(); });
}

void Shard::Do(StopCommand& command, Now now) {
  draining_ = true;
  stopping_ = true;
  for (auto& [name, queue] : queues_) {
    for (auto& lane : queue->lanes) {
      if (!lane) continue;
      for (auto& [seq, message] : lane->open) {
        if (message.state != OpenState::kLeased) continue;
        const int64_t left_ms =
            std::max<int64_t>(1, (message.lease_until_ns - now.mono_ns) / 1'000'000);
        lane->WriteHistory(seq, message, now.engine_ms + left_ms, batch_);
      }
      // Every message granted in this boot now has a history row. Lowering the bound keeps the next
      // boot from flagging what was never handed out; what an earlier crash left unclear stays so.
      const Seq bound = std::min(lane->grant_bound, std::max<Seq>(1, lane->crash_bound));
      if (bound != lane->grant_bound) {
        lane->grant_bound = bound;
        MarkDirty(*queue, *lane);
      }
    }
  }
  boot_row_dirty_ = true;
  ReplyWhenDurable([this, done = std::move(command.done)](const absl::Status&) mutable {
    stopped_ = true;
    done();
  });
}

storage::BootRow Shard::CurrentBootRow(Now now) const {
  storage::BootRow row = boot_row_;
  row.lsn = last_lsn_ + 1;
  row.engine_ms = now.engine_ms;
  row.clean_stop = stopping_;
  return row;
}

void Shard::Begin(Now now) {
  boot_row_.boot += 1;
  clean_stop_ = std::exchange(boot_row_.clean_stop, false);
  boot_row_dirty_ = true;
  last_turn_ms_ = boot_begin_ms_ = now.engine_ms;
  StartOpenMessages(now);
  StartQueues(now);
  RunTurn(now);
}

void Shard::RunTurn(Now now) {
  last_turn_ms_ = now.engine_ms;
  RunDue(now);
  RunRoomMade(now);
  DispatchAll(now);
  EvictIdleWindows();
  AppendTurn(now);
}

void Shard::AppendTurn(Now now) {
  // Neighbours in the store are cheaper to write one after the other.
  std::sort(dirty_lanes_.begin(), dirty_lanes_.end());
  for (const auto& [qid, lane_id] : dirty_lanes_) {
    Queue* queue = FindQueue(qid);
    if (!queue) continue;
    LaneState& lane = *queue->lanes[lane_id];
    if (!lane.dirty) continue;
    // While someone consumes, what is published may be granted as soon as it is durable: saying so
    // now saves a row and a wait later.
    if (queue->IsConsumed() && !stopping_) lane.RaiseGrantBound(lane.next_seq, last_lsn_ + 1);
    if (lane.visible_end < lane.next_seq || lane.durable_grant_bound < lane.grant_bound) {
      effects_.progress.push_back({qid, lane_id, lane.next_seq, lane.grant_bound});
    }
    lane.WriteDirty(batch_);
  }
  dirty_lanes_.clear();
  const bool changed = !batch_.empty() || boot_row_dirty_;
  if (changed) {
    const storage::BootRow row = CurrentBootRow(now);
    batch_.Put(Family::kMeta, storage::BootKey(options_.shard), storage::EncodeBoot(row));
    boot_row_dirty_ = false;
    ++last_lsn_;
    turn_times_.push_back({last_lsn_, now.engine_ms});
  }
  FlushOutboxes(now);
  effects_.lsn = last_lsn_;
  const bool has_effects = !effects_.replies.empty() || !effects_.progress.empty() ||
                           !effects_.returning.empty() || !effects_.freed_groups.empty() ||
                           !effects_.resting.empty() || !effects_.lost_leases.empty() ||
                           !effects_.holders.empty();
  if (has_effects) waiting_effects_.push_back(std::move(effects_));
  effects_ = {};
  if (changed) {
    storage::Batch batch = std::move(batch_);
    batch_ = storage::Batch(batch.bytes());  // turns resemble each other
    batch.SetHeader({options_.shard, /*term=*/1, last_lsn_, now.engine_ms, durable_lsn_});
    port_->Append(std::move(batch));
  }
  // Replies of a turn that changed nothing may have nothing to wait for.
  OnDurable(durable_lsn_, now);
}

void Shard::OnDurable(Lsn lsn, Now now) {
  durable_lsn_ = std::max(durable_lsn_, lsn);
  while (!turn_times_.empty() && turn_times_.front().first <= durable_lsn_) turn_times_.pop_front();
  ForgetRecentIds();
  while (!waiting_effects_.empty() && waiting_effects_.front().lsn <= durable_lsn_) {
    TurnEffects effects = std::move(waiting_effects_.front());
    waiting_effects_.pop_front();
    for (Reply& reply : effects.replies) reply(absl::OkStatus());
    TellLeasesLost(effects.lost_leases);
    for (const LaneProgress& progress : effects.progress) ShowProgress(progress);
    for (const ReturningMessage& returning : effects.returning) ShowReturned(returning);
    for (const FreedGroup& freed : effects.freed_groups) FreeGroup(freed);
    for (const ReturningMessage& resting : effects.resting) {
      if (Queue* queue = FindQueue(resting.qid)) {
        Rest(*queue, *queue->lanes[resting.lane], resting.seq);
      }
    }
    for (const SubscriptionId id : effects.holders) DeliverHeld(id);
  }
}

void Shard::ShowProgress(const LaneProgress& progress) {
  Queue* queue = FindQueue(progress.qid);
  if (!queue) return;
  LaneState& lane = *queue->lanes[progress.lane];
  lane.visible_end = std::max(lane.visible_end, progress.visible_end);
  lane.durable_grant_bound = std::max(lane.durable_grant_bound, progress.grant_bound);
  // Publishes may have waited for heads that could not be read before.
  RoomMade(*queue);
  if (progress.lane == kDelayedLane) return ScheduleDue(*queue, lane);
  Wake(*queue);
}

void Shard::ShowReturned(const ReturningMessage& returning) {
  Queue* queue = FindQueue(returning.qid);
  if (!queue) return;
  LaneState& lane = *queue->lanes[returning.lane];
  const auto it = lane.open.find(returning.seq);
  if (it == lane.open.end() || it->second.state != OpenState::kReturning) return;
  // Its payload was given up with its lease.
  it->second.state = OpenState::kReturned;
  lane.returned.insert(returning.seq);
  --lane.returning;
  Activate(*queue);
  Wake(*queue);
}

// Earlier, a crash would bring the message back that has left, behind those which came after it.
void Shard::FreeGroup(const FreedGroup& freed) {
  Queue* queue = FindQueue(freed.qid);
  if (!queue) return;
  queue->groups->Close(freed.hash);
  RefillGroups(*queue);
  Wake(*queue);
}

void Shard::DeliverHeld(SubscriptionId id) {
  Consumer* consumer = FindConsumer(id);
  while (consumer && !consumer->ended && !consumer->held.empty() &&
         consumer->held.front().lsn <= durable_lsn_) {
    std::vector<OutgoingDelivery> deliveries = std::move(consumer->held.front().deliveries);
    consumer->held.pop_front();
    // What was purged, or ran out of time, while it waited for the disk was never delivered.
    const auto granted = deliveries.size();
    std::erase_if(deliveries, [&](const OutgoingDelivery& delivery) {
      const MessagePosition& at = delivery.receipt.position;
      const auto& open = consumer->queue->lanes[at.lane]->open;
      const auto it = open.find(at.seq);
      return it == open.end() || it->second.state != OpenState::kLeased ||
             it->second.boot != delivery.receipt.boot ||
             it->second.delivery_count != delivery.receipt.delivery_count;
    });
    if (consumer->messages_left >= 0) {
      consumer->messages_left += static_cast<int64_t>(granted - deliveries.size());
      WakeConsumer(*consumer);
    }
    if (!deliveries.empty() || consumer->IsReceive()) {
      Deliver(*consumer, std::move(deliveries));
    } else if (consumer->held.empty() && consumer->outbox.empty()) {
      TellDrained(*consumer);
    }
    consumer = FindConsumer(id);  // delivering may have ended it
  }
}

void Shard::FailAll(const absl::Status& status) {
  for (Reply& reply : effects_.replies) reply(status);
  effects_ = {};
  while (!waiting_effects_.empty()) {
    TurnEffects effects = std::move(waiting_effects_.front());
    waiting_effects_.pop_front();
    for (Reply& reply : effects.replies) reply(status);
  }
  RefuseParked(status);
  for (auto& [id, consumer] : consumers_) {
    if (!consumer->IsReceive()) {
      if (!consumer->ended) consumer->sink->OnEnd(status);
    } else if (consumer->receive_done) {
      consumer->receive_done(status);
    }
  }
  consumers_.clear();
  by_sink_.clear();
  by_call_.clear();
}

std::optional<int64_t> Shard::NextDueNs(Now now) const {
  std::optional<int64_t> due = mono_timers_.NextDue();
  std::optional<int64_t> engine_due_ms = engine_timers_.NextDue();
  // The sweep waits for what it reads and for the disk, not for the clock.
  if (!expiry_.busy && expiry_.DueMs() != ExpirySweep::kNever &&
      (expiry_.DueMs() > now.engine_ms || turn_times_.empty())) {
    engine_due_ms = std::min(engine_due_ms.value_or(expiry_.DueMs()), expiry_.DueMs());
  }
  if (engine_due_ms) {
    // Engine time runs at most 5 % fast or slow: waking at the nominal time and looking again is
    // enough.
    const int64_t ns =
        now.mono_ns + std::max<int64_t>(1, *engine_due_ms - now.engine_ms) * 1'000'000;
    if (!due || ns < *due) due = ns;
  }
  return due;
}

}  // namespace sluice::broker
