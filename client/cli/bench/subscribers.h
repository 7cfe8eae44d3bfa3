// Very many subscriptions, without threads of their own.
#ifndef SLUICE_CLIENT_CLI_BENCH_SUBSCRIBERS_H_
#define SLUICE_CLIENT_CLI_BENCH_SUBSCRIBERS_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "client/cli/bench/histogram.h"
#include "client/cli/bench/ledger.h"
#include "client/cli/bench/run.h"
#include "client/cpp/settler.h"

namespace sluice::cli::bench {

// One queue's. All that they get is acked and noted in the ledger. An error fails the run. One
// thread calls.
class Subscribers {
 public:
  // `ledger` must outlive it.
  Subscribers(Run& run, const std::string& queue, Ledger& ledger);
  // Stops.
  ~Subscribers();
  Subscribers(const Subscribers&) = delete;
  Subscribers& operator=(const Subscribers&) = delete;

  // Subscribes, and waits until the server has answered all or the run is stopping.
  void Start();

  // Takes latencies and counts of that phase's messages, and of no others: before the first is
  // published.
  void Measure(const Phase& phase) { phase_ = phase.number; }

  // Lets acks out and ends all streams.
  void Stop();

  // After Stop, of the measured phase:
  LatencySummary latency() const;  // from when a message was due to its delivery
  // What the busiest got, for one message that the idlest got.
  double MaxToMin() const;

 private:
  class Subscriber;

  // From any of gRPC's threads:
  void Take(const v1::SubscribeResponse& response, Subscriber& subscriber);
  void Started();
  void Ended(const grpc::Status& status);

  Run& run_;
  Ledger& ledger_;
  const std::string queue_;
  std::vector<std::unique_ptr<client::Client>> clients_;
  client::Settler settler_;
  std::atomic<uint32_t> phase_{0};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  LatencyHistogram latency_;
  int64_t started_ = 0;
  int64_t live_ = 0;
  bool stopping_ = false;

  std::vector<std::unique_ptr<Subscriber>> subscribers_;
};

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_SUBSCRIBERS_H_
