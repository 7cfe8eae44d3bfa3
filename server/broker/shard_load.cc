// Rebuilding a shard from its store.
#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "server/broker/shard.h"
#include "server/storage/rows.h"

namespace sluice::broker {
namespace {

absl::Status Orphan(const char* what, QueueId qid) {
  return MakeError(ErrorReason::kDataDamaged,
                   absl::StrCat("the store has ", what, " of queue number ", qid,
                                ", which does not exist in it"));
}

absl::Status UnknownLane(QueueId qid) {
  return MakeError(ErrorReason::kDataDamaged,
                   absl::StrCat("the store has messages of queue number ", qid,
                                " in a lane that does not exist"));
}

}  // namespace

absl::Status Shard::Load(storage::Store& store) {
  if (absl::Status status = LoadRows(store); !status.ok()) return status;
  for (auto& [name, queue] : queues_) {
    for (auto& lane : queue->lanes) {
      if (lane) RestoreLane(*lane);
    }
    for (auto& lane : queue->lanes) {
      if (!lane) continue;
      const bool delayed = lane->position.lane == kDelayedLane && lane->Unsettled() > 0;
      if (delayed || !lane->resting.empty()) lane->DueWindowOf().StartUnread();
    }
  }
  last_lsn_ = durable_lsn_ = boot_row_.lsn;
  return absl::OkStatus();
}

absl::Status Shard::LoadRows(storage::Store& store) {
  // Rows come in key order: acks before the lanes and queues they belong to. They are few (one per
  // gap), so they wait here until their lane's head is known.
  std::vector<std::pair<storage::MetaKey, storage::AcksRow>> acks;
  std::vector<std::pair<storage::MetaKey, storage::LaneRow>> lanes;
  const auto load = [&](std::string_view key_bytes, std::string_view value) -> absl::Status {
    const auto key = storage::ParseMetaKey(key_bytes);
    if (!key.ok()) return key.status();
    if (key->shard != options_.shard) return absl::OkStatus();
    switch (key->type) {
      case storage::MetaType::kBoot: {
        auto row = storage::ParseBoot(value);
        if (!row.ok()) return row.status();
        boot_row_ = *std::move(row);
        return absl::OkStatus();
      }
      case storage::MetaType::kAcks: {
        const auto row = storage::ParseAcks(value);
        if (!row.ok()) return row.status();
        acks.push_back({*key, *row});
        return absl::OkStatus();
      }
      case storage::MetaType::kLane: {
        const auto row = storage::ParseLane(value);
        if (!row.ok()) return row.status();
        lanes.push_back({*key, *row});
        return absl::OkStatus();
      }
      case storage::MetaType::kQueue: {
        auto row = storage::ParseQueue(value);
        if (!row.ok()) return row.status();
        auto queue = std::make_unique<Queue>();
        queue->qid = key->qid;
        queue->row = *std::move(row);
        queues_.Add(std::move(queue));
        return absl::OkStatus();
      }
      case storage::MetaType::kHistory: {
        const auto row = storage::ParseHistory(value);
        if (!row.ok()) return row.status();
        Queue* queue = FindQueue(key->qid);
        if (!queue) return Orphan("message history", key->qid);
        if (key->lane >= kImmediateLanes) return UnknownLane(key->qid);
        LaneState& lane = LaneOf(*queue, key->lane);
        if (row->has_due_row) {
          lane.resting.Insert(key->number);
          ++lane.waiting;
          return absl::OkStatus();
        }
        OpenMessage message = OpenMessageOf(*row);
        // Held in ms until StartOpenMessages knows the time of this boot.
        message.lease_until_ns = row->lease_until_ms;
        lane.open[key->number] = std::move(message);
        return absl::OkStatus();
      }
      case storage::MetaType::kProducer: {
        const auto row = storage::ParseProducer(value);
        if (!row.ok()) return row.status();
        producers_.Load(key->hash, *row);
        return absl::OkStatus();
      }
      case storage::MetaType::kExchange: return LoadExchange(key->number, value);
      // After the queues and exchanges that it joins.
      case storage::MetaType::kBinding: return LoadBinding(key->number, value);
    }
    return absl::OkStatus();
  };
  if (absl::Status status = store.ScanMeta(load); !status.ok()) return status;

  for (const auto& [key, row] : lanes) {
    Queue* queue = FindQueue(key.qid);
    if (!queue) return Orphan("a lane", key.qid);
    if (key.lane >= kLanes) return UnknownLane(key.qid);
    LaneState& lane = LaneOf(*queue, key.lane);
    lane.settled.RestoreHead(row.head);
    lane.next_seq = row.next_seq;
    lane.unsettled_bytes = row.unsettled_bytes;
    lane.grant_bound = lane.durable_grant_bound = row.grant_bound;
  }
  for (const auto& [key, row] : acks) {
    Queue* queue = FindQueue(key.qid);
    if (!queue) return Orphan("settled messages", key.qid);
    if (key.lane >= kLanes) return UnknownLane(key.qid);
    LaneOf(*queue, key.lane).settled.RestoreRow(key.number, row);
  }
  return absl::OkStatus();
}

void Shard::RestoreLane(LaneState& lane) {
  lane.settled.FinishRestore();
  lane.visible_end = lane.next_seq;
  lane.fetch_cursor = lane.settled.head();
  lane.holes_bound = lane.settled.head();
  for (const auto& [seq, message] : lane.open) {
    lane.holes_bound = std::max(lane.holes_bound, seq + 1);
  }
  lane.loaded_end = lane.next_seq;
  // A clean stop has lowered the bound to what may still have been granted without a row.
  lane.crash_bound = std::min(lane.grant_bound, lane.next_seq);
}

void Shard::StartOpenMessages(Now now) {
  for (auto& [name, queue] : queues_) {
    for (auto& lane : queue->ImmediateLanes()) {
      if (!lane) continue;
      // Those that may have run out of attempts leave the map; its order must not decide.
      std::vector<Seq> seqs;
      for (const auto& [seq, message] : lane->open) seqs.push_back(seq);
      std::sort(seqs.begin(), seqs.end());
      for (const Seq seq : seqs) StartOpenMessage(*queue, *lane, seq, now);
    }
  }
}

void Shard::StartOpenMessage(Queue& queue, LaneState& lane, Seq seq, Now now) {
  OpenMessage& message = lane.open.at(seq);
  const MessagePosition at = lane.At(seq);
  // Times of a clock that has been set back would hold messages for as long again.
  const int64_t set_back_ms = std::max<int64_t>(0, boot_row_.engine_ms - now.engine_ms);
  int64_t lease_until_ms = message.lease_until_ns;
  if (lease_until_ms > 0) lease_until_ms -= set_back_ms;
  if (message.not_before_ms > 0) message.not_before_ms -= set_back_ms;
  message.lease_until_ns = 0;
  ++queue.open_messages;
  ++open_messages_;
  if (message.group_hash != 0) {
    if (!queue.groups) queue.groups = std::make_unique<GroupTable>();
    queue.groups->Open(message.group_hash, at.lane, seq);
  }
  if (message.death != DeathReason::kUnspecified) {
    message.state = OpenState::kDying;
    ++lane.dying;
    queue.dying.push_back({at.lane, seq});
    return WakeDying(queue);
  }
  if (lease_until_ms > now.engine_ms) {
    message.state = OpenState::kLeased;
    message.lease_saved = true;
    message.lease_until_ns = now.mono_ns + (lease_until_ms - now.engine_ms) * 1'000'000;
    ++lane.leased;
    mono_timers_.Add({message.lease_until_ns, TimerKind::kLease, at.lane, at.qid, at.seq});
    return;
  }
  message.maybe_redelivered = MaybeRedelivered(message);
  if (message.not_before_ms > now.engine_ms) {
    message.state = OpenState::kWaiting;
    ++lane.waiting;
    engine_timers_.Add({message.not_before_ms, TimerKind::kRetry, at.lane, at.qid, at.seq});
    return;
  }
  message.not_before_ms = 0;
  message.state = OpenState::kReturned;
  lane.returned.insert(seq);
  if (lease_until_ms == 0) {
    if (IsExpired(message.expire_ms, now)) {
      Die(queue, lane, seq, message, DeathReason::kExpired, now);
    }
    return;
  }
  // A lease that ran out while the server was down has expired: that is a failed attempt. Its row
  // need not be rewritten first: the outcome is the same after another crash.
  const int32_t max_attempts = queue.row.config.retry.max_attempts;
  const bool exhausted = max_attempts > 0 && message.attempt >= max_attempts;
  ++message.attempt;
  if (exhausted) return Die(queue, lane, seq, message, DeathReason::kAttempts, now);
  if (IsExpired(message.expire_ms, now)) {
    Die(queue, lane, seq, message, DeathReason::kExpired, now);
  }
}

// What each queue waits for, from the start on. Temporary queues have gone with their streams.
void Shard::StartQueues(Now now) {
  std::vector<QueueId> temporary;
  for (auto& [name, queue] : queues_) {
    if (queue->row.temporary) {
      temporary.push_back(queue->qid);
      continue;
    }
    queue->last_used_ms = now.engine_ms;
    queue->rate.Configure(queue->row.config.delivery_rate, now.mono_ns);
    ScheduleIdleExpiry(*queue, now);
    for (auto& lane : queue->lanes) {
      if (lane) ScheduleDue(*queue, *lane);
    }
    Wake(*queue);
  }
  for (const QueueId qid : temporary) {
    Queue& queue = *FindQueue(qid);
    RemoveQueue(queue, QueueDeleted(queue.row.config.name));
  }
  StartExpiry(now);
}

}  // namespace sluice::broker
