#include "server/base/clock.h"

#include <random>

#include "gtest/gtest.h"

namespace sluice {
namespace {

constexpr int64_t kNsPerMs = 1'000'000;
constexpr int64_t kStartMs = 1'700'000'000'000;
constexpr int64_t kHourMs = 3'600'000;

class FakeClock : public Clock {
 public:
  int64_t MonotonicNs() override { return mono_ns; }
  int64_t WallMs() override { return wall_ms; }

  void AdvanceMs(int64_t ms) {
    mono_ns += ms * kNsPerMs;
    wall_ms += ms;
  }

  int64_t mono_ns = 123 * kNsPerMs;
  int64_t wall_ms = kStartMs;
};

TEST(EngineClockTest, StartsAtWallTimeWhenNothingIsStored) {
  FakeClock clock;
  EXPECT_EQ(EngineClock(&clock, 0).Read().engine_ms, kStartMs);
}

TEST(EngineClockTest, StartsAtStoredTimeWhenTheWallClockIsBehindIt) {
  FakeClock clock;
  EXPECT_EQ(EngineClock(&clock, kStartMs + kHourMs).Read().engine_ms, kStartMs + kHourMs);
}

TEST(EngineClockTest, FollowsMonotonicTimeWhenTheClocksAgree) {
  FakeClock clock;
  EngineClock engine(&clock, 0);
  clock.AdvanceMs(1234);
  const Now now = engine.Read();
  EXPECT_EQ(now.engine_ms, kStartMs + 1234);
  EXPECT_EQ(now.mono_ns, clock.mono_ns);
}

TEST(EngineClockTest, WallLeapForwardIsApproachedByAtMostATwentieth) {
  FakeClock clock;
  EngineClock engine(&clock, 0);
  clock.wall_ms += kHourMs;
  EXPECT_EQ(engine.Read().engine_ms, kStartMs);  // no time has passed
  clock.AdvanceMs(1000);
  EXPECT_EQ(engine.Read().engine_ms, kStartMs + 1050);
}

TEST(EngineClockTest, WallLeapBackSlowsEngineTimeButNeverTurnsIt) {
  FakeClock clock;
  EngineClock engine(&clock, 0);
  clock.wall_ms -= kHourMs;
  clock.AdvanceMs(1000);
  EXPECT_EQ(engine.Read().engine_ms, kStartMs + 950);
}

TEST(EngineClockTest, ReachesWallTimeAndStaysOnIt) {
  FakeClock clock;
  EngineClock engine(&clock, 0);
  clock.wall_ms += 100;
  for (int i = 0; i < 21; ++i) {
    clock.AdvanceMs(100);
    engine.Read();
  }
  EXPECT_EQ(engine.Read().engine_ms, clock.wall_ms);
  clock.AdvanceMs(100);
  EXPECT_EQ(engine.Read().engine_ms, clock.wall_ms);
}

TEST(EngineClockTest, NeverGoesBackOrLeapsUnderARestlessWallClock) {
  constexpr uint32_t kSeed = 20;
  std::mt19937 random(kSeed);
  FakeClock clock;
  EngineClock engine(&clock, 0);
  int64_t previous_ms = engine.Read().engine_ms;
  for (int i = 0; i < 10'000; ++i) {
    const int64_t step_ms = random() % 2000;
    clock.AdvanceMs(step_ms);
    clock.wall_ms += static_cast<int64_t>(random() % (2 * kHourMs)) - kHourMs;
    const int64_t now_ms = engine.Read().engine_ms;
    ASSERT_GE(now_ms, previous_ms);
    // A twentieth, and a millisecond for rounding.
    ASSERT_LE(now_ms - previous_ms, step_ms + step_ms / EngineClock::kSlewDivisor + 1);
    previous_ms = now_ms;
  }
}

TEST(SystemClockTest, MonotonicTimeDoesNotGoBack) {
  Clock* clock = Clock::System();
  const int64_t first_ns = clock->MonotonicNs();
  EXPECT_GE(clock->MonotonicNs(), first_ns);
  EXPECT_GT(clock->WallMs(), 1'600'000'000'000);
}

}  // namespace
}  // namespace sluice
