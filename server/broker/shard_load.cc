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

}  // namespace

absl::Status Shard::Load(storage::Store& store) {
  if (absl::Status status = LoadRows(store); !status.ok()) return status;
  for (auto& [name, queue] : queues_) {
    for (auto& lane : queue->lanes) {
      if (lane) RestoreLane(*lane);
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
        by_qid_[queue->qid] = queue.get();
        const std::string name = queue->row.config.name;
        queues_[name] = std::move(queue);
        return absl::OkStatus();
      }
      case storage::MetaType::kHistory: {
        const auto row = storage::ParseHistory(value);
        if (!row.ok()) return row.status();
        Queue* queue = FindQueue(key->qid);
        if (!queue) return Orphan("message history", key->qid);
        OpenMessage message;
        message.has_history = true;
        message.attempt = row->attempt;
        message.boot = row->boot;
        message.delivery_count = row->delivery_count;
        message.size_bytes = row->size_bytes;
        message.not_before_ms = row->not_before_ms;
        message.group_hash = row->group_hash;
        message.expire_ms = row->expire_ms;
        message.maybe_redelivered = row->maybe_redelivered;
        // Held in ms until StartOpenMessages knows the time of this boot.
        message.lease_until_ns = row->lease_until_ms;
        LaneOf(*queue, key->lane).open[key->number] = message;
        return absl::OkStatus();
      }
      // Not written yet.
      case storage::MetaType::kProducer:
      case storage::MetaType::kExchange:
      case storage::MetaType::kBinding: return absl::OkStatus();
    }
    return absl::OkStatus();
  };
  if (absl::Status status = store.ScanMeta(load); !status.ok()) return status;

  for (const auto& [key, row] : lanes) {
    Queue* queue = FindQueue(key.qid);
    if (!queue) return Orphan("a lane", key.qid);
    LaneState& lane = LaneOf(*queue, key.lane);
    lane.settled.RestoreHead(row.head);
    lane.next_seq = row.next_seq;
    lane.unsettled_bytes = row.unsettled_bytes;
    lane.grant_bound = lane.durable_grant_bound = row.grant_bound;
  }
  for (const auto& [key, row] : acks) {
    Queue* queue = FindQueue(key.qid);
    if (!queue) return Orphan("settled messages", key.qid);
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
  // A clean stop has lowered the bound to what may still have been granted without a row.
  lane.crash_bound = std::min(lane.grant_bound, lane.next_seq);
}

void Shard::StartOpenMessages(bool clean_stop, Now now) {
  for (auto& [name, queue] : queues_) {
    for (auto& lane : queue->lanes) {
      if (!lane) continue;
      for (auto& [seq, message] : lane->open) {
        const int64_t lease_until_ms = message.lease_until_ns;
        message.lease_until_ns = 0;
        ++queue->open_messages;
        ++open_messages_;
        const MessagePosition at = lane->At(seq);
        if (lease_until_ms > now.engine_ms) {
          message.state = OpenState::kLeased;
          message.lease_saved = true;
          message.lease_until_ns =
              now.mono_ns + (lease_until_ms - now.engine_ms) * 1'000'000;
          ++lane->leased;
          mono_timers_.Add(
              {message.lease_until_ns, TimerKind::kLease, at.lane, at.qid, at.seq});
          continue;
        }
        // A lease that ran out while the server was down has expired: that is a failed attempt.
        // Its row need not be rewritten first: the outcome is the same after another crash.
        if (lease_until_ms > 0) ++message.attempt;
        // After a clean stop the state of what that boot granted is exact. An older grant may have
        // been followed by a crash.
        message.maybe_redelivered = message.maybe_redelivered || !clean_stop ||
                                    message.boot + 1 != boot_row_.boot;
        if (message.not_before_ms > now.engine_ms) {
          message.state = OpenState::kWaiting;
          ++lane->waiting;
          engine_timers_.Add(
              {message.not_before_ms, TimerKind::kRetry, at.lane, at.qid, at.seq});
        } else {
          message.state = OpenState::kReturned;
          lane->returned.insert(seq);
        }
      }
    }
    Wake(*queue);
  }
}

}  // namespace sluice::broker
