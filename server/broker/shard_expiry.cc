// Messages whose time is over: they leave whether or not anybody consumes.
#include <algorithm>
#include <map>

#include "server/broker/shard.h"
#include "server/storage/rows.h"

namespace sluice::broker {
namespace {

// One step of the sweep; bounds the batch that it goes into.
constexpr uint32_t kSweepRowsMax = 1024;
constexpr uint64_t kSweepBytesMax = 2 * kMiB;
// Expired messages that had to stay, since their dead-letter queue is full, are looked at again: when
// room is made there, and now and then.
constexpr int64_t kSweepAgainMs = 5 * kSecondMs;
// Expiries are dealt with in batches: nobody is given an expired message meanwhile.
constexpr int64_t kSweepPeriodMs = 100;

}  // namespace

// Rows of the index up to this time are all in the store: what a batch stores expires after the time
// of its turn.
int64_t Shard::ExpiryHorizonMs(Now now) const {
  return turn_times_.empty() ? now.engine_ms : turn_times_.front().second;
}

// What was leased when its time came was left to the end of its lease. A crash has ended such leases
// unseen, so that all of the index is looked at again.
void Shard::StartExpiry(Now now) {
  if (!clean_stop_) boot_row_.expiry_cursor_ms = 0;
  expiry_.cursor_ms = boot_row_.expiry_cursor_ms;
  expiry_.from = storage::ExpiryKey({options_.shard, 0, 0, 0}, expiry_.cursor_ms);
  expiry_.next_ms = now.engine_ms;
  expiry_.exhausted = true;  // so that it begins anew
}

void Shard::RunExpiry(Now now) {
  const int64_t until_ms = ExpiryHorizonMs(now);
  if (expiry_.busy || until_ms < expiry_.DueMs()) return;
  if (expiry_.exhausted) {
    expiry_.began_ms = now.engine_ms;
    expiry_.room_made = false;
  }
  expiry_.busy = true;
  expiry_.next_ms = ExpirySweep::kNever;
  ReadRequest request;
  request.index_begin = expiry_.from;
  request.index_end = storage::ExpiryKey({options_.shard, 0, 0, 0}, until_ms + 1);
  request.rows_max = kSweepRowsMax;
  StartRead(std::move(request), [this, until_ms](ReadResult& result, Now now) {
    return OnExpiryRows(result, until_ms, now);
  });
}

absl::Status Shard::OnExpiryRows(ReadResult& result, int64_t until_ms, Now now) {
  std::map<std::pair<QueueId, Lane>, std::vector<Seq>> expired;
  for (const storage::IndexRow& row : result.rows) {
    const auto key = storage::ParseIndexKey(row.key);
    if (!key.ok()) return key.status();
    const MessagePosition& at = key->position;
    Queue* queue = FindQueue(at.qid);
    LaneState* lane =
        queue && at.lane < kImmediateLanes ? queue->lanes[at.lane].get() : nullptr;
    if (lane && MayExpireNow(*lane, at.seq)) expired[{at.qid, at.lane}].push_back(at.seq);
  }
  for (auto& [at, seqs] : expired) {
    std::sort(seqs.begin(), seqs.end());
    expiry_.work.push_back({at.first, at.second, std::move(seqs)});
  }
  expiry_.exhausted = result.rows.size() < kSweepRowsMax;
  if (expiry_.exhausted) {
    expiry_.from = storage::ExpiryKey({options_.shard, 0, 0, 0}, until_ms + 1);
    expiry_.cursor_ms = until_ms + 1;
  } else {
    // The first key behind the last one.
    expiry_.from = result.rows.back().key + '\0';
    expiry_.cursor_ms = storage::ParseIndexKey(result.rows.back().key)->time_ms;
  }
  ExpireNextWork(now);
  return absl::OkStatus();
}

// What is leased stays with its consumer, and is dealt with when the lease ends.
bool Shard::MayExpireNow(const LaneState& lane, Seq seq) const {
  if (lane.settled.Contains(seq)) return false;
  const auto open = lane.open.find(seq);
  return open == lane.open.end() || (open->second.state != OpenState::kLeased &&
                                     open->second.state != OpenState::kDying);
}

void Shard::ExpireNextWork(Now now) {
  while (!expiry_.work.empty()) {
    ExpirySweep::Work work = std::move(expiry_.work.front());
    expiry_.work.pop_front();
    Queue* queue = FindQueue(work.qid);
    if (!queue) continue;
    ReadBodies(*queue, work.lane, work.seqs, kSweepBytesMax,
               [this, work](Queue* queue, Bodies bodies, Now now) mutable {
                 if (queue) {
                   for (auto& message : bodies.messages) {
                     ExpireFound(*queue, *queue->lanes[work.lane], std::move(message), now);
                   }
                   work.seqs.erase(work.seqs.begin(), work.seqs.end() - bodies.unread);
                   if (!work.seqs.empty()) expiry_.work.push_front(std::move(work));
                 }
                 ExpireNextWork(now);
               });
    return;
  }
  FinishSweep(now);
}

void Shard::ExpireFound(Queue& queue, LaneState& lane, storage::StoredMessage message, Now now) {
  if (!MayExpireNow(lane, message.seq)) return;
  const std::string row = storage::ExpiryKey(lane.At(message.seq), message.info.expire_ms);
  if (DieWithBody(queue, lane, std::move(message), DeathReason::kExpired, "", now)) return;
  // Its dead-letter queue is full.
  expiry_.HoldBack(queue.qid, row);
}

void Shard::FinishSweep(Now now) {
  expiry_.busy = false;
  // A long one is followed by a long pause, however often room is made.
  expiry_.not_before_ms =
      now.engine_ms + std::max(kSweepPeriodMs, now.engine_ms - expiry_.began_ms);
  // Stored only now: the batch that says so also has what became of the messages.
  if (expiry_.held_back.empty()) boot_row_.expiry_cursor_ms = expiry_.cursor_ms;
  if (!expiry_.exhausted) {
    expiry_.not_before_ms = now.engine_ms;
    return expiry_.Expect(now.engine_ms);
  }
  expiry_.NoteHeld();
  expiry_.holding = !expiry_.held_back.empty();
  if (expiry_.holding) {
    // What joined after its expiry may be further on than the sweep.
    expiry_.from = std::min(expiry_.from, std::exchange(expiry_.held_back, {}));
    expiry_.cursor_ms = boot_row_.expiry_cursor_ms = storage::ParseIndexKey(expiry_.from)->time_ms;
    return expiry_.Expect(now.engine_ms + (expiry_.room_made ? 0 : kSweepAgainMs));
  }
  LookForNextExpiry();
}

void Shard::LookForNextExpiry() {
  expiry_.busy = true;
  ReadRequest request;
  request.index_begin = expiry_.from;
  request.index_end = storage::ExpiryKey({options_.shard, 0, 0, 0}, ExpirySweep::kNever);
  request.rows_max = 1;
  // What the sweep has taken the expected time of, and the store does not show yet.
  const bool more_to_come = expiry_.last_lsn > durable_lsn_;
  StartRead(std::move(request), [this, more_to_come](ReadResult& result, Now now) {
    expiry_.busy = false;
    if (more_to_come) expiry_.Expect(now.engine_ms + kSweepPeriodMs);
    if (result.rows.empty()) return absl::OkStatus();
    const auto key = storage::ParseIndexKey(result.rows.front().key);
    if (!key.ok()) return key.status();
    expiry_.Expect(key->time_ms);
    return absl::OkStatus();
  });
}

}  // namespace sluice::broker
