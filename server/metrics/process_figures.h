// What the operating system says about this process.
#ifndef SLUICE_SERVER_METRICS_PROCESS_FIGURES_H_
#define SLUICE_SERVER_METRICS_PROCESS_FIGURES_H_

#include <cstdint>

namespace sluice::metrics {

struct ProcessFigures {
  double cpu_seconds = 0;
  int64_t open_fds = 0;
  int64_t max_fds = 0;
  int64_t resident_bytes = 0;
  int64_t virtual_bytes = 0;
  int64_t threads = 0;
};

// Thread-safe. What cannot be read is 0.
ProcessFigures ReadProcessFigures();

}  // namespace sluice::metrics

#endif  // SLUICE_SERVER_METRICS_PROCESS_FIGURES_H_
