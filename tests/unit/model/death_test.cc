#include "server/model/death.h"

#include <string>

#include <gtest/gtest.h>

namespace sluice {
namespace {

Death DeathIn(const std::string& queue, DeathReason reason, int64_t ms) {
  Death death;
  death.queue = queue;
  death.reason = reason;
  death.first_ms = death.last_ms = ms;
  return death;
}

TEST(DeathTest, TheNewestComesFirst) {
  Deaths deaths;
  AddDeath(DeathIn("orders", DeathReason::kAttempts, 1), deaths);
  AddDeath(DeathIn("orders.dead", DeathReason::kExpired, 2), deaths);
  ASSERT_EQ(deaths.size(), 2u);
  EXPECT_EQ(deaths[0].queue, "orders.dead");
  EXPECT_EQ(deaths[1].queue, "orders");
}

TEST(DeathTest, DeathsInOneQueueForOneReasonAreCountedTogether) {
  Deaths deaths;
  AddDeath(DeathIn("orders", DeathReason::kAttempts, 1), deaths);
  AddDeath(DeathIn("orders", DeathReason::kExpired, 2), deaths);
  AddDeath(DeathIn("orders", DeathReason::kAttempts, 3), deaths);
  ASSERT_EQ(deaths.size(), 2u);
  EXPECT_EQ(deaths[0].reason, DeathReason::kAttempts);
  EXPECT_EQ(deaths[0].count, 2);
  EXPECT_EQ(deaths[0].first_ms, 1);
  EXPECT_EQ(deaths[0].last_ms, 3);
}

TEST(DeathTest, TheOldestAreForgottenBeyondTheLimit) {
  Deaths deaths;
  for (size_t i = 0; i <= kDeathsMax; ++i) {
    AddDeath(DeathIn("queue-" + std::to_string(i), DeathReason::kRejected, 1), deaths);
  }
  ASSERT_EQ(deaths.size(), kDeathsMax);
  EXPECT_EQ(deaths.back().queue, "queue-1");
}

}  // namespace
}  // namespace sluice
