// The set of seqs against a plain one.
#include "server/broker/seq_set.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace sluice::broker {
namespace {

TEST(SeqSet, DoesWhatAPlainSetDoes) {
  const auto seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  SeqSet set;
  std::set<Seq> plain;
  constexpr Seq kRange = 3000;
  for (int i = 0; i < 20'000; ++i) {
    const Seq seq = random() % kRange;
    // Now dense, now sparse.
    if (random() % 100 < (i / 5000 % 2 == 0 ? 80u : 20u)) {
      set.Insert(seq);
      plain.insert(seq);
    } else {
      EXPECT_EQ(set.Erase(seq), plain.erase(seq) > 0);
    }
    ASSERT_EQ(set.size(), plain.size());
    const Seq from = random() % (kRange + 600);
    ASSERT_EQ(set.Contains(from), plain.contains(from));
    const auto next = plain.lower_bound(from);
    ASSERT_EQ(set.Next(from), next == plain.end() ? SeqSet::kNone : *next);
    Seq absent = from;
    while (plain.contains(absent)) ++absent;
    ASSERT_EQ(set.NextAbsent(from), absent);
  }
  set.Clear();
  EXPECT_TRUE(set.empty());
  EXPECT_EQ(set.Next(0), SeqSet::kNone);
}

}  // namespace
}  // namespace sluice::broker
