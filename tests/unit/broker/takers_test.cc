// Whose turn it is.
#include "server/broker/takers.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace sluice::broker {
namespace {

using Verdict = Takers::Verdict;

TEST(Takers, EqualPrioritiesTakeTurns) {
  Takers takers;
  EXPECT_TRUE(takers.empty());
  const auto takes = [](SubscriptionId) { return Verdict::kTakes; };
  EXPECT_EQ(takers.Next(takes), 0u);
  for (const SubscriptionId id : {1, 2, 3}) takers.Add(0, id);
  std::vector<SubscriptionId> turns;
  for (int i = 0; i < 7; ++i) turns.push_back(takers.Next(takes));
  EXPECT_EQ(turns, (std::vector<SubscriptionId>{1, 2, 3, 1, 2, 3, 1}));
}

TEST(Takers, ALowerPriorityIsAskedOnlyWhenNoneOfAHigherOneTakes) {
  Takers takers;
  takers.Add(-5, 1);
  takers.Add(7, 2);
  takers.Add(7, 3);
  takers.Add(0, 4);
  std::set<SubscriptionId> stays;
  const auto ask = [&](SubscriptionId id) {
    return stays.contains(id) ? Verdict::kStays : Verdict::kTakes;
  };
  EXPECT_EQ(takers.Next(ask), 2u);
  EXPECT_EQ(takers.Next(ask), 3u);
  stays = {2, 3};
  EXPECT_EQ(takers.Next(ask), 4u);
  EXPECT_EQ(takers.Next(ask), 4u);
  stays = {2, 3, 4};
  EXPECT_EQ(takers.Next(ask), 1u);
  stays = {1, 2, 3, 4};
  EXPECT_EQ(takers.Next(ask), 0u);
  stays = {};
  EXPECT_EQ(takers.Next(ask), 2u) << "who stays keeps its place";
}

TEST(Takers, WhoLeavesIsNotAskedAgain) {
  Takers takers;
  takers.Add(1, 1);
  takers.Add(0, 2);
  std::vector<SubscriptionId> asked;
  const auto leaves = [&](SubscriptionId id) {
    asked.push_back(id);
    return Verdict::kLeaves;
  };
  EXPECT_EQ(takers.Next(leaves), 0u);
  EXPECT_EQ(asked, (std::vector<SubscriptionId>{1, 2}));
  EXPECT_TRUE(takers.empty());
  takers.Add(1, 1);
  takers.Remove(1, 1);
  takers.Remove(1, 1);
  takers.Remove(9, 9);
  EXPECT_TRUE(takers.empty());
}

}  // namespace
}  // namespace sluice::broker
