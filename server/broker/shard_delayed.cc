// Delayed messages: from their lane to the immediate one when they are due.
#include <algorithm>

#include "server/base/check.h"
#include "server/broker/shard.h"
#include "server/storage/rows.h"

namespace sluice::broker {
namespace {

// One step of joining: bounds the batch it goes into.
constexpr size_t kJoinMessagesMax = 2048;
constexpr uint64_t kJoinBytesMax = 2 * kMiB;

}  // namespace

// Sees to it that the next due message is waited for, or looked for.
void Shard::ScheduleDue(Queue& queue, LaneState& lane) {
  if (!lane.due) return;
  if (lane.due->WantsPage()) StartDuePage(queue, lane);
  const bool held_up = lane.joining || !RetriesMayReturn(lane);
  const int64_t due_ms = held_up ? 0 : lane.due->FirstDueMs().value_or(0);
  if (due_ms == lane.due_timer_ms) return;
  const MessagePosition at = lane.position;
  if (lane.due_timer_ms != 0) {
    engine_timers_.Cancel({lane.due_timer_ms, TimerKind::kDue, at.lane, at.qid, 0});
  }
  lane.due_timer_ms = due_ms;
  if (due_ms != 0) engine_timers_.Add({due_ms, TimerKind::kDue, at.lane, at.qid, 0});
}

void Shard::StartDuePage(Queue& queue, LaneState& lane) {
  const DueWindow::Key from = lane.due->StartPage(durable_lsn_);
  const Lane id = lane.position.lane;
  ReadRequest request;
  request.index_begin = storage::DueKey(lane.At(from.seq), std::max<int64_t>(0, from.due_ms));
  request.index_end =
      storage::DueKey({options_.shard, queue.qid, static_cast<Lane>(id + 1), 0}, 0);
  request.rows_max = DueWindow::kPageRowsMax;
  StartRead(std::move(request), [this, qid = queue.qid, id](ReadResult& result, Now) {
    Queue* queue = FindQueue(qid);
    if (!queue) return absl::OkStatus();
    std::vector<DueWindow::Key> keys;
    for (const storage::IndexRow& row : result.rows) {
      const auto key = storage::ParseIndexKey(row.key);
      if (!key.ok()) return key.status();
      keys.push_back({key->time_ms, key->position.seq});
    }
    LaneState& lane = *queue->lanes[id];
    lane.due->OnPage(keys, result.rows.size() < DueWindow::kPageRowsMax);
    ScheduleDue(*queue, lane);
    return absl::OkStatus();
  });
}

// Reads what is due; JoinDue follows.
void Shard::StartJoining(Queue& queue, LaneState& lane, Now now) {
  lane.due_timer_ms = 0;
  std::vector<DueWindow::Key> due;
  std::vector<DueWindow::Key> early;
  for (const DueWindow::Key& key : lane.due->PopDue(now.engine_ms, kJoinMessagesMax)) {
    if (lane.settled.Contains(key.seq)) continue;
    if (key.seq >= lane.visible_end) {
      early.push_back(key);
    } else {
      due.push_back(key);
    }
  }
  // Due before it is durable: looked at again when it is.
  for (const DueWindow::Key& key : early) lane.due->PutBack(key);
  if (due.empty()) {
    if (early.empty()) ScheduleDue(queue, lane);
    return;
  }
  lane.joining = true;
  std::sort(due.begin(), due.end(), [](const auto& a, const auto& b) { return a.seq < b.seq; });
  std::vector<Seq> seqs;
  for (const DueWindow::Key& key : due) seqs.push_back(key.seq);
  ReadBodies(queue, kDelayedLane, std::move(seqs), kJoinBytesMax,
             [this, due = std::move(due)](Queue* queue, Bodies bodies, Now now) {
               if (!queue) return;
               LaneState& lane = *queue->lanes[kDelayedLane];
               lane.joining = false;
               for (size_t i = due.size() - bodies.unread; i < due.size(); ++i) {
                 lane.due->PutBack(due[i]);
               }
               for (auto& message : bodies.messages) JoinDue(*queue, std::move(message), now);
               ScheduleDue(*queue, lane);
             });
}

void Shard::JoinDue(Queue& queue, storage::StoredMessage message, Now now) {
  LaneState& from = *queue.lanes[kDelayedLane];
  if (IsExpired(message.info.expire_ms, now)) {
    if (!DieWithBody(queue, from, message, DeathReason::kExpired, "", now)) {
      // Its dead-letter queue is full. It joins, and is held there for the sweep, which has gone past
      // its time already.
      const int64_t expire_ms = message.info.expire_ms;
      const MessagePosition at = JoinLane(queue, from, std::move(message));
      expiry_.HoldBack(queue.qid, storage::ExpiryKey(at, expire_ms));
      boot_row_.expiry_cursor_ms = std::min(boot_row_.expiry_cursor_ms, expire_ms);
    }
    return;
  }
  JoinLane(queue, from, std::move(message));
}

MessagePosition Shard::JoinLane(Queue& queue, LaneState& from, storage::StoredMessage message) {
  const Seq seq = message.seq;
  MessageInfo info = message.info;
  info.priority = kPriorityDefault;
  if (!info.origin) info.origin = std::make_shared<const Origin>(Origin{from.At(seq), {}});
  const uint32_t bytes = message.payload.size();
  LaneState& to = LaneOf(queue, LaneOfPriority(message.info.priority));
  const Seq joined = AddMessage(queue, to, std::move(message.payload), std::move(info));
  Leave(queue, from, seq, bytes, 0);
  return to.At(joined);
}

}  // namespace sluice::broker
