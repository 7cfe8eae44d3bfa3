// Consumers that ack all they get and check it.
#ifndef SLUICE_CLIENT_CLI_BENCH_CONSUMERS_H_
#define SLUICE_CLIENT_CLI_BENCH_CONSUMERS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/cli/bench/histogram.h"
#include "client/cli/bench/ledger.h"
#include "client/cli/bench/run.h"

namespace sluice::cli::bench {

// What consumers took of one phase's messages.
struct Delivered {
  LatencyHistogram delivery;  // from when a message was due to its delivery
  LatencyHistogram ack;       // from a delivery to its confirmed ack
};

// Waits until the ledger has this many acked, for at most `seconds`. Fails the run if nothing comes
// for its patience.
void AwaitAcked(Run& run, const Ledger& ledger, int64_t total,
                absl::Duration seconds = absl::InfiniteDuration());

// Each consumer has its own connection and thread. An error fails the run. One thread calls.
class Consumers {
 public:
  // `ledger` must outlive it.
  Consumers(Run& run, const std::string& queue, Ledger& ledger);
  // Stops.
  ~Consumers();
  Consumers(const Consumers&) = delete;
  Consumers& operator=(const Consumers&) = delete;

  // Once.
  void Start();

  // Takes the latencies of that phase's messages, and of no others: before the first is published.
  // Deliveries of any phase count if `any_phase`: for backlogs, where only acks have a latency.
  void Measure(const Phase& phase, bool any_phase = false);

  // Lets acks out, gives the rest back and ends the threads. What was measured.
  Delivered Stop();

 private:
  class Consumer;

  std::vector<std::unique_ptr<Consumer>> consumers_;
};

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_CONSUMERS_H_
