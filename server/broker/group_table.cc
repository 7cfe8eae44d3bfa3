#include "server/broker/group_table.h"

#include <algorithm>
#include <utility>

#include "server/base/check.h"

namespace sluice::broker {

using storage::StoredMessage;

GroupTable::Group* GroupTable::Find(uint64_t hash) const {
  const auto it = groups_.find(hash);
  return it == groups_.end() ? nullptr : it->second.get();
}

GroupTable::LaneGroup* GroupTable::Find(uint64_t hash, Lane lane) const {
  Group* group = Find(hash);
  if (!group) return nullptr;
  const auto it = group->lanes.find(lane);
  return it == group->lanes.end() ? nullptr : &it->second;
}

bool GroupTable::MayGrant(uint64_t hash, Lane lane) const {
  const Group* group = Find(hash);
  return !group || (group->open_seq == 0 && !group->lanes.contains(lane));
}

std::optional<std::pair<Lane, Seq>> GroupTable::OpenOf(uint64_t hash) const {
  const Group* group = Find(hash);
  if (!group || group->open_seq == 0) return std::nullopt;
  return std::pair{group->open_lane, group->open_seq};
}

// The first parked message of a group that has nothing open is a candidate.
void GroupTable::Expose(uint64_t hash, Lane lane, LaneGroup& group) {
  if (!group.parked.empty()) lanes_[lane].candidates[group.parked.begin()->first] = hash;
}

void GroupTable::Hide(Lane lane, LaneGroup& group) {
  if (!group.parked.empty()) lanes_[lane].candidates.erase(group.parked.begin()->first);
}

void GroupTable::WantRefill(uint64_t hash, Lane lane, LaneGroup& group) {
  if (!group.skip || group.skip->refilling || group.skip->queued) return;
  if (group.parked.size() > (IsCrowded() ? 0 : kRefillBelow)) return;
  group.skip->queued = true;
  refills_.push_back({hash, lane});
}

void GroupTable::EraseIfEmpty(uint64_t hash, Lane lane) {
  Group* group = Find(hash);
  const auto it = group->lanes.find(lane);
  if (it != group->lanes.end() && it->second.parked.empty() && !it->second.skip) {
    group->lanes.erase(it);
  }
  if (group->open_seq == 0 && group->lanes.empty()) groups_.erase(hash);
}

void GroupTable::Open(uint64_t hash, Lane lane, Seq seq) {
  auto& slot = groups_[hash];
  if (!slot) slot = std::make_unique<Group>();
  SLUICE_CHECK(slot->open_seq == 0);
  slot->open_lane = lane;
  slot->open_seq = seq;
  for (auto& [id, waiting] : slot->lanes) {
    Hide(id, waiting);
    lanes_[id].blocked += waiting.waiting();
  }
}

void GroupTable::Close(uint64_t hash) {
  Group* group = Find(hash);
  SLUICE_CHECK(group && group->open_seq != 0);
  group->open_seq = 0;
  for (auto& [id, waiting] : group->lanes) {
    Expose(hash, id, waiting);
    lanes_[id].blocked -= waiting.waiting();
    WantRefill(hash, id, waiting);
  }
  if (group->lanes.empty()) groups_.erase(hash);
}

uint64_t GroupTable::Park(Lane lane, StoredMessage message) {
  const uint64_t hash = message.info.group_hash;
  auto& group = groups_[hash];
  if (!group) group = std::make_unique<Group>();
  LaneGroup& waiting = group->lanes[lane];
  if (group->open_seq != 0) ++lanes_[lane].blocked;
  if (!waiting.skip && waiting.parked.size() >= PerGroupMax()) {
    waiting.skip = Skip{message.seq};
    lanes_[lane].skipping.insert(hash);
  }
  if (waiting.skip) {
    ++waiting.skip->count;
    ++waiting.skip->count_since;
    return 0;
  }
  const Seq seq = message.seq;
  const uint64_t bytes = message.payload.size();
  lanes_[lane].parked[seq] = hash;
  waiting.parked.emplace(seq, std::move(message));
  ++parked_;
  payload_bytes_ += bytes;
  if (group->open_seq == 0) Expose(hash, lane, waiting);
  return bytes;
}

std::optional<Seq> GroupTable::Candidate(Lane lane) const {
  const auto& candidates = lanes_[lane].candidates;
  if (candidates.empty()) return std::nullopt;
  return candidates.begin()->first;
}

const StoredMessage& GroupTable::CandidateMessage(Lane lane) const {
  const auto& [seq, hash] = *lanes_[lane].candidates.begin();
  return Find(hash, lane)->parked.at(seq);
}

StoredMessage GroupTable::TakeCandidate(Lane lane) {
  const auto [seq, hash] = *lanes_[lane].candidates.begin();
  LaneGroup& waiting = *Find(hash, lane);
  StoredMessage message = std::move(waiting.parked.at(seq));
  payload_bytes_ -= message.payload.size();
  // What was parked without its info.
  message.info.group_hash = hash;
  uint64_t bytes;
  Remove(lane, seq, &bytes);
  return message;
}

bool GroupTable::Remove(Lane lane, Seq seq, uint64_t* payload_bytes) {
  const auto parked = lanes_[lane].parked.find(seq);
  if (parked == lanes_[lane].parked.end()) return false;
  const uint64_t hash = parked->second;
  Group& group = *Find(hash);
  LaneGroup& waiting = group.lanes.at(lane);
  const auto it = waiting.parked.find(seq);
  *payload_bytes = it->second.payload.size();
  payload_bytes_ -= *payload_bytes;
  const bool first = it == waiting.parked.begin();
  if (first) Hide(lane, waiting);
  waiting.parked.erase(it);
  lanes_[lane].parked.erase(parked);
  --parked_;
  if (group.open_seq != 0) {
    --lanes_[lane].blocked;
  } else if (first) {
    Expose(hash, lane, waiting);
  }
  WantRefill(hash, lane, waiting);
  EraseIfEmpty(hash, lane);
  return true;
}

void GroupTable::RemoveSkipped(uint64_t hash, Lane lane) {
  LaneGroup* waiting = Find(hash, lane);
  if (!waiting || !waiting->skip || waiting->skip->count == 0) return;
  --waiting->skip->count;
  if (Find(hash)->open_seq != 0) --lanes_[lane].blocked;
}

std::optional<uint64_t> GroupTable::GroupOfParked(Lane lane, Seq seq) const {
  const auto it = lanes_[lane].parked.find(seq);
  if (it == lanes_[lane].parked.end()) return std::nullopt;
  return it->second;
}

std::vector<Seq> GroupTable::CandidatesToFetch(Lane lane, size_t max) const {
  std::vector<Seq> seqs;
  for (const auto& [seq, hash] : lanes_[lane].candidates) {
    if (seqs.size() == max) break;
    if (!Find(hash, lane)->parked.at(seq).payload) seqs.push_back(seq);
  }
  return seqs;
}

uint64_t GroupTable::Fetched(Lane lane, StoredMessage message) {
  const auto parked = lanes_[lane].parked.find(message.seq);
  if (parked == lanes_[lane].parked.end()) return 0;
  StoredMessage& kept = Find(parked->second, lane)->parked.at(message.seq);
  if (kept.payload) return 0;
  kept = std::move(message);
  payload_bytes_ += kept.payload.size();
  return kept.payload.size();
}

void GroupTable::NoteInfo(Lane lane, Seq seq, MessageInfo info) {
  const auto parked = lanes_[lane].parked.find(seq);
  if (parked == lanes_[lane].parked.end()) return;
  Find(parked->second, lane)->parked.at(seq).info = std::move(info);
}

uint64_t GroupTable::ClearLane(Lane lane) {
  uint64_t bytes = 0;
  std::vector<uint64_t> emptied;
  for (auto& [hash, group] : groups_) {
    const auto it = group->lanes.find(lane);
    if (it == group->lanes.end()) continue;
    for (const auto& [seq, message] : it->second.parked) bytes += message.payload.size();
    group->lanes.erase(it);
    if (group->open_seq == 0 && group->lanes.empty()) emptied.push_back(hash);
  }
  for (const uint64_t hash : emptied) groups_.erase(hash);
  parked_ -= lanes_[lane].parked.size();
  payload_bytes_ -= bytes;
  lanes_[lane] = {};
  return bytes;
}

uint64_t GroupTable::DropPayloads() {
  if (payload_bytes_ == 0) return 0;
  for (auto& [hash, group] : groups_) {
    for (auto& [id, waiting] : group->lanes) {
      for (auto& [seq, message] : waiting.parked) message.payload = Payload();
    }
  }
  return std::exchange(payload_bytes_, 0);
}

std::optional<GroupTable::Refill> GroupTable::NextRefill() {
  while (!refills_.empty()) {
    const auto [hash, lane] = refills_.back();
    refills_.pop_back();
    LaneGroup* waiting = Find(hash, lane);
    // The lane may have been cleared meanwhile.
    if (!waiting || !waiting->skip || !waiting->skip->queued) continue;
    Skip& skip = *waiting->skip;
    skip.queued = false;
    skip.refilling = true;
    skip.count_since = 0;
    // It may have become crowded since this was asked for.
    const size_t parked = waiting->parked.size();
    const size_t room = PerGroupMax() > parked ? PerGroupMax() - parked : 1;
    return Refill{hash, lane, skip.from, static_cast<uint32_t>(room)};
  }
  return std::nullopt;
}

void GroupTable::Refilled(const Refill& refill, const std::vector<Seq>& seqs, Seq end,
                          bool exhausted) {
  LaneGroup* waiting = Find(refill.hash, refill.lane);
  if (!waiting || !waiting->skip || !waiting->skip->refilling) return;
  // The lane was cleared meanwhile, and this is the answer to a search of before.
  if (waiting->skip->from != refill.from) return;
  Group& group = *Find(refill.hash);
  LaneIndex& index = lanes_[refill.lane];
  const bool open = group.open_seq != 0;
  Skip& skip = *waiting->skip;
  skip.refilling = false;
  const uint64_t before = waiting->waiting();
  const bool had_none = waiting->parked.empty();
  for (const Seq seq : seqs) {
    StoredMessage message;
    message.seq = seq;
    message.info.group_hash = refill.hash;
    if (!waiting->parked.emplace(seq, std::move(message)).second) continue;
    index.parked[seq] = refill.hash;
    ++parked_;
  }
  skip.from = end;
  // The index is exact where the count may be off by messages that left unseen.
  const uint64_t left = skip.count - std::min<uint64_t>(skip.count, seqs.size());
  skip.count = exhausted ? skip.count_since : std::max(left, skip.count_since);
  if (skip.count == 0 && exhausted) {
    waiting->skip.reset();
    index.skipping.erase(refill.hash);
  }
  if (open) index.blocked = index.blocked - before + waiting->waiting();
  if (had_none && !open) Expose(refill.hash, refill.lane, *waiting);
  WantRefill(refill.hash, refill.lane, *waiting);
  EraseIfEmpty(refill.hash, refill.lane);
}

std::shared_ptr<const absl::flat_hash_set<uint64_t>> GroupTable::SkippedGroups(Lane lane) const {
  if (lanes_[lane].skipping.empty()) return nullptr;
  return std::make_shared<absl::flat_hash_set<uint64_t>>(lanes_[lane].skipping);
}

}  // namespace sluice::broker
