#include "client/cli/bench/pacer.h"

#include <sys/prctl.h>

#include <algorithm>
#include <limits>
#include <thread>

#include "client/cli/bench/clock.h"

namespace sluice::cli::bench {
namespace {

// A sleeping producer notices within this that the run was stopped.
constexpr int64_t kSleepNsMax = 100'000'000;
// How late Linux may wake us. Its default of 50 µs would count as latency.
constexpr unsigned long kTimerSlackNs = 1;

int64_t EndOf(int64_t begin_ns, absl::Duration seconds) {
  if (seconds == absl::InfiniteDuration()) return std::numeric_limits<int64_t>::max();
  return begin_ns + absl::ToInt64Nanoseconds(seconds);
}

std::optional<RateSchedule> ScheduleOf(double rate, int producers, int producer) {
  if (rate <= 0) return std::nullopt;
  return RateSchedule(rate, producers, producer);
}

}  // namespace

Pacer::Pacer(const Run& run, const Phase& phase, int producers, int producer, int64_t begin_ns)
    : run_(run),
      begin_ns_(begin_ns),
      end_ns_(EndOf(begin_ns, phase.seconds)),
      count_(phase.count == 0 ? -1 : ShareOf(phase.count, producers, producer)),
      schedule_(ScheduleOf(phase.rate, producers, producer)) {
  if (schedule_) prctl(PR_SET_TIMERSLACK, kTimerSlackNs);
}

std::optional<int64_t> Pacer::Next() {
  if (next_ == count_ || run_.stopping()) return std::nullopt;
  const int64_t due_ns = schedule_ ? begin_ns_ + schedule_->DueNs(next_) : NowNs();
  if (due_ns >= end_ns_) return std::nullopt;
  ++next_;
  if (!schedule_) return due_ns;
  SleepUntil(due_ns);
  if (run_.stopping()) return std::nullopt;
  return due_ns;
}

void Pacer::SleepUntil(int64_t due_ns) const {
  for (int64_t now = NowNs(); now < due_ns && !run_.stopping(); now = NowNs()) {
    std::this_thread::sleep_for(std::chrono::nanoseconds(std::min(due_ns - now, kSleepNsMax)));
  }
}

}  // namespace sluice::cli::bench
