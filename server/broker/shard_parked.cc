// Publishes that wait: for rows of the store, or for room in a queue.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/broker/shard.h"
#include "server/storage/rows.h"

namespace sluice::broker {
namespace {

constexpr int64_t kNsPerMs = 1'000'000;
// Publishes that wait, of all queues. Beyond them a publish that would have to wait is refused.
constexpr size_t kParkedPublishesMax = 10'000;
constexpr int64_t kParkedBytesMax = 64 * kMiB;
// When to come back.
constexpr int64_t kFullRetryMs = 1000;

absl::Status MemoryFull() {
  return WithRetryAfter(
      MakeError(ErrorReason::kMemoryFull, "too many publishes are waiting on this server"),
      kFullRetryMs);
}

absl::Status BehindOthers() {
  return WithRetryAfter(
      MakeError(ErrorReason::kQueueFull, "earlier publishes are waiting for room"), kFullRetryMs);
}

absl::Status WaitedTooLong() {
  return WithRetryAfter(
      MakeError(ErrorReason::kQueueFull,
                "the queue has been full for all of wait_when_full; publish again later"),
      kFullRetryMs);
}

}  // namespace

void Shard::PublishOrPark(ParkedPublish attempt, Now now) {
  const auto before = parked_lines_.find(attempt.line);
  const bool behind_others = before != parked_lines_.end();
  const auto* publish = std::get_if<PublishCommand>(&attempt.command);
  const int64_t wait_ms = publish ? publish->publish.wait_when_full_ms : 0;
  if (behind_others && wait_ms == 0 && FirstWaitsForRoom(before->second)) {
    return RefusePublish(attempt, BehindOthers());
  }
  if (!behind_others && TryPublish(attempt, now)) return;
  if (parked_.size() >= kParkedPublishesMax || parked_bytes_ + attempt.bytes > kParkedBytesMax) {
    return RefusePublish(attempt, MemoryFull());
  }
  attempt.id = next_parked_id_++;
  parked_bytes_ += attempt.bytes;
  ParkedLine& line = parked_lines_[attempt.line];
  line.ids.insert(attempt.id);
  if (publish && publish->caller != 0) parked_of_callers_.insert({publish->caller, attempt.id});
  if (wait_ms > 0) {
    attempt.give_up_ns = now.mono_ns + wait_ms * kNsPerMs;
    mono_timers_.Add({attempt.give_up_ns, TimerKind::kPublishWait, 0, 0, attempt.id});
  } else {
    ++line.impatient;
  }
  const std::string name = attempt.line;
  parked_[attempt.id] = std::make_unique<ParkedPublish>(std::move(attempt));
  // Now that it has a place, what it waits for can be asked for.
  if (!behind_others) RetryLine(name, now);
}

// One that has just come would be parked as the next.
uint64_t Shard::ArrivalOf(const ParkedPublish& attempt) const {
  return attempt.id != 0 ? attempt.id : next_parked_id_;
}

void Shard::RefusePublish(ParkedPublish& attempt, const absl::Status& status) {
  if (auto* publish = std::get_if<PublishCommand>(&attempt.command)) {
    producers_.Break(publish->producer_stream, ArrivalOf(attempt));
    publish->done(status);
  } else {
    std::get<TransactCommand>(attempt.command).done(status);
  }
}

// True: it has been answered, or will be when the turn is durable. False: it has to wait; if it is
// parked, what it waits for is under way.
bool Shard::TryPublish(ParkedPublish& attempt, Now now) {
  if (attempt.reading) return false;
  attempt.waits_for_room = false;
  auto* publish = std::get_if<PublishCommand>(&attempt.command);
  auto* transact = std::get_if<TransactCommand>(&attempt.command);
  if (publish && publish->producer_stream != 0) {
    auto known = producers_.Check(publish->producer_stream, publish->first_sequence,
                                  ArrivalOf(attempt));
    if (!known.ok()) return RefusePublish(attempt, known.status()), true;
    auto& messages = publish->publish.messages;
    const auto count = std::min<int64_t>(*known, static_cast<int64_t>(messages.size()));
    messages.erase(messages.begin(), messages.begin() + count);
    publish->first_sequence += count;
    attempt.known_duplicates += count;
  }
  PublishPlan plan;
  absl::Status status;
  if (publish) status = PlanPublish(publish->publish, &attempt, now, &plan);
  if (transact) status = PlanTransact(*transact, &attempt, now, &plan);
  bool reading = false;
  if (status.ok() && !plan.unknown.empty()) {
    if (attempt.id != 0) LookUp(attempt, plan.unknown);
    return false;
  }
  if (status.ok()) {
    making_room_for_ = &plan;
    status = MakeRoom(attempt, &plan, &reading, now);
    making_room_for_ = nullptr;
  }
  if (reading) {
    if (attempt.id != 0) AwaitRoom(attempt, plan);
    return false;
  }
  if (!status.ok() && plan.full && publish && MayWaitForRoom(attempt, status, now)) {
    attempt.waits_for_room = true;
    if (attempt.id != 0) AwaitRoom(attempt, plan);
    return false;
  }
  if (!status.ok()) return RefusePublish(attempt, status), true;
  std::vector<PublishedMessage> published = ApplyPlan(plan, now);
  if (transact) {
    ApplyTransact(*transact, std::move(published), now);
    return true;
  }
  if (publish->producer_stream != 0) {
    StoreProducer(publish->producer_stream,
                  publish->first_sequence + static_cast<int64_t>(published.size()) - 1, now);
    PublishedMessage duplicate;
    duplicate.duplicate = true;
    if (Queue* queue = FindQueue(publish->publish.queue)) {
      queue->counters.duplicates += static_cast<uint64_t>(attempt.known_duplicates);
    }
    published.insert(published.begin(), attempt.known_duplicates, duplicate);
  }
  AnswerWhenDurable(std::move(publish->done), std::move(published));
  return true;
}

// Where it found no room before it goes on waiting as well, if it still goes there.
void Shard::AwaitRoom(ParkedPublish& attempt, const PublishPlan& plan) {
  const auto gone = [&](QueueId qid) { return !plan.demand.contains(qid); };
  const auto kept = std::stable_partition(attempt.awaits.begin(), attempt.awaits.end(),
                                          [&](QueueId qid) { return !gone(qid); });
  for (auto qid = kept; qid != attempt.awaits.end(); ++qid) LeaveRoomLine(attempt, *qid);
  attempt.awaits.erase(kept, attempt.awaits.end());
  if (plan.full->waiting_for_room.insert(attempt.id).second) {
    attempt.awaits.push_back(plan.full->qid);
  }
  if (attempt.give_up_ns == 0) plan.full->impatient.insert(attempt.id);
  attempt.stopped_at = plan.full->qid;
}

// Those behind it may find room.
void Shard::LeaveRoomLine(const ParkedPublish& attempt, QueueId qid) {
  Queue* queue = FindQueue(qid);
  const bool was_first = *queue->waiting_for_room.begin() == attempt.id;
  queue->waiting_for_room.erase(attempt.id);
  queue->impatient.erase(attempt.id);
  if (was_first) RoomMade(*queue);
}

void Shard::StopAwaitingRoom(ParkedPublish& attempt) {
  for (const QueueId qid : attempt.awaits) LeaveRoomLine(attempt, qid);
  attempt.awaits.clear();
}

bool Shard::MayWaitForRoom(const ParkedPublish& attempt, const absl::Status& full, Now now) const {
  const Publish& publish = std::get<PublishCommand>(attempt.command).publish;
  // A refusal without a time to come back is for ever.
  return publish.wait_when_full_ms > 0 && RetryAfterMsOf(full) &&
         (attempt.id == 0 || attempt.give_up_ns > now.mono_ns);
}

bool Shard::FirstWaitsForRoom(const ParkedLine& line) const {
  return parked_.at(*line.ids.begin())->waits_for_room;
}

// Those behind one that waits for room wait as well, but only if they asked for it.
void Shard::RefuseImpatient(const std::string& name) {
  const auto line = parked_lines_.find(name);
  if (line == parked_lines_.end() || line->second.impatient == 0 ||
      !FirstWaitsForRoom(line->second)) {
    return;
  }
  std::vector<uint64_t> impatient;
  for (const uint64_t id : line->second.ids) {
    if (parked_.at(id)->give_up_ns == 0) impatient.push_back(id);
  }
  for (const uint64_t id : impatient) {
    ParkedPublish& attempt = *parked_.at(id);
    RefusePublish(attempt, BehindOthers());
    Unpark(attempt);
  }
}

// Asks the store for deduplication ids.
void Shard::LookUp(ParkedPublish& attempt, const std::vector<RecentIds::Key>& keys) {
  // It is not waited for meanwhile.
  StopAwaitingRoom(attempt);
  attempt.reading = true;
  if (attempt.looked_up_from == 0) attempt.looked_up_from = durable_lsn_;
  lookups_from_.insert({attempt.looked_up_from, attempt.id});
  ReadRequest request;
  for (const RecentIds::Key& key : keys) {
    request.keys.push_back(storage::DedupKey(options_.shard, key.first, key.second));
  }
  StartRead(std::move(request), [this, keys, id = attempt.id](ReadResult& result, Now now) {
    const auto it = parked_.find(id);
    if (it == parked_.end()) return absl::OkStatus();
    ParkedPublish& parked = *it->second;
    parked.reading = false;
    for (size_t i = 0; i < keys.size(); ++i) {
      auto& row = parked.looked_up[keys[i]];
      if (!result.values[i]) continue;
      const auto parsed = storage::ParseDedup(*result.values[i]);
      if (!parsed.ok()) return parsed.status();
      row = *parsed;
    }
    // A copy: the publish goes while its line is being worked off.
    RetryLine(std::string(parked.line), now);
    return absl::OkStatus();
  });
}

void Shard::RetryLine(const std::string& name, Now now) {
  while (true) {
    const auto line = parked_lines_.find(name);
    if (line == parked_lines_.end()) return;
    ParkedPublish& attempt = *parked_.at(*line->second.ids.begin());
    if (!TryPublish(attempt, now)) return RefuseImpatient(name);
    Unpark(attempt);
  }
}

void Shard::Unpark(ParkedPublish& attempt) {
  if (attempt.give_up_ns != 0) {
    mono_timers_.Cancel({attempt.give_up_ns, TimerKind::kPublishWait, 0, 0, attempt.id});
  }
  if (attempt.looked_up_from != 0) {
    lookups_from_.erase({attempt.looked_up_from, attempt.id});
  }
  if (const auto* publish = std::get_if<PublishCommand>(&attempt.command)) {
    parked_of_callers_.erase({publish->caller, attempt.id});
  }
  parked_bytes_ -= attempt.bytes;
  StopAwaitingRoom(attempt);
  const auto line = parked_lines_.find(attempt.line);
  line->second.ids.erase(attempt.id);
  if (attempt.give_up_ns == 0) --line->second.impatient;
  if (line->second.ids.empty()) parked_lines_.erase(line);
  parked_.erase(attempt.id);
}

void Shard::Do(AbandonPublishesCommand& command, Now now) {
  std::vector<uint64_t> ids;
  for (auto it = parked_of_callers_.lower_bound({command.caller, 0});
       it != parked_of_callers_.end() && it->first == command.caller; ++it) {
    ids.push_back(it->second);
  }
  EndParked(ids, absl::CancelledError("the caller has gone"), now);
}

void Shard::EndParked(const std::vector<uint64_t>& ids, const absl::Status& status, Now now) {
  for (const uint64_t id : ids) {
    const auto it = parked_.find(id);
    if (it == parked_.end()) continue;  // stored or refused when one before it made way
    const std::string line = it->second->line;
    RefusePublish(*it->second, status);
    Unpark(*it->second);
    RetryLine(line, now);
  }
}

// Its time to wait for room is over, whether or not it was its turn.
void Shard::GiveUpParked(uint64_t id, Now now) {
  const auto it = parked_.find(id);
  if (it == parked_.end()) return;
  ParkedLine& line = parked_lines_.at(it->second->line);
  it->second->give_up_ns = 0;
  ++line.impatient;
  if (*line.ids.begin() == id) return RetryLine(std::string(it->second->line), now);
  RefusePublish(*it->second, WaitedTooLong());
  Unpark(*it->second);
}

void Shard::RefuseParked(const absl::Status& status) {
  while (!parked_.empty()) {
    ParkedPublish& attempt = *parked_.begin()->second;
    RefusePublish(attempt, status);
    Unpark(attempt);
  }
}

// Room was made, or a read has ended: those who wait for the queue look again. The first that still
// finds no room ends that, as thousands may be behind it.
void Shard::RetryThoseWaiting(Queue& queue, Now now) {
  while (!queue.waiting_for_room.empty()) {
    const uint64_t first = *queue.waiting_for_room.begin();
    RetryLine(std::string(parked_.at(first)->line), now);
    if (!queue.waiting_for_room.empty() && *queue.waiting_for_room.begin() == first) break;
  }
  // Those behind it that did not ask to wait are told, now that what they waited for is read.
  const std::vector<uint64_t> impatient(queue.impatient.begin(), queue.impatient.end());
  for (const uint64_t id : impatient) {
    if (!queue.impatient.contains(id)) continue;
    if (id != *queue.waiting_for_room.begin()) {
      RetryLine(std::string(parked_.at(id)->line), now);
    }
    // It has asked for another read, as those behind it would.
    if (queue.impatient.contains(id) && parked_.at(id)->stopped_at == queue.qid) return;
  }
}

void Shard::ForgetRecentIds() {
  Lsn lsn = durable_lsn_;
  if (!lookups_from_.empty()) lsn = std::min(lsn, lookups_from_.begin()->first);
  recent_ids_.Forget(lsn);
}

}  // namespace sluice::broker
