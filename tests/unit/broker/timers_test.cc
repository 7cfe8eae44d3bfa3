#include "server/broker/timers.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace sluice::broker {
namespace {

TEST(Timers, GivesWhatIsDueInOrderAndNothingEarlier) {
  Timers timers;
  EXPECT_EQ(timers.NextDue(), std::nullopt);
  timers.Add({30, TimerKind::kLease, 0, 1, 1});
  timers.Add({10, TimerKind::kRetry, 0, 1, 2});
  timers.Add({20, TimerKind::kIdle, 0, 0, 3});
  EXPECT_EQ(timers.NextDue(), 10);
  EXPECT_FALSE(timers.PopDue(9).has_value());
  EXPECT_EQ(timers.PopDue(20)->id, 2u);
  EXPECT_EQ(timers.PopDue(20)->id, 3u);
  EXPECT_FALSE(timers.PopDue(20).has_value());
  EXPECT_EQ(timers.NextDue(), 30);
}

TEST(Timers, TellsTimersOfOneInstantApart) {
  Timers timers;
  timers.Add({10, TimerKind::kLease, 0, 1, 7});
  timers.Add({10, TimerKind::kLease, 1, 1, 7});
  timers.Add({10, TimerKind::kLease, 0, 2, 7});
  timers.Add({10, TimerKind::kRetry, 0, 1, 7});
  EXPECT_EQ(timers.size(), 4u);
  timers.Cancel({10, TimerKind::kLease, 1, 1, 7});
  timers.Cancel({11, TimerKind::kLease, 0, 1, 7});  // was never there
  EXPECT_EQ(timers.size(), 3u);
}

TEST(Timers, HoldsNothingOfWhatWasCancelled) {
  Timers timers;
  std::mt19937_64 random(1);
  std::map<uint64_t, int64_t> due;
  for (uint64_t id = 0; id < 10'000; ++id) {
    due[id] = static_cast<int64_t>(random() % 1000);
    timers.Add({due[id], TimerKind::kLease, 0, 1, id});
  }
  for (const auto& [id, when] : due) timers.Cancel({when, TimerKind::kLease, 0, 1, id});
  EXPECT_EQ(timers.size(), 0u);
  EXPECT_EQ(timers.NextDue(), std::nullopt);
}

}  // namespace
}  // namespace sluice::broker
