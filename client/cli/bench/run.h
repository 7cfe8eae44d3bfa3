// One run of a benchmark: what its producers, consumers and mode share.
#ifndef SLUICE_CLIENT_CLI_BENCH_RUN_H_
#define SLUICE_CLIENT_CLI_BENCH_RUN_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/cli/bench/body.h"
#include "client/cli/bench/options.h"
#include "client/cli/bench/progress.h"
#include "client/cli/bench/queues.h"
#include "client/cli/bench/report.h"
#include "client/cli/context.h"

namespace sluice::cli::bench {

// A stretch of work. Its producers stop at whichever end comes first.
struct Phase {
  uint32_t number = 0;
  int64_t count = 0;  // messages of all producers; 0: no end
  absl::Duration seconds = absl::InfiniteDuration();
  double rate = 0;  // of all producers; 0: as fast as it goes
};

// Thread-safe but for queues().
class Run {
 public:
  Run(Context& context, const Options& options);

  const Options& options() const { return options_; }
  // Of the command line: for single calls.
  client::Client& client() { return context_.client(); }
  // One with a connection of its own.
  std::unique_ptr<client::Client> NewClient() const;
  // Nothing moved for this long: give up.
  absl::Duration patience() const { return context_.timeout; }

  Queues& queues() { return queues_; }
  Progress& progress() { return progress_; }
  const std::shared_ptr<const RandomBytes>& random() const { return random_; }
  // Stamped on this run's messages.
  uint64_t id() const { return id_; }

  // The user's wish to end, or an error: everything stops soon.
  void Stop() { stopping_ = true; }
  // Keeps the first error, and stops.
  void Fail(const absl::Status& status);
  bool stopping() const { return stopping_; }
  // OK while nothing failed.
  absl::Status status() const;
  // The same, and CANCELLED if stopped otherwise.
  absl::Status Check() const;

  // Numbers are unique in the run, so that messages tell which phase they are of.
  Phase NewPhase();
  // The one asked for, and what to do before it: the same for a while, not counted.
  Phase MeasuredPhase();
  Phase WarmUpPhase();
  bool WantsWarmUp() const { return options_.warmup > absl::ZeroDuration(); }

 private:
  Context& context_;
  const Options& options_;
  const uint64_t id_;
  const std::shared_ptr<const RandomBytes> random_;
  Queues queues_;
  Progress progress_;
  std::atomic<bool> stopping_{false};
  uint32_t phases_ = 0;

  mutable std::mutex mutex_;
  absl::Status status_;  // guarded by mutex_
};

// Waits until `done()`, for as long as `moved()` keeps changing and the run is not stopping. False:
// nothing moved for the run's patience, or it is stopping.
bool WaitWhileMoving(const Run& run, const std::function<bool()>& done,
                     const std::function<int64_t()>& moved);

// Fills in the report's rows, ratios and what was checked. An error ends the benchmark; what was
// measured before it is shown all the same.
using Mode = std::function<absl::Status(Run& run, Report& report)>;

// Runs a mode, prints its report, deletes its queues. The exit code.
int Execute(Context& context, const Options& options, const std::string& name, const Mode& mode);

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_RUN_H_
