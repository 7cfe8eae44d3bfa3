// Load for benchmarks: each call runs one kind of work against one queue and returns when it is done.
//
// A failed call ends the process: a benchmark that lost messages has no figures.
#ifndef SLUICE_TESTS_BENCH_LOAD_LOAD_H_
#define SLUICE_TESTS_BENCH_LOAD_LOAD_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/time/time.h"

namespace sluice::bench {

struct Load {
  std::string address;
  std::string queue;
  int64_t messages = 0;
  size_t body_bytes = 0;
};

void MakeQueue(const std::string& address, const std::string& queue);

// One PublishStream in batches, with at most `window` messages unconfirmed.
void PublishStreamed(const Load& load, int64_t window, int batch);

// Subscribes with `credit` and acks all that comes in batches, until so many messages are acked.
void Drain(const Load& load, int credit,
           const std::function<void(int64_t acked)>& progress = nullptr);

}  // namespace sluice::bench

#endif  // SLUICE_TESTS_BENCH_LOAD_LOAD_H_
