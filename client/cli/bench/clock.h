// The one clock of a benchmark.
#ifndef SLUICE_CLIENT_CLI_BENCH_CLOCK_H_
#define SLUICE_CLIENT_CLI_BENCH_CLOCK_H_

#include <chrono>
#include <cstdint>

namespace sluice::cli::bench {

// Steady nanoseconds, comparable between the threads of this process only.
inline int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_CLOCK_H_
