// The work itself, the same for every peer.
#ifndef SLUICE_TESTS_BENCH_PEERS_DRIVER_H_
#define SLUICE_TESTS_BENCH_PEERS_DRIVER_H_

#include <cstdint>

#include "client/cli/bench/histogram.h"
#include "tests/bench/peers/peer.h"

namespace sluice::peers {

struct Work {
  int64_t count = 0;  // messages
  double rate = 0;    // of all producers; 0: as fast as it goes
  int64_t size = 1024;
  int producers = 2;
  int consumers = 2;
};

struct Result {
  int64_t messages = 0;
  double seconds = 0;
  // From when a message was due to its delivery; of works that do both.
  cli::bench::LatencySummary latency;
};

// Each does a tenth of it first, not counted. Every message consumed is acked.
Result Publish(Peer& peer, const Work& work);
Result Drain(Peer& peer, const Work& work);  // of a backlog made before
Result Flow(Peer& peer, const Work& work);   // both at once, from the first publish to the last ack

}  // namespace sluice::peers

#endif  // SLUICE_TESTS_BENCH_PEERS_DRIVER_H_
