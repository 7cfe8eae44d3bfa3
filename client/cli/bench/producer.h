// One producer, for producers.cc alone.
#ifndef SLUICE_CLIENT_CLI_BENCH_PRODUCER_H_
#define SLUICE_CLIENT_CLI_BENCH_PRODUCER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "client/cli/bench/body.h"
#include "client/cli/bench/pacer.h"
#include "client/cli/bench/producers.h"

namespace sluice::cli::bench {

// The common part: stamps, latencies, counts. Publish runs on the producer's thread; Confirmed may
// run on one other at a time.
class Producers::Producer {
 public:
  Producer(Run& run, const ProducersTarget& target, int index)
      : run_(run),
        target_(target),
        index_(index),
        bodies_(run.random(), static_cast<size_t>(run.options().size), index) {}
  virtual ~Producer() = default;

  // Publishes what `pacer` allows and waits for the outcome of all.
  virtual void Publish(const Phase& phase, Pacer& pacer) = 0;

  // Of the newest phase, once Publish returned.
  int64_t confirmed() const { return confirmed_; }
  int64_t last_confirmed_ns() const { return last_confirmed_ns_; }
  const LatencyHistogram& latency() const { return latency_; }
  void Reset() {
    confirmed_ = 0;
    last_confirmed_ns_ = 0;
    latency_.Clear();
  }

 protected:
  std::string NextBody(const Phase& phase, int64_t due_ns) {
    return bodies_.Make({.run = run_.id(),
                         .phase = phase.number,
                         .producer = static_cast<uint32_t>(index_),
                         .sequence = sequence_++,
                         .due_ns = due_ns});
  }

  void Confirmed(int64_t due_ns, int64_t now_ns) {
    latency_.Record(now_ns - due_ns);
    last_confirmed_ns_ = now_ns;
    confirmed_.fetch_add(1, std::memory_order_relaxed);
    run_.progress().Confirmed(1);
  }

  Run& run_;
  const ProducersTarget& target_;
  const int index_;

 private:
  BodyMaker bodies_;
  uint64_t sequence_ = 0;
  std::atomic<int64_t> confirmed_{0};
  int64_t last_confirmed_ns_ = 0;
  LatencyHistogram latency_;
};

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_PRODUCER_H_
