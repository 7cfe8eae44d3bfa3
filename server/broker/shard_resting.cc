// Retries that wait for long and are many: their rows know all about them, memory only that they are
// there.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/broker/shard.h"
#include "server/storage/rows.h"

namespace sluice::broker {
namespace {

// Retries that are read when they are due: at once, and in all while nobody takes them.
constexpr size_t kRetriesReadMax = 1024;
constexpr size_t kReturnedRetriesMax = 4096;

}  // namespace

OpenMessage OpenMessageOf(const storage::HistoryRow& row) {
  OpenMessage message;
  message.has_history = true;
  message.attempt = row.attempt;
  message.boot = row.boot;
  message.delivery_count = row.delivery_count;
  message.size_bytes = row.size_bytes;
  message.not_before_ms = row.not_before_ms;
  message.group_hash = row.group_hash;
  message.expire_ms = row.expire_ms;
  message.maybe_redelivered = row.maybe_redelivered;
  message.death = row.death;
  message.cut_short = row.held;
  if (!row.detail.empty()) message.detail = std::make_unique<std::string>(row.detail);
  return message;
}

// After a clean stop the state of what that boot granted is exact. An older grant may have been
// followed by a crash.
bool Shard::MaybeRedelivered(const OpenMessage& message) const {
  if (message.boot == boot_row_.boot) return message.maybe_redelivered;
  return message.maybe_redelivered || !clean_stop_ || message.boot + 1 != boot_row_.boot;
}

// Groups are in memory as long as one of their messages is open, and so are their retries.
bool Shard::MayRest(const LaneState& lane, const OpenMessage& message) const {
  return message.group_hash == 0 &&
         lane.waiting - lane.resting.size() > options_.retries_in_memory_max;
}

// The batch that is being built has, or gets, its history row.
void Shard::PrepareRest(Queue& queue, LaneState& lane, Seq seq, OpenMessage& message) {
  const MessagePosition at = lane.At(seq);
  message.due_row_lsn = last_lsn_ + 1;
  batch_.Put(storage::Family::kIndex, storage::DueKey(at, message.not_before_ms),
             storage::EmptyIndexValue());
  lane.DueWindowOf().Add({message.not_before_ms, seq}, last_lsn_ + 1, durable_lsn_);
  effects_.resting.push_back({at.qid, at.lane, seq});
  ScheduleDue(queue, lane);
}

// Out of memory, if the store has its rows and nobody is about to ask for it.
void Shard::Rest(Queue& queue, LaneState& lane, Seq seq) {
  const auto it = lane.open.find(seq);
  if (it == lane.open.end()) return;
  const OpenMessage& message = it->second;
  if (message.state != OpenState::kWaiting || message.due_row_lsn == 0 ||
      message.due_row_lsn > durable_lsn_ || message.not_before_ms <= last_turn_ms_) {
    return;
  }
  if (lane.body_reads > 0) return lane.drowsy.push_back(seq);
  const MessagePosition at = lane.At(seq);
  engine_timers_.Cancel({message.not_before_ms, TimerKind::kRetry, at.lane, at.qid, at.seq});
  lane.open.erase(it);
  lane.resting.Insert(seq);
  ForgetOpen(queue, 1);
}

void Shard::BodiesWereRead(Queue& queue, LaneState& lane) {
  --lane.body_reads;
  if (lane.body_reads > 0) return;
  for (const Seq seq : std::exchange(lane.drowsy, {})) Rest(queue, lane, seq);
}

// The keys of their rows, in the order of `resting`.
std::vector<std::string> Shard::HistoryKeys(const std::vector<MessagePosition>& resting) {
  std::vector<std::string> keys;
  keys.reserve(resting.size());
  for (const MessagePosition& at : resting) keys.push_back(storage::HistoryKey(at));
  return keys;
}

absl::StatusOr<OpenMessage> Shard::ParseResting(const MessagePosition& at,
                                                const std::optional<std::string>& value) const {
  if (!value) {
    return MakeError(ErrorReason::kDataDamaged,
                     absl::StrCat("message ", FormatMessageId(at),
                                  " waits for a retry that the store does not know of"));
  }
  const auto row = storage::ParseHistory(*value);
  if (!row.ok()) return row.status();
  OpenMessage message = OpenMessageOf(*row);
  message.maybe_redelivered = MaybeRedelivered(message);
  message.state = OpenState::kWaiting;
  return message;
}

// Back into memory. `only_due`: those whose time has not come yet go on resting.
absl::Status Shard::WakeResting(Queue& queue, LaneState& lane, Seq seq,
                                const std::optional<std::string>& value, bool only_due, Now now) {
  // Not any more, as another read woke it, or a purge took it.
  if (!lane.resting.Contains(seq)) return absl::OkStatus();
  const MessagePosition at = lane.At(seq);
  absl::StatusOr<OpenMessage> message = ParseResting(at, value);
  if (!message.ok()) return message.status();
  const bool due = message->not_before_ms <= now.engine_ms;
  if (only_due && !due) return absl::OkStatus();
  lane.resting.Erase(seq);
  ++queue.open_messages;
  ++open_messages_;
  if (due) {
    --lane.waiting;
    message->not_before_ms = 0;
    message->state = OpenState::kReturned;
    lane.returned.insert(seq);
    Wake(queue);
  } else {
    message->due_row_lsn = durable_lsn_;
    engine_timers_.Add({message->not_before_ms, TimerKind::kRetry, at.lane, at.qid, at.seq});
  }
  lane.open[seq] = *std::move(message);
  return absl::OkStatus();
}

// Wakes these; `then` follows. Positions of one queue may be of several lanes.
void Shard::ReadResting(std::vector<MessagePosition> resting, bool only_due,
                        absl::AnyInvocable<void(Now)> then) {
  ReadRequest request;
  request.meta_keys = HistoryKeys(resting);
  for (const MessagePosition& at : resting) ++FindQueue(at.qid)->lanes[at.lane]->body_reads;
  StartRead(std::move(request), [this, only_due, resting = std::move(resting),
                                 then = std::move(then)](ReadResult& result, Now now) mutable {
    for (size_t i = 0; i < resting.size(); ++i) {
      const MessagePosition& at = resting[i];
      Queue* queue = FindQueue(at.qid);
      if (!queue) continue;
      const absl::Status status = WakeResting(*queue, *queue->lanes[at.lane], at.seq,
                                              result.meta_values[i], only_due, now);
      if (!status.ok()) return status;
    }
    then(now);
    for (const MessagePosition& at : resting) {
      if (Queue* queue = FindQueue(at.qid)) BodiesWereRead(*queue, *queue->lanes[at.lane]);
    }
    return absl::OkStatus();
  });
}

// Which of the receipts' messages rest.
void Shard::CollectResting(const Queue& queue, const std::vector<SettleItem>& items,
                           std::vector<MessagePosition>* resting) const {
  for (const SettleItem& item : items) {
    const MessagePosition& at = item.receipt.position;
    if (at.shard != options_.shard || at.qid != queue.qid || at.lane >= kImmediateLanes) continue;
    const LaneState* lane = queue.lanes[at.lane].get();
    if (lane && lane->resting.Contains(at.seq)) resting->push_back(at);
  }
}

void Shard::RestAgain(const std::vector<MessagePosition>& positions) {
  for (const MessagePosition& at : positions) {
    if (Queue* queue = FindQueue(at.qid)) Rest(*queue, *queue->lanes[at.lane], at.seq);
  }
}

// The first ones whose time has come, while those that have come back before are not too many.
void Shard::StartRetries(Queue& queue, LaneState& lane, Now now) {
  lane.due_timer_ms = 0;
  std::vector<MessagePosition> due;
  for (const DueWindow::Key& key : lane.due->PopDue(now.engine_ms, kRetriesReadMax)) {
    // What does not rest has a timer of its own, or has gone.
    if (lane.resting.Contains(key.seq)) due.push_back(lane.At(key.seq));
  }
  if (due.empty()) return ScheduleDue(queue, lane);
  lane.joining = true;
  ReadResting(std::move(due), /*only_due=*/true,
              [this, qid = queue.qid, id = lane.position.lane](Now) {
                Queue* queue = FindQueue(qid);
                if (!queue) return;
                queue->lanes[id]->joining = false;
                Wake(*queue);
                ScheduleDue(*queue, *queue->lanes[id]);
              });
}

bool Shard::RetriesMayReturn(const LaneState& lane) {
  return lane.position.lane == kDelayedLane || lane.returned.size() < kReturnedRetriesMax;
}

// Rows of what a purge took; those of messages that stay keep theirs.
void Shard::ForgetResting(LaneState& lane, const std::vector<Seq>& kept) {
  if (lane.resting.empty()) return;
  Seq from = 0;
  const auto remove_until = [&](Seq end) {
    if (lane.resting.Next(from) < end) {
      batch_.DeleteMetaRange(storage::HistoryKey(lane.At(from)), storage::HistoryKey(lane.At(end)));
    }
    from = end + 1;
  };
  for (const Seq seq : kept) remove_until(seq);
  remove_until(lane.next_seq);
  lane.waiting -= lane.resting.size();
  lane.resting.Clear();
}

}  // namespace sluice::broker
