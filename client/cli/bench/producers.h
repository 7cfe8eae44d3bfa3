// Producers that publish random bodies, streamed or by unary calls, at a rate or at full speed.
#ifndef SLUICE_CLIENT_CLI_BENCH_PRODUCERS_H_
#define SLUICE_CLIENT_CLI_BENCH_PRODUCERS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client/cli/bench/histogram.h"
#include "client/cli/bench/run.h"

namespace sluice::cli::bench {

// What one phase came to.
struct Published {
  int64_t messages = 0;  // confirmed
  int64_t begun_ns = 0;
  int64_t ended_ns = 0;  // the last was confirmed
  LatencyHistogram latency;  // from when each was due, or else was given to Publish

  double seconds() const;
  Row AsRow(const std::string& work) const;
};

struct ProducersTarget {
  std::string queue = {};
  // Instead: an exchange, with a routing key at random from these for each message. Streamed only.
  std::string exchange = {};
  std::vector<std::string> routing_keys = {};
};

// Each producer has its own connection, thread and sequences from 0 over all phases. A publish that
// is not confirmed fails the run. One thread calls.
class Producers {
 public:
  Producers(Run& run, ProducersTarget target);
  ~Producers();
  Producers(const Producers&) = delete;
  Producers& operator=(const Producers&) = delete;

  // Publishes the phase and waits until all of it is confirmed, the run's patience is at an end or
  // it is stopped.
  Published Publish(const Phase& phase);

  int count() const { return static_cast<int>(producers_.size()); }
  // Confirmed over all phases.
  int64_t confirmed() const { return confirmed_; }

 private:
  class Producer;
  class StreamProducer;
  class UnaryProducer;

  Run& run_;
  const ProducersTarget target_;
  int64_t confirmed_ = 0;
  std::vector<std::unique_ptr<Producer>> producers_;
};

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_PRODUCERS_H_
