// What is kept in memory ahead of consumers, and how it comes there.
#include <algorithm>

#include "server/broker/shard.h"
#include "server/storage/rows.h"

namespace sluice::broker {
namespace {

// Queues looked at per turn when windows are over their limit.
constexpr size_t kEvictionsPerTurnMax = 256;
// Messages of blocked groups that are fetched in one go: those that come next.
constexpr size_t kParkedFetchMax = 256;
constexpr uint64_t kParkedFetchBytesMax = 1 * kMiB;

}  // namespace

bool Shard::PageIn(Queue& queue, LaneState& lane) {
  if (lane.reading) return true;
  const bool small = MemoryIsShort();
  ReadRequest request;
  storage::ReadRange& range = request.range;
  range.qid = queue.qid;
  range.lane = lane.position.lane;
  range.begin = lane.NextToPageIn(lane.fetch_cursor);
  range.end = lane.visible_end;
  range.messages_max = small ? kSmallPageMessagesMax : kPageMessagesMax;
  range.bytes_max = small ? kSmallPageBytesMax : kPageBytesMax;
  if (queue.groups) range.skip_groups = queue.groups->SkippedGroups(lane.position.lane);
  if (range.begin >= range.end) {
    lane.fetch_cursor = range.end;
    return false;
  }
  lane.reading = true;
  StartRead(std::move(request), [this, range](ReadResult& result, Now) {
    Queue* queue = FindQueue(range.qid);
    if (!queue) return absl::OkStatus();
    LaneState& lane = *queue->lanes[range.lane];
    lane.reading = false;
    Wake(*queue);
    return lane.AddPage(range, std::move(result.messages), &window_bytes_);
  });
  return true;
}

// Reads the payloads of returned messages, the first ones first. Looks at no more of them than one
// read may bring: there may be very many.
void Shard::FetchReturned(Queue& queue, LaneState& lane) {
  if (lane.reading) return;
  const bool small = MemoryIsShort();
  const uint64_t bytes_max = small ? kSmallPageBytesMax : kPageBytesMax;
  const size_t messages_max = small ? kSmallPageMessagesMax : kPageMessagesMax;
  std::vector<Seq> seqs;
  uint64_t bytes = 0;
  size_t looked_at = 0;
  auto next = lane.returned.begin();
  for (; next != lane.returned.end() && bytes < bytes_max && looked_at < messages_max; ++next) {
    const OpenMessage& message = lane.open.at(*next);
    ++looked_at;
    if (!message.payload) seqs.push_back(*next);
    bytes += message.size_bytes;
  }
  // Those further back give up their payloads when they have more than one read would bring: what
  // comes before them is to take their place.
  while (lane.fetched_bytes >= bytes_max && next != lane.returned.end() &&
         *lane.fetched.rbegin() >= *next) {
    const Seq last = *lane.fetched.rbegin();
    lane.TakeFetched(last, lane.open.at(last), &window_bytes_);
  }
  lane.reading = true;
  // At least one message, and all of those chosen.
  ReadBodies(queue, lane.position.lane, std::move(seqs), bytes_max,
             [this, lane_id = lane.position.lane](Queue* queue, Bodies bodies, Now) {
               if (!queue) return;
               LaneState& lane = *queue->lanes[lane_id];
               lane.reading = false;
               Wake(*queue);
               for (auto& message : bodies.messages) {
                 OnReturnedRead(*queue, lane, std::move(message));
               }
             });
}

void Shard::OnReturnedRead(Queue& queue, LaneState& lane, storage::StoredMessage message) {
  const auto it = lane.open.find(message.seq);
  if (it == lane.open.end() || it->second.state != OpenState::kReturned) return;
  OpenMessage& open = it->second;
  open.ready_since_ms = message.info.ReadySinceMs();
  open.expire_ms = message.info.expire_ms;
  open.origin = message.info.origin;
  open.size_bytes = message.payload.size();
  lane.KeepFetched(it->first, open, std::move(message.payload), &window_bytes_);
}

// Reads the payloads of messages whose group has come free.
void Shard::FetchParked(Queue& queue, LaneState& lane) {
  if (lane.parked_reads > 0) return;
  const size_t max = MemoryIsShort() ? kSmallPageMessagesMax : kParkedFetchMax;
  std::vector<Seq> seqs = queue.groups->CandidatesToFetch(lane.position.lane, max);
  if (seqs.empty()) return;
  ++lane.parked_reads;
  ReadBodies(queue, lane.position.lane, std::move(seqs), kParkedFetchBytesMax,
             [this, lane_id = lane.position.lane](Queue* queue, Bodies bodies, Now) {
               if (!queue) return;
               --queue->lanes[lane_id]->parked_reads;
               Wake(*queue);
               for (auto& message : bodies.messages) {
                 window_bytes_ += queue->groups->Fetched(lane_id, std::move(message));
               }
             });
}

// Looks for messages of groups that were passed over, where there is room for them now.
void Shard::RefillGroups(Queue& queue) {
  while (const auto refill = queue.groups->NextRefill()) {
    LaneState& lane = *queue.lanes[refill->lane];
    const Seq end = lane.ScanPosition();
    ReadRequest request;
    request.index_begin = storage::GroupKey(lane.At(refill->from), refill->hash);
    request.index_end = storage::GroupKey(lane.At(end), refill->hash);
    request.rows_max = refill->max;
    ++lane.parked_reads;
    StartRead(std::move(request), [this, qid = queue.qid, refill = *refill,
                                   end](ReadResult& result, Now) -> absl::Status {
      Queue* queue = FindQueue(qid);
      if (!queue) return absl::OkStatus();
      LaneState& lane = *queue->lanes[refill.lane];
      --lane.parked_reads;
      Wake(*queue);
      std::vector<Seq> seqs;
      Seq next = end;
      const bool exhausted = result.rows.size() < refill.max;
      for (const storage::IndexRow& row : result.rows) {
        const auto key = storage::ParseIndexKey(row.key);
        if (!key.ok()) return key.status();
        const Seq seq = key->position.seq;
        if (!exhausted) next = seq + 1;
        if (!lane.settled.Contains(seq) && !lane.open.contains(seq)) seqs.push_back(seq);
      }
      queue->groups->Refilled(refill, seqs, next, exhausted);
      RefillGroups(*queue);
      return absl::OkStatus();
    });
  }
}

// Gives back windows of queues that nobody consumes when memory runs short; they are on disk.
void Shard::EvictIdleWindows() {
  const uint64_t enough = options_.window_bytes_max / 8 * 7;
  const size_t queues_max = std::min(queues_.size(), kEvictionsPerTurnMax);
  auto it = queues_.After(evict_cursor_);
  for (size_t i = 0; i < queues_max && window_bytes_ > enough; ++i) {
    if (it == queues_.end()) it = queues_.begin();
    Queue& queue = *it->second;
    evict_cursor_ = it->first;
    ++it;
    if (queue.IsConsumed()) continue;
    if (queue.groups) window_bytes_ -= queue.groups->DropPayloads();
    for (auto& lane : queue.ImmediateLanes()) {
      if (!lane) continue;
      // What is not durable yet cannot be read back before it is: HasMoreOnDisk sees to that.
      lane->TrimWindow(0, 0, &window_bytes_);
      while (!lane->fetched.empty()) {
        const Seq seq = *lane->fetched.begin();
        lane->TakeFetched(seq, lane->open.at(seq), &window_bytes_);
      }
    }
  }
}

}  // namespace sluice::broker
