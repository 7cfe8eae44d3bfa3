// Messages that are never delivered again from where they are: they go to the dead-letter queue, or
// away.
#include <algorithm>

#include "server/base/check.h"
#include "server/broker/shard.h"
#include "server/storage/rows.h"

namespace sluice::broker {
namespace {

// One step of moving open messages whose bodies have to be read.
constexpr size_t kMoveMessagesMax = 1024;
constexpr uint64_t kMoveBytesMax = 2 * kMiB;

}  // namespace

// An open message has died. What has a dead-letter queue waits for its move; the rest goes now.
void Shard::Die(Queue& queue, LaneState& lane, Seq seq, OpenMessage& message, DeathReason reason,
                Now now) {
  const bool dropped =
      reason == DeathReason::kAttempts && queue.row.config.retry.discard_when_exhausted;
  if (dropped || queue.row.config.dead_letter_queue.empty()) {
    CountDeath(queue, reason, /*moved=*/false);
    RememberRemoved(queue, lane.position.lane, seq, now.mono_ns);
    Leave(queue, lane, seq, message.size_bytes, message.group_hash);
    return;
  }
  Unhook(queue, lane, seq, message);
  message.state = OpenState::kDying;
  message.death = reason;
  message.not_before_ms = 0;
  ++lane.dying;
  lane.WriteHistory(seq, message, 0, batch_);
  // Before those that wait for room: it may be smaller.
  queue.dying.insert(queue.dying.end() - static_cast<std::ptrdiff_t>(queue.dying_stuck),
                     {lane.position.lane, seq});
  WakeDying(queue);
}

// What has expired and may not go yet is never granted either: it makes way for the rest.
void Shard::HoldExpired(Queue& queue, LaneState& lane, storage::StoredMessage message) {
  OpenMessage& open = OpenFresh(queue, lane, message);
  open.state = OpenState::kDying;
  open.death = DeathReason::kExpired;
  ++lane.dying;
  lane.WriteHistory(message.seq, open, 0, batch_);
  queue.dying.push_back({lane.position.lane, message.seq});
  ++queue.dying_stuck;
}

void Shard::CountDeath(Queue& queue, DeathReason reason, bool moved) {
  if (moved) ++queue.counters.dead_lettered;
  if (reason == DeathReason::kExpired) ++queue.counters.expired;
  if (reason == DeathReason::kOverflow) ++queue.counters.dropped;
  if (!moved && (reason == DeathReason::kRejected || reason == DeathReason::kAttempts)) {
    ++queue.counters.discarded;
  }
}

// False: it has to stay where it is, since the dead-letter queue has no room.
bool Shard::DieWithBody(Queue& queue, LaneState& lane, storage::StoredMessage message,
                        DeathReason reason, const std::string& detail, Now now) {
  const Seq seq = message.seq;
  const auto open = lane.open.find(seq);
  const int32_t attempts = open == lane.open.end() ? 0 : open->second.attempt - 1;
  Queue* to = nullptr;
  if (!queue.row.config.dead_letter_queue.empty()) {
    to = FindQueue(queue.row.config.dead_letter_queue);
    const PublishPlan::Demand demand{1, static_cast<int64_t>(message.payload.size())};
    if (!to) return false;
    if (!HasRoom(*to, demand)) {
      const Room room = to->row.config.overflow == Overflow::kDropHead
                            ? DropHeads(*to, demand, now)
                            : Room::kNothingLeft;
      if (room != Room::kMade) {
        AwaitRoom(*to, queue, /*soon=*/room == Room::kReading);
        return false;
      }
    }
  }
  const uint32_t bytes = message.payload.size();
  const uint64_t group_hash = message.info.group_hash;
  if (to) {
    Death death;
    death.queue = queue.row.config.name;
    death.reason = reason;
    death.attempts = attempts;
    death.first_ms = death.last_ms = now.engine_ms;
    death.detail = detail;
    Deaths deaths = message.info.origin ? message.info.origin->deaths : Deaths();
    AddDeath(std::move(death), deaths);
    const MessagePosition id = message.info.origin ? message.info.origin->id : lane.At(seq);
    const Lane to_lane = lane.position.lane == kDelayedLane
                             ? LaneOfPriority(message.info.priority)
                             : lane.position.lane;
    MessageInfo info;
    info.publish_ms = message.info.publish_ms;
    info.group_hash = group_hash;
    info.origin = std::make_shared<const Origin>(Origin{id, std::move(deaths)});
    AddMessage(*to, LaneOf(*to, to_lane), std::move(message.payload), std::move(info));
  }
  CountDeath(queue, reason, to != nullptr);
  RememberRemoved(queue, lane.position.lane, seq, now.mono_ns);
  // What has expired is not handed out, come back or not.
  if (reason == DeathReason::kOverflow) lane.gap_lsn = last_lsn_ + 1;
  Leave(queue, lane, seq, bytes, group_hash);
  return true;
}

// `source` has messages for `full`, which has no room: they look again when some is made.
void Shard::AwaitRoom(Queue& full, Queue& source, bool soon) {
  source.dead_letters_wait = true;
  source.dead_letters_soon = soon;
  if (std::find(full.waiting_sources.begin(), full.waiting_sources.end(), source.qid) ==
      full.waiting_sources.end()) {
    full.waiting_sources.push_back(source.qid);
  }
}

void Shard::WakeDying(Queue& queue) {
  if (queue.dying_pending || queue.dying.size() == queue.dying_stuck) return;
  queue.dying_pending = true;
  dying_queues_.push_back(queue.qid);
}

// There may be room now for those that did not fit.
void Shard::RetryDying(Queue& queue) {
  queue.dead_letters_wait = false;
  queue.dead_letters_soon = false;
  queue.undroppable.reset();
  queue.dying_stuck = 0;
  WakeDying(queue);
}

void Shard::RunDying(Now now) {
  for (size_t left = dying_queues_.size(); left > 0; --left) {
    const QueueId qid = dying_queues_.front();
    dying_queues_.pop_front();
    Queue* queue = FindQueue(qid);
    if (!queue) continue;
    queue->dying_pending = false;
    MoveDying(*queue, now);
  }
}

void Shard::MoveDying(Queue& queue, Now now) {
  if (queue.moving_dying || queue.dying.size() == queue.dying_stuck) return;
  // Enough has been tried for the room there was; others come first when there is more.
  if (queue.dying_stuck >= kMoveMessagesMax) return;
  // Those at the front that are of one lane; others follow.
  const Lane lane_id = queue.dying.front().first;
  LaneState& lane = *queue.lanes[lane_id];
  std::vector<Seq> seqs;
  uint64_t bytes = 0;
  while (queue.dying.size() > queue.dying_stuck && queue.dying.front().first == lane_id &&
         seqs.size() < kMoveMessagesMax && bytes < kMoveBytesMax) {
    const Seq seq = queue.dying.front().second;
    queue.dying.pop_front();
    const auto open = lane.open.find(seq);
    // Its receipt may have settled it meanwhile.
    if (open == lane.open.end() || open->second.state != OpenState::kDying) continue;
    seqs.push_back(seq);
    bytes += open->second.size_bytes;
  }
  if (seqs.empty()) return WakeDying(queue);
  std::sort(seqs.begin(), seqs.end());
  queue.moving_dying = true;
  ReadBodies(queue, lane_id, seqs, kMoveBytesMax,
             [this, lane_id, seqs](Queue* queue, Bodies bodies, Now now) {
               if (!queue) return;
               queue->moving_dying = false;
               for (size_t i = seqs.size(); i > seqs.size() - bodies.unread; --i) {
                 queue->dying.push_front({lane_id, seqs[i - 1]});
               }
               LaneState& lane = *queue->lanes[lane_id];
               for (auto& message : bodies.messages) {
                 MoveDyingWithBody(*queue, lane, std::move(message), now);
               }
               WakeDying(*queue);
             });
}

void Shard::MoveDyingWithBody(Queue& queue, LaneState& lane, storage::StoredMessage message,
                              Now now) {
  const Seq seq = message.seq;
  const auto open = lane.open.find(seq);
  if (open == lane.open.end() || open->second.state != OpenState::kDying) return;
  const DeathReason reason = open->second.death;
  const std::string detail = open->second.detail ? *open->second.detail : std::string();
  if (!DieWithBody(queue, lane, std::move(message), reason, detail, now)) {
    queue.dying.push_back({lane.position.lane, seq});
    ++queue.dying_stuck;
  }
}

}  // namespace sluice::broker
