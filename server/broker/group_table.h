// The message groups of one queue: one open message each, and what waits behind it.
#ifndef SLUICE_SERVER_BROKER_GROUP_TABLE_H_
#define SLUICE_SERVER_BROKER_GROUP_TABLE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "server/model/ids.h"
#include "server/storage/store.h"

namespace sluice::broker {

// When dispatch meets a message whose group has to wait, it parks the message here and goes on, so
// that nobody else waits. A group parks up to kParkedPerGroupMax messages of a lane in memory, or
// kParkedPerGroupMin when all groups together have kParkedMax; what comes after them is passed over
// ("skipped") and found again through the group's index once there is room. So memory follows the
// number of waiting groups, never their depth.
//
// States of a group's waiting messages:
//   parked behind an open message: blocked
//   parked, nothing open: the first of each lane is a candidate for being granted
//   skipped: on disk, behind the parked ones of the lane
//
// Knows neither what is settled nor who holds what: its caller removes what leaves in other ways.
// Not thread-safe.
class GroupTable {
 public:
  static constexpr size_t kParkedPerGroupMax = 64;
  static constexpr size_t kParkedPerGroupMin = 4;
  // Each takes some 150 bytes besides its payload, which counts as part of the windows. Lower is
  // slower: what was skipped is read a few messages at a time (at 131,072 a backlog of 100,000
  // groups drained at half the speed).
  static constexpr size_t kParkedMax = 524'288;
  // Skipped messages are looked for when a lane of the group has no more than these left; when
  // groups may park little, when it has none.
  static constexpr size_t kRefillBelow = 16;

  explicit GroupTable(size_t parked_max = kParkedMax) : parked_max_(parked_max) {}

  // A message of the group at the front of `lane` may be granted: nothing is open, and nothing
  // before it waits here.
  bool MayGrant(uint64_t hash, Lane lane) const;

  // The message is granted: from the lane's front, or a candidate after Take.
  void Open(uint64_t hash, Lane lane, Seq seq);
  // It is settled, and that is durable.
  void Close(uint64_t hash);
  // The message that was opened last and not closed, if any: it may be settled already.
  std::optional<std::pair<Lane, Seq>> OpenOf(uint64_t hash) const;

  // A message that MayGrant refused, or whose payload is not there. Returns the bytes that it keeps in memory: 0 if it was skipped.
  // The payload may be left out.
  uint64_t Park(Lane lane, storage::StoredMessage message);

  // The first candidate of a lane.
  std::optional<Seq> Candidate(Lane lane) const;
  const storage::StoredMessage& CandidateMessage(Lane lane) const;  // there must be one
  storage::StoredMessage TakeCandidate(Lane lane);
  // Candidates of a lane whose payload is not in memory, in order, at most `max`.
  std::vector<Seq> CandidatesToFetch(Lane lane, size_t max) const;
  // What was read for a parked message; ignored if it is not parked any more. Returns bytes kept.
  uint64_t Fetched(Lane lane, storage::StoredMessage message);
  // The same for its info alone.
  void NoteInfo(Lane lane, Seq seq, MessageInfo info);

  // Takes a message out that leaves otherwise. False if it is not parked; `payload_bytes` are those
  // that it kept. If it may have been skipped, call RemoveSkipped.
  bool Remove(Lane lane, Seq seq, uint64_t* payload_bytes);
  void RemoveSkipped(uint64_t hash, Lane lane);
  // Whether a parked message is this one, and of which group.
  std::optional<uint64_t> GroupOfParked(Lane lane, Seq seq) const;
  // Forgets every waiting message of a lane; returns their payload bytes.
  uint64_t ClearLane(Lane lane);
  // Drops the payloads of parked messages, if there are any; returns their bytes.
  uint64_t DropPayloads();

  // A group that has room for messages that it skipped: read rows of its index in [from, end).
  struct Refill {
    uint64_t hash = 0;
    Lane lane = 0;
    Seq from = 0;
    uint32_t max = 0;
  };
  std::optional<Refill> NextRefill();
  // The unsettled seqs among the rows found; `end`: where the search ended, `exhausted`: there were
  // no more below it.
  void Refilled(const Refill& refill, const std::vector<Seq>& seqs, Seq end, bool exhausted);
  // Groups whose messages in this lane are being skipped, for readers. Null: none.
  std::shared_ptr<const absl::flat_hash_set<uint64_t>> SkippedGroups(Lane lane) const;

  // Messages behind an open one of their group.
  uint64_t blocked(Lane lane) const { return lanes_[lane].blocked; }
  bool empty() const { return groups_.empty(); }
  size_t groups() const { return groups_.size(); }
  size_t parked() const { return parked_; }
  uint64_t payload_bytes() const { return payload_bytes_; }

 private:
  struct Skip {
    Seq from = 0;             // the first one
    uint64_t count = 0;
    uint64_t count_since = 0; // of them, since the refill was started
    bool refilling = false;
    bool queued = false;      // in refills_
  };
  // The waiting messages of one group in one lane.
  struct LaneGroup {
    absl::btree_map<Seq, storage::StoredMessage> parked;
    std::optional<Skip> skip;
    uint64_t waiting() const { return parked.size() + (skip ? skip->count : 0); }
  };
  struct Group {
    Lane open_lane = 0;
    Seq open_seq = 0;  // 0: none
    // Nearly always one lane.
    absl::flat_hash_map<Lane, LaneGroup> lanes;
  };
  struct LaneIndex {
    absl::btree_map<Seq, uint64_t> candidates;
    absl::flat_hash_map<Seq, uint64_t> parked;  // group of each
    absl::flat_hash_set<uint64_t> skipping;
    uint64_t blocked = 0;
  };

  bool IsCrowded() const { return parked_ >= parked_max_; }
  size_t PerGroupMax() const { return IsCrowded() ? kParkedPerGroupMin : kParkedPerGroupMax; }
  Group* Find(uint64_t hash) const;
  LaneGroup* Find(uint64_t hash, Lane lane) const;
  void Expose(uint64_t hash, Lane lane, LaneGroup& group);
  void Hide(Lane lane, LaneGroup& group);
  void WantRefill(uint64_t hash, Lane lane, LaneGroup& group);
  void EraseIfEmpty(uint64_t hash, Lane lane);

  const size_t parked_max_;
  size_t parked_ = 0;           // of all groups and lanes
  uint64_t payload_bytes_ = 0;  // of those
  absl::flat_hash_map<uint64_t, std::unique_ptr<Group>> groups_;
  std::array<LaneIndex, kImmediateLanes> lanes_;
  std::vector<std::pair<uint64_t, Lane>> refills_;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_GROUP_TABLE_H_
