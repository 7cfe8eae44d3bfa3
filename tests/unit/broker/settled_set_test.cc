#include "server/broker/settled_set.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace sluice::broker {
namespace {

using Rows = std::map<uint64_t, storage::AcksRow>;

// Writes what changed, as a batch would.
size_t Save(SettledSet& set, Rows& rows) {
  size_t changes = 0;
  set.TakeDirty([&](uint64_t block, const storage::AcksRow* row) {
    ++changes;
    if (row) {
      rows[block] = *row;
    } else {
      EXPECT_EQ(rows.erase(block), 1u) << "a row that is not stored was deleted: " << block;
    }
  });
  return changes;
}

SettledSet Reload(Seq head, const Rows& rows) {
  SettledSet set;
  set.RestoreHead(head);
  for (const auto& [block, row] : rows) set.RestoreRow(block, row);
  set.FinishRestore();
  return set;
}

// The same answers from a set of numbers.
struct Naive {
  std::set<Seq> settled;
  Seq Head() const {
    Seq head = 1;
    while (settled.contains(head)) ++head;
    return head;
  }
  Seq NextUnsettled(Seq from) const {
    while (settled.contains(from)) ++from;
    return from;
  }
};

void ExpectSame(const SettledSet& set, const Naive& naive, Seq max) {
  const Seq head = naive.Head();
  ASSERT_EQ(set.head(), head);
  ASSERT_EQ(set.settled_above_head(), naive.settled.size() - (head - 1));
  for (Seq seq = 1; seq <= max + 2; ++seq) {
    ASSERT_EQ(set.Contains(seq), naive.settled.contains(seq)) << seq;
  }
  for (Seq seq = 1; seq <= max; seq += 7) {
    ASSERT_EQ(set.NextUnsettled(seq), naive.NextUnsettled(std::max(seq, head))) << seq;
  }
}

class SettledSetRandom : public ::testing::TestWithParam<int> {};

TEST_P(SettledSetRandom, AgreesWithASetOfNumbersAlsoAfterReloads) {
  std::mt19937_64 random(GetParam());
  constexpr Seq kMax = 4000;
  SettledSet set;
  Naive naive;
  Rows rows;
  for (int step = 0; step < 400; ++step) {
    const Seq begin = 1 + random() % kMax;
    switch (random() % 8) {
      case 0: {  // a range, often along block borders
        Seq end = std::min<Seq>(kMax, begin + random() % 1500);
        Seq from = begin;
        if (random() % 2) from = from / 512 * 512;
        if (random() % 2) end = end / 512 * 512;
        if (random() % 4 == 0) from = naive.Head();
        if (from == 0 || end <= from) break;
        set.AddRange(from, end);
        for (Seq seq = from; seq < end; ++seq) naive.settled.insert(seq);
        break;
      }
      case 1: {
        Save(set, rows);
        set = Reload(set.head(), rows);
        break;
      }
      case 2: Save(set, rows); break;
      case 3: {  // in order from the head
        for (int i = random() % 200; i > 0; --i) {
          const Seq head = naive.Head();
          if (head > kMax) break;
          ASSERT_TRUE(set.Add(head));
          naive.settled.insert(head);
        }
        break;
      }
      default:
        for (int i = random() % 40; i > 0; --i) {
          const Seq seq = 1 + random() % kMax;
          ASSERT_EQ(set.Add(seq), naive.settled.insert(seq).second) << seq;
        }
    }
    ASSERT_NO_FATAL_FAILURE(ExpectSame(set, naive, kMax)) << "step " << step;
  }
  Save(set, rows);
  ASSERT_NO_FATAL_FAILURE(ExpectSame(Reload(set.head(), rows), naive, kMax));
}

INSTANTIATE_TEST_SUITE_P(Seeds, SettledSetRandom, ::testing::Range(1, 9));

TEST(SettledSet, BlockBordersAreNotOffByOne) {
  for (const Seq begin : {1u, 2u, 511u, 512u, 513u, 1023u, 1024u, 1025u}) {
    for (const Seq end : {511u, 512u, 513u, 1023u, 1024u, 1025u, 1536u, 1537u}) {
      if (end <= begin) continue;
      SettledSet set;
      Naive naive;
      Rows rows;
      set.AddRange(begin, end);
      for (Seq seq = begin; seq < end; ++seq) naive.settled.insert(seq);
      ASSERT_NO_FATAL_FAILURE(ExpectSame(set, naive, 2000)) << begin << ".." << end;
      Save(set, rows);
      ASSERT_NO_FATAL_FAILURE(ExpectSame(Reload(set.head(), rows), naive, 2000));
      if (begin > 1) {
        for (Seq seq = 1; seq < begin; ++seq) ASSERT_TRUE(set.Add(seq));
        EXPECT_EQ(set.head(), end);
        Save(set, rows);
        EXPECT_TRUE(rows.empty()) << "rows below the head stay behind";
      }
    }
  }
}

TEST(SettledSet, MemoryFollowsGapsNotTheNumberOfSettledMessages) {
  SettledSet set;
  Rows rows;
  constexpr Seq kMessages = 1'000'000;
  for (Seq seq = 2; seq <= kMessages; ++seq) ASSERT_TRUE(set.Add(seq));
  EXPECT_EQ(set.head(), 1u);
  EXPECT_EQ(set.settled_above_head(), kMessages - 1);
  Save(set, rows);
  EXPECT_LE(rows.size(), 3u) << "the first block, one run, the last block";
  EXPECT_TRUE(set.Add(1));
  EXPECT_EQ(set.head(), kMessages + 1);
  EXPECT_EQ(set.settled_above_head(), 0u);
  Save(set, rows);
  EXPECT_TRUE(rows.empty());
}

TEST(SettledSet, SaysOnlyWhatChanged) {
  SettledSet set;
  Rows rows;
  set.Add(10);
  set.Add(5000);
  EXPECT_EQ(Save(set, rows), 2u);
  EXPECT_EQ(Save(set, rows), 0u);
  set.Add(11);
  EXPECT_EQ(Save(set, rows), 1u);
}

}  // namespace
}  // namespace sluice::broker
