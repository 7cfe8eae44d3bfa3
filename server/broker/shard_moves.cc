// How a message comes into a lane, and how it leaves.
#include <algorithm>

#include "server/base/check.h"
#include "server/broker/shard.h"
#include "server/storage/rows.h"

namespace sluice::broker {

using storage::Family;

void Shard::StoreIndexRows(const MessagePosition& at, const MessageInfo& info) {
  const std::string_view empty = storage::EmptyIndexValue();
  if (at.lane == kDelayedLane) {
    batch_.Put(Family::kIndex, storage::DueKey(at, info.due_ms), empty);
  } else {
    if (info.group_hash != 0) {
      batch_.Put(Family::kIndex, storage::GroupKey(at, info.group_hash), empty);
    }
    if (info.expire_ms != 0) {
      batch_.Put(Family::kIndex, storage::ExpiryKey(at, info.expire_ms), empty);
      expiry_.Expect(info.expire_ms);
      expiry_.last_lsn = last_lsn_ + 1;
    }
  }
  if (info.origin) {
    batch_.Put(Family::kIndex, storage::IdKey(at.shard, at.qid, info.origin->id),
               storage::EncodeId({at.lane, at.seq}));
  }
}

Seq Shard::AddMessage(Queue& queue, LaneState& lane, Payload payload, MessageInfo info) {
  const Seq seq = lane.next_seq;
  const MessagePosition at = lane.At(seq);
  const auto key = storage::MessageKey(at);
  batch_.Put(Family::kMessages, {key.data(), key.size()},
             {storage::EncodeMessageHeader(info, &header_scratch_), payload.view()});
  if (info.group_hash != 0 || info.expire_ms != 0 || info.due_ms != 0 || info.origin) {
    StoreIndexRows(at, info);
  }
  const uint64_t bytes = payload.size();
  lane.unsettled_bytes += bytes;
  if (at.lane == kDelayedLane) {
    lane.next_seq = seq + 1;
    lane.DueWindowOf().Add({info.due_ms, seq}, last_lsn_ + 1, durable_lsn_);
    ScheduleDue(queue, lane);
  } else {
    lane.Append(std::move(info), std::move(payload), queue.IsConsumed(),
                options_.window_bytes_max, &window_bytes_);
  }
  if (!lane.dirty) MarkDirty(queue, lane);
  return seq;
}

// Which of the waiting messages of its group it was decides what of the group goes on.
void Shard::Leave(Queue& queue, LaneState& lane, Seq seq, uint32_t size_bytes,
                  uint64_t group_hash) {
  const Lane lane_id = lane.position.lane;
  const auto open = lane.open.find(seq);
  const bool was_open = open != lane.open.end();
  if (was_open) {
    Unhook(queue, lane, seq, open->second);
    size_bytes = open->second.size_bytes;
    group_hash = open->second.group_hash;
  }
  if (queue.groups && lane_id != kDelayedLane) {
    uint64_t bytes = 0;
    if (was_open && group_hash != 0) {
      effects_.freed_groups.push_back({queue.qid, group_hash});
    } else if (queue.groups->Remove(lane_id, seq, &bytes)) {
      window_bytes_ -= bytes;
    } else if (group_hash != 0 && seq < lane.ScanPosition()) {
      queue.groups->RemoveSkipped(group_hash, lane_id);
    }
    // Also when nothing is open: else nobody would look for what was passed over.
    RefillGroups(queue);
  }
  lane.Settle(seq, size_bytes, batch_);
  if (was_open) ForgetOpen(queue, 1);
  // It may have been too large for those who have credit, with others behind it that are not.
  if (!was_open && lane_id != kDelayedLane) Wake(queue);
  MarkDirty(queue, lane);
  RoomMade(queue);
}

}  // namespace sluice::broker
