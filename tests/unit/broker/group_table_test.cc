// The table of message groups on its own: who waits behind whom, and what of them is in memory.
#include "server/broker/group_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <set>

namespace sluice::broker {
namespace {

using storage::StoredMessage;

constexpr Lane kLane = 5;
constexpr uint64_t kRed = 11;
constexpr uint64_t kBlue = 22;
constexpr size_t kParked = GroupTable::kParkedPerGroupMax;

StoredMessage Message(uint64_t hash, Seq seq) {
  StoredMessage message;
  message.seq = seq;
  message.info.group_hash = hash;
  message.payload = Payload::CopyOf("12345");
  return message;
}

void ParkRange(GroupTable& table, uint64_t hash, Seq from, Seq to) {
  for (Seq seq = from; seq < to; ++seq) table.Park(kLane, Message(hash, seq));
}

std::vector<Seq> Range(Seq from, Seq to) {
  std::vector<Seq> seqs(to - from);
  std::iota(seqs.begin(), seqs.end(), from);
  return seqs;
}

TEST(GroupTable, AMessageMayBeGrantedWhenNothingOfItsGroupIsOpenOrWaits) {
  GroupTable table;
  EXPECT_TRUE(table.MayGrant(kRed, kLane));
  EXPECT_TRUE(table.empty());
  table.Open(kRed, kLane, 1);
  EXPECT_FALSE(table.MayGrant(kRed, kLane));
  EXPECT_FALSE(table.MayGrant(kRed, kLane + 1)) << "one open message in all lanes together";
  EXPECT_TRUE(table.MayGrant(kBlue, kLane));
  EXPECT_EQ(table.OpenOf(kRed), std::pair(kLane, Seq{1}));
  EXPECT_EQ(table.OpenOf(kBlue), std::nullopt);
  EXPECT_EQ(table.Park(kLane, Message(kRed, 2)), 5u);
  table.Close(kRed);
  EXPECT_FALSE(table.MayGrant(kRed, kLane)) << "seq 2 comes first";
  EXPECT_TRUE(table.MayGrant(kRed, kLane + 1)) << "other lanes do not wait for it";
  EXPECT_EQ(table.TakeCandidate(kLane).seq, 2u);
  EXPECT_TRUE(table.MayGrant(kRed, kLane));
  EXPECT_TRUE(table.empty()) << "nothing is kept of a group without messages";
}

TEST(GroupTable, OnlyTheFirstWaitingMessageOfAFreeGroupIsACandidate) {
  GroupTable table;
  table.Open(kRed, kLane, 1);
  table.Open(kBlue, kLane, 2);
  ParkRange(table, kRed, 3, 5);
  ParkRange(table, kBlue, 5, 7);
  EXPECT_EQ(table.Candidate(kLane), std::nullopt);
  EXPECT_EQ(table.blocked(kLane), 4u);
  table.Close(kBlue);
  EXPECT_EQ(table.Candidate(kLane), 5u);
  EXPECT_EQ(table.blocked(kLane), 2u);
  table.Close(kRed);
  EXPECT_EQ(table.Candidate(kLane), 3u) << "in order of seq";
  const StoredMessage taken = table.TakeCandidate(kLane);
  EXPECT_EQ(taken.seq, 3u);
  EXPECT_EQ(taken.info.group_hash, kRed);
  table.Open(kRed, kLane, 3);
  EXPECT_EQ(table.Candidate(kLane), 5u);
  EXPECT_EQ(table.blocked(kLane), 1u);
}

TEST(GroupTable, AnOpenMessageOfOneLaneBlocksTheGroupInEveryLane) {
  GroupTable table;
  table.Open(kRed, kLane, 1);
  table.Park(kLane, Message(kRed, 2));
  table.Park(kLane + 1, Message(kRed, 1));
  EXPECT_EQ(table.blocked(kLane), 1u);
  EXPECT_EQ(table.blocked(kLane + 1), 1u);
  table.Close(kRed);
  EXPECT_EQ(table.Candidate(kLane), 2u);
  EXPECT_EQ(table.Candidate(kLane + 1), 1u);
  table.Open(kRed, kLane + 1, table.TakeCandidate(kLane + 1).seq);
  EXPECT_EQ(table.Candidate(kLane), std::nullopt);
  EXPECT_EQ(table.blocked(kLane), 1u);
  EXPECT_EQ(table.blocked(kLane + 1), 0u);
}

TEST(GroupTable, BeyondTheLimitMessagesAreSkippedAndTakeNoMemory) {
  GroupTable table;
  table.Open(kRed, kLane, 1);
  ParkRange(table, kRed, 2, 2 + kParked);
  EXPECT_EQ(table.SkippedGroups(kLane), nullptr);
  EXPECT_EQ(table.Park(kLane, Message(kRed, 2 + kParked)), 0u);
  ASSERT_NE(table.SkippedGroups(kLane), nullptr);
  EXPECT_TRUE(table.SkippedGroups(kLane)->contains(kRed));
  EXPECT_EQ(table.SkippedGroups(kLane + 1), nullptr);
  EXPECT_EQ(table.blocked(kLane), kParked + 1);
  EXPECT_EQ(table.NextRefill(), std::nullopt) << "there is no room for them yet";
}

TEST(GroupTable, ManyGroupsTogetherParkALimitedNumber) {
  constexpr size_t kMax = 100;
  constexpr Seq kGroups = 200;
  constexpr Seq kEach = 5;
  GroupTable table(kMax);
  for (uint64_t hash = 1; hash <= kGroups; ++hash) table.Open(hash, kLane, hash);
  Seq seq = kGroups;
  for (Seq i = 0; i < kEach; ++i) {
    for (uint64_t hash = 1; hash <= kGroups; ++hash) table.Park(kLane, Message(hash, ++seq));
  }
  EXPECT_LE(table.parked(), GroupTable::kParkedPerGroupMin * kGroups);
  EXPECT_EQ(table.blocked(kLane), kGroups * kEach);
  EXPECT_EQ(table.SkippedGroups(kLane)->size(), kGroups);
  EXPECT_EQ(table.payload_bytes(), 5 * table.parked());
  // What was skipped is found again, in order, however little may be parked.
  for (uint64_t hash = 1; hash <= kGroups; ++hash) {
    table.Close(hash);
    std::vector<Seq> seqs;
    while (seqs.size() < kEach) {
      while (const auto candidate = table.Candidate(kLane)) {
        seqs.push_back(table.TakeCandidate(kLane).seq);
        ASSERT_EQ(seqs.back(), *candidate);
      }
      const auto refill = table.NextRefill();
      if (!refill) break;
      ASSERT_EQ(refill->hash, hash);
      std::vector<Seq> found;
      for (Seq i = 0; i < kEach && found.size() < refill->max; ++i) {
        const Seq stored = kGroups + i * kGroups + hash;
        if (stored >= refill->from) found.push_back(stored);
      }
      const bool exhausted = found.size() < refill->max;
      table.Refilled(*refill, found, exhausted ? seq + 1 : found.back() + 1, exhausted);
    }
    ASSERT_EQ(seqs.size(), kEach) << hash;
    ASSERT_TRUE(std::is_sorted(seqs.begin(), seqs.end()));
  }
  while (const auto refill = table.NextRefill()) table.Refilled(*refill, {}, seq + 1, true);
  EXPECT_TRUE(table.empty());
  EXPECT_EQ(table.parked(), 0u);
  EXPECT_EQ(table.payload_bytes(), 0u);
}

TEST(GroupTable, KnowsThePayloadsThatItKeeps) {
  GroupTable table;
  table.Open(kRed, kLane, 1);
  EXPECT_EQ(table.DropPayloads(), 0u);
  ParkRange(table, kRed, 2, 6);
  EXPECT_EQ(table.payload_bytes(), 20u);
  uint64_t bytes = 0;
  EXPECT_TRUE(table.Remove(kLane, 5, &bytes));
  EXPECT_EQ(table.payload_bytes(), 15u);
  EXPECT_EQ(table.DropPayloads(), 15u);
  EXPECT_EQ(table.DropPayloads(), 0u);
  EXPECT_EQ(table.Fetched(kLane, Message(kRed, 3)), 5u);
  EXPECT_EQ(table.payload_bytes(), 5u);
  table.Close(kRed);
  table.TakeCandidate(kLane);
  table.TakeCandidate(kLane);
  EXPECT_EQ(table.payload_bytes(), 0u);
  table.Park(kLane, Message(kRed, 9));
  EXPECT_EQ(table.ClearLane(kLane), 5u);
  EXPECT_EQ(table.payload_bytes(), 0u);
}

// Takes and closes until a refill is wanted; the seqs that came.
std::vector<Seq> TakeUntilRefill(GroupTable& table, uint64_t hash,
                                 std::optional<GroupTable::Refill>* refill) {
  std::vector<Seq> taken;
  while (!(*refill = table.NextRefill()) && table.Candidate(kLane)) {
    taken.push_back(table.TakeCandidate(kLane).seq);
    table.Open(hash, kLane, taken.back());
    table.Close(hash);
  }
  return taken;
}

TEST(GroupTable, SkippedMessagesAreLookedForInTimeAndComeBackInOrder) {
  GroupTable table;
  table.Open(kRed, kLane, 1);
  ParkRange(table, kRed, 2, 302);
  table.Close(kRed);
  std::vector<Seq> all;
  Seq scanned = 302;
  for (int round = 0; round < 20; ++round) {
    std::optional<GroupTable::Refill> refill;
    for (const Seq seq : TakeUntilRefill(table, kRed, &refill)) all.push_back(seq);
    if (!refill) break;
    EXPECT_EQ(refill->hash, kRed);
    EXPECT_EQ(refill->lane, kLane);
    EXPECT_EQ(refill->from, all.size() + 2 + GroupTable::kRefillBelow);
    EXPECT_EQ(refill->max, kParked - GroupTable::kRefillBelow);
    EXPECT_EQ(table.NextRefill(), std::nullopt) << "one at a time";
    // While the rows are being read another message is passed over.
    if (round == 1) table.Park(kLane, Message(kRed, scanned++));
    const Seq end = round == 1 ? scanned - 1 : scanned;
    const Seq to = std::min<Seq>(end, refill->from + refill->max);
    const bool exhausted = to - refill->from < refill->max;
    table.Refilled(*refill, Range(refill->from, to), exhausted ? end : to, exhausted);
  }
  EXPECT_EQ(all, Range(2, 303));
  EXPECT_TRUE(table.empty());
  EXPECT_EQ(table.SkippedGroups(kLane), nullptr);
}

TEST(GroupTable, RowsOfSettledMessagesDoNotEndTheSearch) {
  GroupTable table;
  table.Open(kRed, kLane, 1);
  ParkRange(table, kRed, 2, 2 + 200);
  table.Close(kRed);
  std::optional<GroupTable::Refill> refill;
  TakeUntilRefill(table, kRed, &refill);
  ASSERT_TRUE(refill);
  // A page full of rows, and none of them is unsettled.
  table.Refilled(*refill, {}, refill->from + refill->max, /*exhausted=*/false);
  const auto next = table.NextRefill();
  ASSERT_TRUE(next);
  EXPECT_EQ(next->from, refill->from + refill->max);
  table.Refilled(*next, {}, 202, /*exhausted=*/true);
  TakeUntilRefill(table, kRed, &refill);
  EXPECT_FALSE(refill);
  EXPECT_TRUE(table.empty());
}

TEST(GroupTable, ASearchThatIsOlderThanAPurgeIsForgotten) {
  GroupTable table;
  table.Open(kRed, kLane, 1);
  ParkRange(table, kRed, 2, 102);
  table.Close(kRed);
  std::optional<GroupTable::Refill> old;
  TakeUntilRefill(table, kRed, &old);
  ASSERT_TRUE(old);
  table.ClearLane(kLane);
  EXPECT_TRUE(table.empty());
  // The same group fills up again, and looks again, before the old answer comes.
  table.Open(kRed, kLane, 102);
  ParkRange(table, kRed, 103, 203);
  table.Close(kRed);
  std::optional<GroupTable::Refill> refill;
  size_t taken = TakeUntilRefill(table, kRed, &refill).size();
  ASSERT_TRUE(refill);
  table.Refilled(*old, {}, 102, /*exhausted=*/true);
  ASSERT_NE(table.SkippedGroups(kLane), nullptr) << "what was passed over is not forgotten";
  table.Refilled(*refill, Range(refill->from, 203), 203, /*exhausted=*/true);
  taken += TakeUntilRefill(table, kRed, &refill).size();
  EXPECT_EQ(taken, 100u);
}

TEST(GroupTable, PayloadsMayBeLeftOutAndFetchedLater) {
  GroupTable table;
  StoredMessage bare = Message(kRed, 1);
  bare.payload = Payload();
  EXPECT_EQ(table.Park(kLane, std::move(bare)), 0u);
  table.Park(kLane, Message(kBlue, 2));
  EXPECT_EQ(table.CandidatesToFetch(kLane, 10), std::vector<Seq>{1});
  EXPECT_TRUE(table.CandidatesToFetch(kLane, 0).empty());
  EXPECT_EQ(table.Fetched(kLane, Message(kRed, 1)), 5u);
  EXPECT_EQ(table.Fetched(kLane, Message(kRed, 1)), 0u) << "it has it";
  EXPECT_EQ(table.Fetched(kLane, Message(kRed, 7)), 0u) << "it is gone";
  EXPECT_EQ(table.DropPayloads(), 10u);
  EXPECT_EQ(table.DropPayloads(), 0u);
  EXPECT_EQ(table.CandidatesToFetch(kLane, 10), (std::vector<Seq>{1, 2}));
  EXPECT_EQ(table.CandidatesToFetch(kLane, 1), std::vector<Seq>{1});
}

TEST(GroupTable, RemovingTheFirstExposesTheNext) {
  GroupTable table;
  ParkRange(table, kRed, 1, 4);
  EXPECT_EQ(table.GroupOfParked(kLane, 2), kRed);
  EXPECT_EQ(table.GroupOfParked(kLane, 4), std::nullopt);
  uint64_t bytes = 0;
  EXPECT_TRUE(table.Remove(kLane, 1, &bytes));
  EXPECT_EQ(bytes, 5u);
  EXPECT_FALSE(table.Remove(kLane, 1, &bytes));
  EXPECT_EQ(table.Candidate(kLane), 2u);
  EXPECT_TRUE(table.Remove(kLane, 3, &bytes));
  EXPECT_EQ(table.Candidate(kLane), 2u);
  table.Open(kRed, kLane, table.TakeCandidate(kLane).seq);
  EXPECT_EQ(table.blocked(kLane), 0u);
  EXPECT_EQ(table.groups(), 1u);
}

TEST(GroupTable, RandomGroupsKeepTheirOrderAndOneOpenMessageEach) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    GroupTable table;
    std::map<uint64_t, std::vector<Seq>> published;
    std::map<uint64_t, std::vector<Seq>> granted;
    std::map<uint64_t, Seq> open;
    Seq next = 1;
    const auto serve = [&] {
      while (const auto refill = table.NextRefill()) {
        std::vector<Seq> rows;
        for (const Seq seq : published[refill->hash]) {
          if (seq >= refill->from && rows.size() < refill->max) rows.push_back(seq);
        }
        const bool exhausted = rows.size() < refill->max;
        table.Refilled(*refill, rows, exhausted ? next : rows.back() + 1, exhausted);
      }
    };
    const auto grant = [&](uint64_t hash, Seq seq) {
      ASSERT_FALSE(open.contains(hash)) << "seed " << seed;
      table.Open(hash, kLane, seq);
      granted[hash].push_back(seq);
      open[hash] = seq;
    };
    for (int step = 0; step < 20'000 || !table.empty(); ++step) {
      ASSERT_LT(step, 200'000) << "seed " << seed << ": something is stuck";
      const uint64_t hash = 1 + random() % 8;
      if (step < 20'000 && random() % 2 == 0) {
        published[hash].push_back(next);
        if (table.MayGrant(hash, kLane)) {
          grant(hash, next);
        } else {
          table.Park(kLane, Message(hash, next));
        }
        ++next;
      } else if (random() % 2 == 0) {
        if (open.erase(hash) > 0) table.Close(hash);
      } else if (const auto candidate = table.Candidate(kLane)) {
        const uint64_t group = *table.GroupOfParked(kLane, *candidate);
        table.TakeCandidate(kLane);
        grant(group, *candidate);
      }
      serve();
    }
    EXPECT_EQ(granted, published) << "seed " << seed;
    EXPECT_EQ(table.blocked(kLane), 0u);
  }
}

}  // namespace
}  // namespace sluice::broker
