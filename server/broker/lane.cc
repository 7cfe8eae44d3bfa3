#include "server/broker/lane.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/strings.h"
#include "server/storage/rows.h"

namespace sluice::broker {

using storage::StoredMessage;

StoredMessage* LaneState::Front(uint64_t* shard_window_bytes) {
  while (!window.empty()) {
    StoredMessage& front = window.front();
    if (front.seq >= visible_end) return nullptr;
    const bool hole = front.seq < holes_bound &&
                      (settled.Contains(front.seq) || open.contains(front.seq) ||
                       resting.Contains(front.seq));
    if (!hole) return &front;
    PopFront(shard_window_bytes);
  }
  return nullptr;
}

StoredMessage LaneState::PopFront(uint64_t* shard_window_bytes) {
  StoredMessage message = std::move(window.front());
  window.pop_front();
  window_bytes -= message.payload.size();
  *shard_window_bytes -= message.payload.size();
  return message;
}

StoredMessage* LaneState::Find(Seq seq) {
  const auto place = std::lower_bound(
      window.begin(), window.end(), seq,
      [](const StoredMessage& message, Seq wanted) { return message.seq < wanted; });
  const bool found = place != window.end() && place->seq == seq;
  return found && !resting.Contains(seq) ? &*place : nullptr;
}

void LaneState::Append(MessageInfo info, Payload payload, bool consumed,
                       uint64_t shard_window_bytes_max, uint64_t* shard_window_bytes) {
  const uint64_t bytes = payload.size();
  const size_t messages_max = consumed ? kWindowMessagesMax : kIdleWindowMessagesMax;
  const uint64_t bytes_max = consumed ? kWindowBytesMax : kIdleWindowBytesMax;
  const Seq seq = next_seq;
  if (WindowReachesEnd() && window.size() < messages_max && window_bytes + bytes <= bytes_max &&
      *shard_window_bytes + bytes <= shard_window_bytes_max) {
    window.push_back({seq, std::move(info), std::move(payload)});
    window_bytes += bytes;
    *shard_window_bytes += bytes;
    fetch_cursor = seq + 1;
  } else if (Unsettled() == 0) {
    peeked = {seq, info.ReadySinceMs()};
  }
  next_seq = seq + 1;
}

Seq LaneState::NextToPageIn(Seq from) const {
  while (true) {
    const Seq next = resting.NextAbsent(settled.NextUnsettled(from));
    if (next == from) return next;
    from = next;
  }
}

Seq LaneState::FirstOnDisk() const {
  Seq seq = NextToPageIn(fetch_cursor);
  while (open.contains(seq)) seq = NextToPageIn(seq + 1);
  return seq;
}

void LaneState::TrimWindow(size_t messages_max, uint64_t bytes_max, uint64_t* shard_window_bytes) {
  while (!window.empty() && (window.size() > messages_max || window_bytes > bytes_max)) {
    const StoredMessage& back = window.back();
    window_bytes -= back.payload.size();
    *shard_window_bytes -= back.payload.size();
    fetch_cursor = back.seq;
    if (window.size() == 1) peeked = {back.seq, back.info.ReadySinceMs()};
    window.pop_back();
  }
}

void LaneState::KeepFetched(Seq seq, OpenMessage& message, Payload payload,
                            uint64_t* shard_window_bytes) {
  TakeFetched(seq, message, shard_window_bytes);
  message.payload = std::move(payload);
  fetched.insert(seq);
  fetched_bytes += message.payload.size();
  *shard_window_bytes += message.payload.size();
}

Payload LaneState::TakeFetched(Seq seq, OpenMessage& message, uint64_t* shard_window_bytes) {
  if (!message.payload) return Payload();
  fetched.erase(seq);
  fetched_bytes -= message.payload.size();
  *shard_window_bytes -= message.payload.size();
  return std::move(message.payload);
}

void LaneState::Settle(Seq seq, uint32_t size_bytes, storage::Batch& batch) {
  SLUICE_CHECK(settled.Add(seq));
  SLUICE_CHECK(!resting.Contains(seq));  // its history row would stay
  unsettled_bytes -= std::min<uint64_t>(unsettled_bytes, size_bytes);
  if (Unsettled() == 0) unsettled_bytes = 0;
  const auto it = open.find(seq);
  if (it == open.end()) {
    // Settled by the receipt of an earlier boot while it lies in the window or on disk.
    holes_bound = std::max(holes_bound, seq + 1);
    return;
  }
  if (it->second.has_history) {
    batch.Delete(storage::Family::kMeta, storage::HistoryKey(At(seq)));
  }
  open.erase(it);
}

void LaneState::WriteHistory(Seq seq, OpenMessage& message, int64_t lease_until_ms,
                        storage::Batch& batch) {
  storage::HistoryRow row;
  row.boot = message.boot;
  row.delivery_count = message.delivery_count;
  row.attempt = message.attempt;
  row.not_before_ms = message.not_before_ms;
  row.lease_until_ms = lease_until_ms;
  row.size_bytes = message.size_bytes;
  row.group_hash = message.group_hash;
  row.expire_ms = message.expire_ms;
  row.death = message.death;
  row.has_due_row = message.due_row_lsn != 0;
  row.held = message.state == OpenState::kLeased && lease_until_ms == 0;
  if (message.detail) row.detail = *message.detail;
  // What follows a live lease is known to be a further hand-out.
  row.maybe_redelivered = message.maybe_redelivered && message.state != OpenState::kLeased;
  batch.Put(storage::Family::kMeta, storage::HistoryKey(At(seq)), storage::EncodeHistory(row));
  message.has_history = true;
  message.lease_saved = lease_until_ms > 0;
}

void LaneState::WriteDirty(storage::Batch& batch) {
  dirty = false;
  storage::LaneRow row;
  row.head = settled.head();
  row.next_seq = next_seq;
  row.unsettled_bytes = unsettled_bytes;
  row.grant_bound = grant_bound;
  batch.Put(storage::Family::kMeta,
            storage::LaneKey(position.shard, position.qid, position.lane),
            storage::EncodeLane(row));
  settled.TakeDirty([&](uint64_t block, const storage::AcksRow* acks) {
    const std::string key =
        storage::AcksKey(position.shard, position.qid, position.lane, block);
    if (acks) {
      batch.Put(storage::Family::kMeta, key, storage::EncodeAcks(*acks));
    } else {
      batch.Delete(storage::Family::kMeta, key);
    }
  });
}

absl::Status LaneState::AddPage(const storage::ReadRange& range,
                           std::vector<StoredMessage> messages,
                           uint64_t* shard_window_bytes) {
  // A purge may have moved on meanwhile.
  if (range.begin != fetch_cursor && NextToPageIn(fetch_cursor) != range.begin) {
    return absl::OkStatus();
  }
  Seq expected = range.begin;
  storage::PageSize size;
  for (auto& message : messages) {
    const Seq missing = settled.NextUnsettled(expected);
    if (missing < message.seq) {
      return MakeError(ErrorReason::kDataDamaged,
                       absl::StrCat("message ", FormatMessageId(At(missing)),
                                    " is neither settled nor in the store"));
    }
    expected = message.seq + 1;
    size.Count(message);
    if (settled.Contains(message.seq) || open.contains(message.seq) ||
        resting.Contains(message.seq)) {
      continue;
    }
    window_bytes += message.payload.size();
    *shard_window_bytes += message.payload.size();
    window.push_back(std::move(message));
  }
  if (!size.IsFull(range)) {
    const Seq missing = settled.NextUnsettled(expected);
    if (missing < range.end) {
      return MakeError(ErrorReason::kDataDamaged,
                       absl::StrCat("message ", FormatMessageId(At(missing)),
                                    " is neither settled nor in the store"));
    }
    expected = range.end;
  }
  fetch_cursor = expected;
  // Receipts of an earlier boot, or a settle decided while reading, can make holes.
  return absl::OkStatus();
}

}  // namespace sluice::broker
