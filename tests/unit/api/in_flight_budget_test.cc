#include "server/api/in_flight_budget.h"

#include <gtest/gtest.h>

namespace sluice::api {
namespace {

TEST(InFlightBudgetTest, WaitersRunOnceThereIsRoom) {
  InFlightBudget budget(10);
  int woken = 0;
  EXPECT_FALSE(budget.WaitIfFull([&] { ++woken; }));
  budget.Take(15);
  EXPECT_TRUE(budget.WaitIfFull([&] { ++woken; }));
  budget.Give(5);  // still at the limit
  EXPECT_EQ(woken, 0);
  budget.Give(1);
  EXPECT_EQ(woken, 1);
  budget.Give(9);
  EXPECT_EQ(woken, 1);
  EXPECT_EQ(budget.used(), 0);
}

TEST(InFlightBudgetTest, DroppedWaitersNeverRun) {
  InFlightBudget budget(1);
  budget.Take(1);
  bool woken = false;
  EXPECT_TRUE(budget.WaitIfFull([&] { woken = true; }));
  budget.DropWaiters();
  budget.Give(1);
  EXPECT_FALSE(woken);
}

}  // namespace
}  // namespace sluice::api
