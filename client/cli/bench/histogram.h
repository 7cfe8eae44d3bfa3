// Latencies, counted in buckets of constant relative width (as HDR histograms do).
#ifndef SLUICE_CLIENT_CLI_BENCH_HISTOGRAM_H_
#define SLUICE_CLIENT_CLI_BENCH_HISTOGRAM_H_

#include <cstdint>
#include <memory>

namespace sluice::cli::bench {

// In microseconds. A percentile is the upper end of its bucket: at most 0.5 % too high, never too
// low, and no higher than the maximum, which is exact.
struct LatencySummary {
  int64_t count = 0;
  double mean = 0;
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
  double p999 = 0;
  double max = 0;
};

// Holds 1 µs to 1 h at the same relative precision; below and above that, only counts, mean and
// maximum are exact. About 35 KiB whatever it has seen. Not thread-safe: one for each thread,
// merged at the end.
class LatencyHistogram {
 public:
  LatencyHistogram();
  ~LatencyHistogram();
  LatencyHistogram(LatencyHistogram&&) noexcept;
  LatencyHistogram& operator=(LatencyHistogram&&) noexcept;

  // Negative ones, of clocks read on two cores, count as zero.
  void Record(int64_t nanoseconds);
  void Merge(const LatencyHistogram& other);
  void Clear();

  LatencySummary Summary() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_HISTOGRAM_H_
