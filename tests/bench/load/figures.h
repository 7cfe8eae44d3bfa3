// What benchmarks tell of a server: memory, disk, latencies.
#ifndef SLUICE_TESTS_BENCH_LOAD_FIGURES_H_
#define SLUICE_TESTS_BENCH_LOAD_FIGURES_H_

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/support/server_process.h"

namespace sluice::bench {

// Ends the process: for what leaves a benchmark without figures.
[[noreturn]] void Die(const std::string& why);

// Unsettled messages of a queue in every state; -1 if it cannot be asked.
int64_t Depth(const std::string& address, const std::string& queue);
// Of all files in the data folder.
double DiskMiB(const testing::ServerProcess& server);
// A field of /proc/PID/status such as VmRSS.
double MemoryMiB(const testing::ServerProcess& server, const std::string& field);
// VmHWM counts from here on.
void ResetPeakMemory(const testing::ServerProcess& server);
// What the server has had written to the disk since it was started.
int64_t WrittenBytes(const testing::ServerProcess& server);

// Processor time of the server since it was started: a figure for machines that are shared.
absl::Duration CpuTime(const testing::ServerProcess& server);

template <typename Work>
absl::Duration Timed(Work work) {
  const absl::Time start = absl::Now();
  work();
  return absl::Now() - start;
}

// Any thread may add.
class Latencies {
 public:
  void Add(absl::Duration latency);
  size_t size() const;
  // The smallest value that `percent` of all are not above; zero if there are none.
  absl::Duration Percentile(double percent) const;
  // "| p50 | p99 | p99.9 | max |" in milliseconds, without the outer bars; empty cells if none.
  std::string Cells() const;

 private:
  mutable std::mutex mutex_;
  mutable std::vector<absl::Duration> values_;
  mutable bool sorted_ = true;
};

}  // namespace sluice::bench

#endif  // SLUICE_TESTS_BENCH_LOAD_FIGURES_H_
