// Looking at stored messages, and changing them: listing never changes anything.
#include <algorithm>
#include <memory>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "server/base/strings.h"
#include "server/broker/shard.h"
#include "server/storage/rows.h"

namespace sluice::broker {
namespace {

// Messages that one step of an edit reads and changes; bounds the batch it goes into.
constexpr size_t kEditStepMax = 512;
constexpr uint64_t kEditBytesMax = 2 * kMiB;
// A message that is not found may have been moved just then, and, rarely, once more since.
constexpr int kLooksForMessageMax = 3;

absl::Status MessageNotFound(const MessagePosition& id) {
  return MakeError(ErrorReason::kMessageNotFound,
                   absl::StrCat("the queue has no message with the id '",
                                FormatMessageId(id), "'"));
}

}  // namespace

// ---- listing

void Shard::Do(ListMessagesCommand& command, Now now) {
  const auto queue = GetQueue(command.queue);
  if (!queue.ok()) return command.done(queue.status());
  const ListCursor cursor = command.cursor;
  ListFrom((*queue)->qid, cursor, std::move(command), now);
}

void Shard::ListFrom(QueueId qid, ListCursor cursor, ListMessagesCommand command, Now now) {
  Queue* queue = FindQueue(qid);
  if (!queue) return command.done(QueueNotFound(command.queue));
  while (cursor.lane < kLanes) {
    const LaneState* lane = queue->lanes[cursor.lane].get();
    if (lane) cursor.seq = lane->settled.NextUnsettled(std::max(cursor.seq, lane->settled.head()));
    if (lane && cursor.seq < lane->visible_end) break;
    cursor = {static_cast<Lane>(cursor.lane + 1), 0};
  }
  if (cursor.lane >= kLanes) return command.done(ListMessagesCommand::Outcome());

  ReadRequest request;
  request.range.qid = qid;
  request.range.lane = cursor.lane;
  request.range.begin = cursor.seq;
  request.range.end = queue->lanes[cursor.lane]->visible_end;
  request.range.messages_max = static_cast<uint32_t>(std::max(1, command.scan_max));
  request.range.bytes_max = static_cast<uint64_t>(command.bytes_max);
  LaneState& lane = *queue->lanes[cursor.lane];
  std::vector<MessagePosition> resting;
  for (Seq seq = lane.resting.Next(cursor.seq);
       seq < lane.visible_end && resting.size() < request.range.messages_max;
       seq = lane.resting.Next(seq + 1)) {
    resting.push_back(lane.At(seq));
  }
  request.meta_keys = HistoryKeys(resting);
  ++lane.body_reads;
  StartRead(std::move(request), [this, qid, cursor, resting = std::move(resting),
                                 command = std::move(command)](ReadResult& result,
                                                               Now now) mutable -> absl::Status {
    Queue* queue = FindQueue(qid);
    if (!queue) {
      command.done(QueueNotFound(command.queue));
      return absl::OkStatus();
    }
    LaneState& lane = *queue->lanes[cursor.lane];
    const auto known = ParseAllResting(resting, result);
    if (!known.ok()) return known.status();
    ListCursor next{static_cast<Lane>(cursor.lane + 1), 0};
    if (!result.messages.empty()) next = {cursor.lane, result.messages.back().seq + 1};
    ListMessagesCommand::Outcome outcome;
    for (auto& message : result.messages) {
      if (lane.settled.Contains(message.seq)) continue;
      outcome.messages.push_back(
          DescribeMessage(*queue, cursor.lane, std::move(message), *known, now));
    }
    BodiesWereRead(*queue, lane);
    if (outcome.messages.empty()) {
      ListFrom(qid, next, std::move(command), now);
      return absl::OkStatus();
    }
    if (next.lane < kLanes) outcome.next = next;
    command.done(std::move(outcome));
    return absl::OkStatus();
  });
}

absl::StatusOr<Shard::RestingMessages> Shard::ParseAllResting(
    const std::vector<MessagePosition>& resting, const ReadResult& result) const {
  RestingMessages known;
  for (size_t i = 0; i < resting.size(); ++i) {
    const MessagePosition& at = resting[i];
    const Queue* queue = FindQueue(at.qid);
    if (!queue->lanes[at.lane]->resting.Contains(at.seq)) continue;
    auto message = ParseResting(at, result.meta_values[i]);
    if (!message.ok()) return message.status();
    known[at.seq] = *std::move(message);
  }
  return known;
}

ListedMessage Shard::DescribeMessage(Queue& queue, Lane lane_id, storage::StoredMessage message,
                                     const RestingMessages& resting, Now now) {
  const LaneState& lane = *queue.lanes[lane_id];
  ListedMessage listed;
  listed.position = lane.At(message.seq);
  listed.publish_ms = message.info.publish_ms;
  listed.group_hash = message.info.group_hash;
  if (message.info.origin && !message.info.origin->deaths.empty()) {
    listed.deaths = {message.info.origin, &message.info.origin->deaths};
  }
  listed.payload = std::move(message.payload);
  if (lane_id == kDelayedLane) {
    listed.state = MessageState::kDelayed;
    listed.waiting = WaitReason::kNotDue;
    listed.until_ms = message.info.due_ms;
    return listed;
  }
  const auto group_open =
      listed.group_hash != 0 && queue.groups ? queue.groups->OpenOf(listed.group_hash)
                                             : std::nullopt;
  const auto it = lane.open.find(message.seq);
  if (it == lane.open.end()) {
    const auto known = resting.find(message.seq);
    if (known != resting.end()) return DescribeOpen(queue, known->second, std::move(listed), now);
    if (!group_open) {
      listed.waiting = WhyReadyWaits(queue, now);
      return listed;
    }
    listed.state = MessageState::kBlocked;
    listed.waiting = WaitReason::kGroupBlocked;
    const LaneState& open_lane = *queue.lanes[group_open->first];
    const auto blocker = open_lane.open.find(group_open->second);
    // Otherwise it has left, which is not durable yet.
    if (blocker != open_lane.open.end()) {
      const auto& origin = blocker->second.origin;
      listed.blocked_by = origin ? origin->id : open_lane.At(group_open->second);
    }
    return listed;
  }
  return DescribeOpen(queue, it->second, std::move(listed), now);
}

ListedMessage Shard::DescribeOpen(Queue& queue, const OpenMessage& open, ListedMessage listed,
                                  Now now) {
  listed.attempt = open.attempt;
  listed.delivery_count = static_cast<int32_t>(open.delivery_count);
  switch (open.state) {
    case OpenState::kLeased:
      listed.state = MessageState::kLeased;
      listed.waiting = WaitReason::kLeased;
      listed.until_ms = now.engine_ms + (open.lease_until_ns - now.mono_ns) / 1'000'000;
      if (const Consumer* holder = FindConsumer(open.holder)) {
        listed.leased_by = absl::StrCat(holder->id);
      } else if (open.receiver) {
        listed.leased_by = *open.receiver;
      }
      break;
    case OpenState::kWaiting:
      listed.state = MessageState::kDelayed;
      listed.waiting = WaitReason::kRetryBackoff;
      listed.until_ms = open.not_before_ms;
      break;
    case OpenState::kDying:
      listed.state = MessageState::kBlocked;
      listed.waiting = WaitReason::kDeadLetterQueueFull;
      break;
    case OpenState::kReturning:
    case OpenState::kReturned: listed.waiting = WhyReadyWaits(queue, now); break;
  }
  return listed;
}

// ---- one message by its id

void Shard::Do(GetMessageCommand& command, Now now) { FindMessage(std::move(command), 1); }

void Shard::FindMessage(GetMessageCommand command, int looks) {
  const auto found = GetQueue(command.queue);
  if (!found.ok()) return command.done(found.status());
  Queue& queue = **found;
  // Where its id says, if it has not been moved.
  const MessagePosition& id = command.id;
  if (id.shard == options_.shard && id.qid == queue.qid && id.lane < kLanes) {
    const LaneState* lane = queue.lanes[id.lane].get();
    if (lane && id.seq > 0 && id.seq < lane->visible_end && !lane->settled.Contains(id.seq)) {
      return ReadListed(queue, id, std::move(command), looks);
    }
  }
  ReadRequest request;
  request.keys.push_back(storage::IdKey(options_.shard, queue.qid, id));
  StartRead(std::move(request), [this, qid = queue.qid, looks, command = std::move(command)](
                                    ReadResult& result, Now) mutable -> absl::Status {
    Queue* queue = FindQueue(qid);
    if (!queue || !result.values.front()) {
      LookAgain(std::move(command), looks);
      return absl::OkStatus();
    }
    const auto row = storage::ParseId(*result.values.front());
    if (!row.ok()) return row.status();
    const LaneState* lane = row->lane < kLanes ? queue->lanes[row->lane].get() : nullptr;
    if (!lane || lane->settled.Contains(row->seq)) {
      LookAgain(std::move(command), looks);
    } else {
      ReadListed(*queue, lane->At(row->seq), std::move(command), looks);
    }
    return absl::OkStatus();
  });
}

// It may be on its way to another place: where that is can be read once it is durable.
void Shard::LookAgain(GetMessageCommand command, int looks) {
  if (looks == kLooksForMessageMax) return command.done(MessageNotFound(command.id));
  ReplyWhenDurable([this, looks, command = std::move(command)](const absl::Status& status) mutable {
    if (!status.ok()) return command.done(status);
    FindMessage(std::move(command), looks + 1);
  });
}

void Shard::ReadListed(Queue& queue, const MessagePosition& at, GetMessageCommand command,
                       int looks) {
  ReadBodies(queue, at.lane, {at.seq}, /*bytes_max=*/1,
             [this, at, looks, command = std::move(command)](Queue* queue, Bodies bodies,
                                                             Now now) mutable {
               if (!queue || bodies.messages.empty()) return LookAgain(std::move(command), looks);
               command.done(
                   DescribeMessage(*queue, at.lane, std::move(bodies.messages.front()), {}, now));
             });
}

// ---- editing

void Shard::Do(EditMessagesCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  if (refused.ok()) refused = GetQueue(command.queue).status();
  if (refused.ok() && !command.to_queue.empty()) refused = GetQueue(command.to_queue).status();
  if (!refused.ok()) return command.done(refused);
  std::sort(command.positions.begin(), command.positions.end(),
            [](const MessagePosition& a, const MessagePosition& b) {
              return std::tie(a.lane, a.seq) < std::tie(b.lane, b.seq);
            });
  EditNext(std::move(command), 0, 0, now);
}

// One lane and one step at a time.
void Shard::EditNext(EditMessagesCommand command, size_t from, int64_t edited, Now now) {
  Queue* queue = FindQueue(command.queue);
  std::vector<Seq> seqs;
  Lane lane_id = 0;
  while (queue && from < command.positions.size() && seqs.size() < kEditStepMax) {
    const MessagePosition& at = command.positions[from];
    const LaneState* lane = at.lane < kLanes ? queue->lanes[at.lane].get() : nullptr;
    if (!seqs.empty() && at.lane != lane_id) break;
    ++from;
    if (!lane || at.qid != queue->qid || at.seq == 0 || at.seq >= lane->visible_end ||
        lane->settled.Contains(at.seq) || (!seqs.empty() && seqs.back() == at.seq)) {
      continue;
    }
    lane_id = at.lane;
    seqs.push_back(at.seq);
  }
  if (seqs.empty()) return AnswerWhenDurable(std::move(command.done), edited);
  ReadBodies(*queue, lane_id, std::move(seqs), kEditBytesMax,
             [this, lane_id, from, edited, command = std::move(command)](
                 Queue* queue, Bodies bodies, Now now) mutable {
               if (queue) {
                 for (auto& message : bodies.messages) {
                   LaneState& lane = *queue->lanes[lane_id];
                   // Dropping heads to make room may have removed it just now.
                   if (lane.settled.Contains(message.seq)) continue;
                   const auto open = lane.open.find(message.seq);
                   const bool never_out =
                       open == lane.open.end() || open->second.delivery_count == 0;
                   if (!EditOne(*queue, lane, std::move(message), command, now)) continue;
                   if (never_out) lane.gap_lsn = last_lsn_ + 1;
                   ++edited;
                 }
               }
               EditNext(std::move(command), from - bodies.unread, edited, now);
             });
}

bool Shard::EditOne(Queue& queue, LaneState& lane, storage::StoredMessage message,
                    const EditMessagesCommand& command, Now now) {
  const Seq seq = message.seq;
  const auto open = lane.open.find(seq);
  const bool is_open = open != lane.open.end();
  const bool leased = is_open && open->second.state == OpenState::kLeased;
  const bool is_delete = command.action == EditMessagesCommand::Action::kDelete;
  if (leased && !(is_delete && command.include_leased)) return false;
  switch (command.action) {
    case EditMessagesCommand::Action::kDelete:
      if (leased) {
        TellLeaseLost(open->second.holder,
                      {lane.At(seq), open->second.boot, open->second.delivery_count},
                      ErrorReason::kMessageRemoved);
      }
      RememberRemoved(queue, lane.position.lane, seq, now.mono_ns);
      Leave(queue, lane, seq, message.payload.size(), message.info.group_hash);
      ++queue.counters.purged;
      return true;
    case EditMessagesCommand::Action::kReschedule:
      return Reschedule(queue, lane, std::move(message),
                        command.delay_ms > 0 ? now.engine_ms + command.delay_ms
                                             : command.deliver_at_ms,
                        now);
    case EditMessagesCommand::Action::kMove:
      return MoveToQueue(queue, lane, std::move(message), command.to_queue, now);
  }
  return false;
}

// What has been granted before keeps its place and its attempts, and what may have been before a crash
// keeps its place as well, where it can: a receipt is good for no other. The rest moves.
bool Shard::Reschedule(Queue& queue, LaneState& lane, storage::StoredMessage message,
                       int64_t due_ms, Now now) {
  const Seq seq = message.seq;
  const auto open = lane.open.find(seq);
  if (open != lane.open.end()) {
    OpenMessage& waiting = open->second;
    if (waiting.state == OpenState::kDying) return false;
    ReturnMessage(queue, lane, seq, waiting, /*failed=*/false,
                  std::max<int64_t>(0, due_ms - now.engine_ms), now);
    return true;
  }
  const uint64_t group_hash = message.info.group_hash;
  const bool may_have_been_out = lane.position.lane != kDelayedLane && seq < lane.crash_bound;
  // In its place it would hold up its group, and keep its time to live.
  if (may_have_been_out && group_hash == 0 && message.info.expire_ms == 0) {
    if (due_ms > now.engine_ms) HoldUntil(queue, lane, message, due_ms);
    return true;
  }
  MessageInfo info = message.info;
  const Lane now_in = lane.position.lane;
  const int priority = now_in == kDelayedLane ? info.priority : PriorityOfLane(now_in);
  if (info.expire_ms != 0) {
    const int64_t ttl_ms = info.expire_ms - info.ReadySinceMs();
    info.expire_ms = std::max(due_ms, now.engine_ms) + ttl_ms;
  }
  const bool later = due_ms > now.engine_ms;
  info.due_ms = std::max(due_ms, now.engine_ms);
  info.priority = later ? priority : kPriorityDefault;
  if (!info.origin) info.origin = std::make_shared<const Origin>(Origin{lane.At(seq), {}});
  const uint32_t bytes = message.payload.size();
  AddMessage(queue, LaneOf(queue, later ? kDelayedLane : LaneOfPriority(priority)),
             std::move(message.payload), std::move(info));
  if (may_have_been_out) RememberRemoved(queue, now_in, seq, now.mono_ns);
  Leave(queue, lane, seq, bytes, group_hash);
  return true;
}

// It waits as a retry does, though it may never have been out. For messages of no group.
void Shard::HoldUntil(Queue& queue, LaneState& lane, const storage::StoredMessage& message,
                      int64_t due_ms) {
  const Seq seq = message.seq;
  OpenMessage& open = OpenFresh(queue, lane, message);
  lane.holes_bound = std::max(lane.holes_bound, seq + 1);
  open.state = OpenState::kWaiting;
  open.not_before_ms = due_ms;
  ++lane.waiting;
  const MessagePosition at = lane.At(seq);
  engine_timers_.Add({due_ms, TimerKind::kRetry, at.lane, at.qid, at.seq});
  if (MayRest(lane, open)) PrepareRest(queue, lane, seq, open);
  lane.WriteHistory(seq, open, 0, batch_);
}

// Without a name: to the queue in which it died last. False: it stays. What has died starts anew, but
// not before it is due; what has not only changes its place, and keeps its times. Of a group nothing
// overtakes what is out or waits for its retry, nor does that leave the others behind.
bool Shard::MoveToQueue(Queue& queue, LaneState& lane, storage::StoredMessage message,
                        const std::string& to_name, Now now) {
  const Seq seq = message.seq;
  const std::shared_ptr<const Origin>& origin = message.info.origin;
  const bool died = origin && !origin->deaths.empty();
  std::string name = to_name;
  if (name.empty() && died) name = origin->deaths.front().queue;
  Queue* to = FindQueue(name);
  if (!to || to == &queue) return false;
  if (!died && IsExpired(message.info.expire_ms, now)) return false;
  const auto open = lane.open.find(seq);
  const bool waits = open != lane.open.end() && open->second.state == OpenState::kWaiting;
  if (message.info.group_hash != 0) {
    const auto first = queue.groups ? queue.groups->OpenOf(message.info.group_hash) : std::nullopt;
    const bool is_other = first && *first != std::pair(lane.position.lane, seq) &&
                          !queue.lanes[first->first]->settled.Contains(first->second);
    if (waits || is_other) return false;
  }
  const PublishPlan::Demand demand{1, static_cast<int64_t>(message.payload.size())};
  if (!HasRoom(*to, demand) || RoomIsTaken(*to)) return false;
  MessageInfo info;
  info.publish_ms = message.info.publish_ms;
  info.group_hash = message.info.group_hash;
  info.origin = origin ? origin : std::make_shared<const Origin>(Origin{lane.At(seq), {}});
  const uint32_t bytes = message.payload.size();
  const Lane now_in = lane.position.lane;
  // Never before a time that somebody has set.
  int64_t due_ms = now_in == kDelayedLane ? message.info.due_ms : 0;
  if (waits) due_ms = open->second.not_before_ms;
  const int priority =
      now_in == kDelayedLane ? message.info.priority : PriorityOfLane(now_in);
  if (!died) {
    info.expire_ms = message.info.expire_ms;
    info.due_ms = message.info.due_ms;
    // It goes when it expires, as it would have here, not only when it is due.
    if (info.expire_ms != 0) due_ms = std::min(due_ms, info.expire_ms);
  }
  const bool later = due_ms > now.engine_ms;
  if (later) {
    info.due_ms = due_ms;
    info.priority = priority;
  }
  const Lane to_lane = later ? kDelayedLane : LaneOfPriority(priority);
  AddMessage(*to, LaneOf(*to, to_lane), std::move(message.payload), std::move(info));
  RememberRemoved(queue, now_in, seq, now.mono_ns);
  Leave(queue, lane, seq, bytes, message.info.group_hash);
  ++queue.counters.moved;
  return true;
}

}  // namespace sluice::broker
