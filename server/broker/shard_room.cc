// Limits of a queue: whether there is room, how it is made, and who is told.
#include <algorithm>

#include "server/broker/shard.h"

namespace sluice::broker {
namespace {

// Heads that are read at once when what has to be dropped is not in memory.
constexpr size_t kDropReadMax = 64;
constexpr uint64_t kDropReadBytesMax = 1 * kMiB;

}  // namespace

bool Shard::HasRoom(const Queue& queue, const PublishPlan::Demand& demand) const {
  const QueueConfig& config = queue.row.config;
  if (config.max_length > 0 &&
      static_cast<int64_t>(queue.Unsettled()) + demand.messages > config.max_length) {
    return false;
  }
  return config.max_bytes == 0 ||
         static_cast<int64_t>(queue.Bytes()) + demand.bytes <= config.max_bytes;
}

// Drops the oldest messages that nobody holds, of the lowest priority that has any, until there is
// room. False: it cannot, or not before what `*reading` tells has been read.
bool Shard::DropHeads(Queue& queue, const PublishPlan::Demand& demand, bool* reading, Now now) {
  for (int id = kImmediateLanes - 1; id >= 0; --id) {
    LaneState* lane = queue.lanes[id].get();
    if (!lane) continue;
    std::vector<Seq> unknown;
    for (Seq seq = lane->settled.NextUnsettled(lane->settled.head()); seq < lane->next_seq;
         seq = lane->settled.NextUnsettled(seq + 1)) {
      if (unknown.empty() && HasRoom(queue, demand)) return true;
      const auto open = lane->open.find(seq);
      if (open != lane->open.end() && (open->second.state == OpenState::kLeased ||
                                       open->second.state == OpenState::kDying)) {
        continue;
      }
      const storage::StoredMessage* found = lane->Find(seq);
      if (!found || !found->payload) {
        if (seq >= lane->visible_end) {
          // It cannot be read before it is durable. RoomMade follows when it is.
          if (unknown.empty()) return *reading = true, false;
          break;
        }
        unknown.push_back(seq);
        if (unknown.size() == kDropReadMax) break;
        continue;
      }
      // In order: what is not in memory comes first.
      if (!unknown.empty()) break;
      if (!DieWithBody(queue, *lane, *found, DeathReason::kOverflow, "", now)) return false;
    }
    if (unknown.empty()) {
      if (HasRoom(queue, demand)) return true;
      continue;
    }
    *reading = true;
    if (queue.dropping) return false;
    queue.dropping = true;
    ReadBodies(queue, static_cast<Lane>(id), std::move(unknown), kDropReadBytesMax,
               [this, id, demand](Queue* queue, Bodies bodies, Now now) {
                 if (!queue) return;
                 queue->dropping = false;
                 LaneState& lane = *queue->lanes[id];
                 for (auto& message : bodies.messages) {
                   // It may have been told meanwhile to reject.
                   if (queue->row.config.overflow != Overflow::kDropHead) break;
                   if (HasRoom(*queue, demand)) break;
                   if (!MayExpireNow(lane, message.seq)) continue;
                   DieWithBody(*queue, lane, std::move(message), DeathReason::kOverflow, "", now);
                 }
                 RoomMade(*queue);
               });
    return false;
  }
  return HasRoom(queue, demand);
}

// Those who wait for room look again before the turn ends.
void Shard::RoomMade(Queue& queue) {
  if (queue.room_made || (queue.waiting_lines.empty() && queue.waiting_sources.empty())) return;
  queue.room_made = true;
  room_made_.push_back(queue.qid);
}

void Shard::RunRoomMade(Now now) {
  for (const std::string& line : std::exchange(orphaned_lines_, {})) RetryLine(line, now);
  for (const QueueId qid : std::exchange(room_made_, {})) {
    Queue* queue = FindQueue(qid);
    if (!queue) continue;
    queue->room_made = false;
    RetryWaitingLines(*queue, now);
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
