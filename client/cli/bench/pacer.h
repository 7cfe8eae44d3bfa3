// Tells a producer when its next message is due, and waits for that.
#ifndef SLUICE_CLIENT_CLI_BENCH_PACER_H_
#define SLUICE_CLIENT_CLI_BENCH_PACER_H_

#include <cstdint>
#include <optional>

#include "client/cli/bench/run.h"
#include "client/cli/bench/schedule.h"

namespace sluice::cli::bench {

// Of one producer and phase; used by its thread only.
class Pacer {
 public:
  Pacer(const Run& run, const Phase& phase, int producers, int producer, int64_t begin_ns);

  // Waits until the next message is due, and says when that was: at a rate as scheduled, else now.
  // Nothing at the end of the phase or of the run.
  std::optional<int64_t> Next();

 private:
  void SleepUntil(int64_t due_ns) const;

  const Run& run_;
  const int64_t begin_ns_;
  const int64_t end_ns_;
  const int64_t count_;  // -1: no end
  const std::optional<RateSchedule> schedule_;
  int64_t next_ = 0;
};

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_PACER_H_
