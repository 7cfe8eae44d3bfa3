// The only place of the server that reads a clock.
#ifndef SLUICE_SERVER_BASE_CLOCK_H_
#define SLUICE_SERVER_BASE_CLOCK_H_

#include <cstdint>

namespace sluice {

// A source of time. Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // Nanoseconds since an arbitrary start; never goes back. For leases and waits.
  virtual int64_t MonotonicNs() = 0;
  // Milliseconds since 1970-01-01 UTC; may leap when an operator or NTP sets the clock.
  virtual int64_t WallMs() = 0;

  // The machine's clocks. Lives as long as the process.
  static Clock* System();
};

// One instant in both kinds of time, read once per engine turn.
struct Now {
  int64_t mono_ns = 0;    // leases, waits, idle timeouts
  int64_t engine_ms = 0;  // stamps that are stored or shown: publish time, due time, expiry
};

// Engine time: milliseconds since 1970 that follow the monotonic clock and are slewed towards wall
// time, so that they never go back and never leap, whatever happens to the wall clock.
// Not thread-safe: owned by one engine thread.
class EngineClock {
 public:
  // At most this share of elapsed time is added or taken to approach wall time (1/20 = 5 %).
  static constexpr int64_t kSlewDivisor = 20;

  // `stored_ms` is the last engine time found in the store (0: none). Engine time starts at the
  // later of it and wall time.
  EngineClock(Clock* clock, int64_t stored_ms);

  Now Read();

 private:
  Clock* const clock_;
  int64_t last_mono_ns_;
  int64_t engine_ns_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_BASE_CLOCK_H_
