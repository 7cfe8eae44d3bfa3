#include "server/base/clock.h"

#include <algorithm>
#include <chrono>

namespace sluice {
namespace {

constexpr int64_t kNsPerMs = 1'000'000;

class SystemClock : public Clock {
 public:
  int64_t MonotonicNs() override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  int64_t WallMs() override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
};

}  // namespace

Clock* Clock::System() {
  static SystemClock clock;
  return &clock;
}

EngineClock::EngineClock(Clock* clock, int64_t stored_ms)
    : clock_(clock),
      last_mono_ns_(clock->MonotonicNs()),
      engine_ns_(std::max(stored_ms, clock->WallMs()) * kNsPerMs) {}

Now EngineClock::Read() {
  const int64_t mono_ns = clock_->MonotonicNs();
  const int64_t elapsed_ns = std::max<int64_t>(0, mono_ns - last_mono_ns_);
  const int64_t off_ns = clock_->WallMs() * kNsPerMs - (engine_ns_ + elapsed_ns);
  const int64_t slew_max_ns = elapsed_ns / kSlewDivisor;
  engine_ns_ += elapsed_ns + std::clamp(off_ns, -slew_max_ns, slew_max_ns);
  last_mono_ns_ = mono_ns;
  return {mono_ns, engine_ns_ / kNsPerMs};
}

}  // namespace sluice
