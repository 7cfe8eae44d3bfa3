// Limits of a queue: whether there is room, how it is made, and who is told.
#include <algorithm>
#include <array>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/broker/publish_plan.h"
#include "server/broker/shard.h"

namespace sluice::broker {
namespace {

// Heads that are read at once when what has to be dropped is not in memory.
constexpr size_t kDropReadMax = 64;
constexpr uint64_t kDropReadBytesMax = 1 * kMiB;
// When to come back to a full queue: long enough for consumers to have made some room.
constexpr int64_t kFullRetryMs = 1000;

absl::Status QueueFull(const Queue& queue) {
  return WithRetryAfter(
      MakeError(ErrorReason::kQueueFull,
                absl::StrCat("queue '", queue.row.config.name,
                             "' is full; publish again once messages have been settled")),
      kFullRetryMs);
}

absl::Status LargerThanQueue(const Queue& queue) {
  return MakeError(ErrorReason::kQueueFull,
                   absl::StrCat("the publish is larger than queue '", queue.row.config.name,
                                "' may ever hold"));
}

bool CouldFit(const QueueConfig& config, const PublishPlan::Demand& demand) {
  return (config.max_length == 0 || demand.messages <= config.max_length) &&
         (config.max_bytes == 0 || demand.bytes <= config.max_bytes);
}

bool GoesTo(const PublishPlan::Message& planned, const Queue& queue) {
  return std::find(planned.stored_in.begin(), planned.stored_in.end(), &queue) !=
         planned.stored_in.end();
}

// Whether a queue that holds less than all of a publish could take the end of it.
bool CouldFitTheEnd(const Queue& queue, const PublishPlan& plan) {
  if (plan.takes_pushed_out.contains(queue.qid)) return false;
  return std::all_of(plan.messages.begin(), plan.messages.end(), [&](const auto& planned) {
    return !GoesTo(planned, queue) ||
           CouldFit(queue.row.config, {1, static_cast<int64_t>(planned.message->payload.size())});
  });
}

}  // namespace

// Who asks for no more than it gives back is no burden, also where a limit was lowered.
bool Shard::HasRoom(const Queue& queue, const PublishPlan::Demand& demand) const {
  const QueueConfig& config = queue.row.config;
  if (config.max_length > 0 && demand.messages > 0 &&
      static_cast<int64_t>(queue.Unsettled()) + demand.messages > config.max_length) {
    return false;
  }
  return config.max_bytes == 0 || demand.bytes <= 0 ||
         static_cast<int64_t>(queue.Bytes()) + demand.bytes <= config.max_bytes;
}

// Neither what a consumer holds, nor what has died already, nor what the publish at hand settles.
bool Shard::MayDrop(const Queue& queue, const LaneState& lane, Seq seq) const {
  const auto open = lane.open.find(seq);
  if (open != lane.open.end() && (open->second.state == OpenState::kLeased ||
                                  open->second.state == OpenState::kDying)) {
    return false;
  }
  if (!making_room_for_) return true;
  const auto settling = making_room_for_->settling.find(queue.qid);
  return settling == making_room_for_->settling.end() ||
         !settling->second.messages.contains({lane.position.lane, seq});
}

// Drops the oldest messages that nobody holds, of the lowest priority that has any, until there is
// room; delayed ones, which are of every priority, come last. kReading: not before what has been
// asked for is read, and RoomMade follows then; what goes was chosen when that read began, also if an
// older one has come back since, so that leases which end meanwhile cannot put it off for ever.
// kNoWayOut: a dead-letter queue is full.
Shard::Room Shard::DropHeads(Queue& queue, const PublishPlan::Demand& demand, Now now) {
  for (int step = 1; step <= kLanes; ++step) {
    const auto id =
        step == kLanes ? kDelayedLane : static_cast<Lane>(kImmediateLanes - step);
    LaneState* lane = queue.lanes[id].get();
    if (!lane) continue;
    std::vector<Seq> unknown;
    for (Seq seq = lane->settled.NextUnsettled(lane->settled.head()); seq < lane->next_seq;
         seq = lane->settled.NextUnsettled(seq + 1)) {
      if (unknown.empty() && HasRoom(queue, demand)) return Room::kMade;
      if (!MayDrop(queue, *lane, seq)) continue;
      const storage::StoredMessage* found = lane->Find(seq);
      if (!found || !found->payload) {
        if (seq >= lane->visible_end) {
          // It cannot be read before it is durable. RoomMade follows when it is.
          if (unknown.empty()) return Room::kReading;
          break;
        }
        unknown.push_back(seq);
        if (unknown.size() == kDropReadMax) break;
        continue;
      }
      // In order: what is not in memory comes first.
      if (!unknown.empty()) break;
      if (!DieWithBody(queue, *lane, *found, DeathReason::kOverflow, "", now)) {
        return queue.dead_letters_soon ? Room::kReading : Room::kNoWayOut;
      }
    }
    if (unknown.empty()) {
      if (HasRoom(queue, demand)) return Room::kMade;
      continue;
    }
    if (queue.undroppable == std::pair(id, unknown.front())) {
      return queue.dead_letters_soon ? Room::kReading : Room::kNoWayOut;
    }
    if (!queue.dropping) DropWhenRead(queue, id, std::move(unknown), demand);
    return Room::kReading;
  }
  return HasRoom(queue, demand) ? Room::kMade : Room::kNothingLeft;
}

void Shard::DropWhenRead(Queue& queue, Lane lane_id, std::vector<Seq> seqs,
                         PublishPlan::Demand demand) {
  queue.dropping = true;
  ReadBodies(queue, lane_id, std::move(seqs), kDropReadBytesMax,
             [this, lane_id, demand](Queue* queue, Bodies bodies, Now now) {
               if (!queue) return;
               queue->dropping = false;
               LaneState& lane = *queue->lanes[lane_id];
               for (auto& message : bodies.messages) {
                 // It may have been told meanwhile to reject.
                 if (queue->row.config.overflow != Overflow::kDropHead) break;
                 if (HasRoom(*queue, demand)) break;
                 if (!MayExpireNow(lane, message.seq)) continue;
                 const Seq seq = message.seq;
                 if (!DieWithBody(*queue, lane, std::move(message), DeathReason::kOverflow, "",
                                  now)) {
                   queue->undroppable = {lane_id, seq};
                   break;
                 }
               }
               RoomMade(*queue);
             });
}

// For a publish that is larger than a queue which drops its head: as if its messages came one by
// one. All that is there goes, as far as it may, and of the publish what its own later messages
// push out.
absl::Status Shard::PlanPushingOut(Queue& queue, PublishPlan* plan, bool* reading, Now now) {
  const QueueConfig& config = queue.row.config;
  // More than it holds when it is empty, so that nothing is left behind: sizes may be estimates.
  const Room room = DropHeads(queue, {config.max_length + 1, config.max_bytes + 1}, now);
  *reading = room == Room::kReading;
  if (room == Room::kReading || room == Room::kNoWayOut) return QueueFull(queue);
  PublishPlan::Demand pushed_out;
  std::array<std::deque<size_t>, kLanes> lanes;
  const auto size = [&](size_t i) {
    return static_cast<int64_t>(plan->messages[i].message->payload.size());
  };
  // Without its messages: what is settled here, and what another queue of the plan pushes out.
  PublishPlan::Demand kept = plan->demand[queue.qid];
  for (size_t i = 0; i < plan->messages.size(); ++i) {
    if (!GoesTo(plan->messages[i], queue)) continue;
    --kept.messages;
    kept.bytes -= size(i);
  }
  for (size_t i = 0; i < plan->messages.size(); ++i) {
    const PublishPlan::Message& planned = plan->messages[i];
    if (!GoesTo(planned, queue)) continue;
    lanes[LaneOfNew(*planned.message, now)].push_back(i);
    ++kept.messages;
    kept.bytes += size(i);
    while (!HasRoom(queue, kept)) {
      // In the order of DropHeads.
      std::deque<size_t>* from = nullptr;
      for (int step = 1; step <= kLanes && !from; ++step) {
        auto& lane = lanes[step == kLanes ? kDelayedLane : kImmediateLanes - step];
        if (!lane.empty() && lane.front() != i) from = &lane;
      }
      if (!from) return QueueFull(queue);
      const size_t oldest = from->front();
      from->pop_front();
      plan->pushed_out.insert({queue.qid, oldest});
      --kept.messages;
      kept.bytes -= size(oldest);
      ++pushed_out.messages;
      pushed_out.bytes += size(oldest);
    }
  }
  plan->demand[queue.qid] = kept;
  if (config.dead_letter_queue.empty() || pushed_out.messages == 0) return absl::OkStatus();
  Queue* dead = FindQueue(config.dead_letter_queue);
  if (!dead) return QueueFull(queue);
  PublishPlan::Demand& demand = plan->demand[dead->qid];
  demand.messages += pushed_out.messages;
  demand.bytes += pushed_out.bytes;
  plan->takes_pushed_out.insert(dead->qid);
  return absl::OkStatus();
}

// OK: there is room everywhere, made where the queue says so. Otherwise plan->full says where not,
// and whether waiting for `*reading` would help.
absl::Status Shard::MakeRoom(const ParkedPublish& attempt, PublishPlan* plan, bool* reading,
                             Now now) {
  std::vector<Queue*> to_drop;
  for (const auto& [qid, demand] : plan->demand) {
    Queue* queue = FindQueue(qid);
    const bool others_first = OthersComeFirst(attempt, *queue, demand);
    if (HasRoom(*queue, demand) && !others_first) continue;
    const QueueConfig& config = queue->row.config;
    const bool could_fit = CouldFit(config, demand);
    const bool drops =
        config.overflow == Overflow::kDropHead && (could_fit || CouldFitTheEnd(*queue, *plan));
    if (drops && !others_first) {
      to_drop.push_back(queue);
      continue;
    }
    plan->full = queue;
    return could_fit || drops ? QueueFull(*queue) : LargerThanQueue(*queue);
  }
  // Nothing is dropped for a publish that another queue refuses.
  for (Queue* queue : to_drop) {
    const PublishPlan::Demand demand = plan->demand[queue->qid];
    absl::Status status;
    if (CouldFit(queue->row.config, demand)) {
      const Room room = DropHeads(*queue, demand, now);
      if (room == Room::kMade) continue;
      *reading = room == Room::kReading;
      status = QueueFull(*queue);
    } else {
      status = PlanPushingOut(*queue, plan, reading, now);
      if (status.ok()) continue;
    }
    plan->full = queue;
    return status;
  }
  // What was dropped may have gone, as dead letters, to another queue of the plan.
  return to_drop.empty() ? absl::OkStatus() : MakeRoom(attempt, plan, reading, now);
}

// Some wait for what room there is, or comes. At a queue that drops its head most only wait until
// what goes for them is read: the same will be done for who comes later.
bool Shard::RoomIsTaken(const Queue& queue) const {
  if (queue.waiting_for_room.empty()) return false;
  const ParkedPublish& first = *parked_.at(*queue.waiting_for_room.begin());
  return queue.row.config.overflow == Overflow::kReject ||
         (first.waits_for_room && first.stopped_at == queue.qid);
}

// Who waits for room is not overtaken by who comes later and needs less, or does not wait.
bool Shard::OthersComeFirst(const ParkedPublish& attempt, const Queue& queue,
                            const PublishPlan::Demand& demand) const {
  if (demand.messages <= 0 && demand.bytes <= 0) return false;
  const bool is_new = attempt.id == 0;
  return RoomIsTaken(queue) && (is_new || *queue.waiting_for_room.begin() < attempt.id);
}

// Those who wait for room look again before the turn ends.
void Shard::RoomMade(Queue& queue) {
  if (queue.room_made || (queue.waiting_for_room.empty() && queue.waiting_sources.empty())) return;
  queue.room_made = true;
  room_made_.push_back(queue.qid);
}

void Shard::RunRoomMade(Now now) {
  if (std::exchange(routes_changed_, false)) {
    for (const auto& [name, line] : parked_lines_) {
      if (FirstWaitsForRoom(line)) orphaned_.insert(*line.ids.begin());
    }
  }
  for (const uint64_t id : std::exchange(orphaned_, {})) {
    const auto it = parked_.find(id);
    if (it != parked_.end()) RetryLine(std::string(it->second->line), now);
  }
  for (const QueueId qid : std::exchange(room_made_, {})) {
    Queue* queue = FindQueue(qid);
    if (!queue) continue;
    queue->room_made = false;
    RetryThoseWaiting(*queue, now);
    for (const QueueId source : std::exchange(queue->waiting_sources, {})) {
      Queue* waiting = FindQueue(source);
      if (!waiting) continue;
      // Those that still find no room say so again.
      RetryDying(*waiting);
      expiry_.RoomMade(now.engine_ms);
      // It may have been its heads that could not be dropped: others wait for that.
      RoomMade(*waiting);
    }
  }
}

}  // namespace sluice::broker
