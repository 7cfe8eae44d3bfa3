// What a benchmark is asked to do.
#ifndef SLUICE_CLIENT_CLI_BENCH_OPTIONS_H_
#define SLUICE_CLIENT_CLI_BENCH_OPTIONS_H_

#include <cstdint>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/time/time.h"

namespace sluice::cli::bench {

// The defaults are those of the figures in docs/benchmarks.md.
struct Options {
  // Load. Unless both are given a run ends by the one that is; by what comes first otherwise.
  int64_t count = 0;  // messages in all; 0: as --seconds says
  absl::Duration seconds = absl::InfiniteDuration();
  int64_t size = 1024;  // bytes of each body
  double rate = 0;      // messages per second in all; 0: as fast as it goes
  absl::Duration warmup = absl::Seconds(1);
  std::string queue;  // empty: bench. and a random number
  bool keep = false;

  // Producers.
  int producers = 2;
  int window = 1000;  // unconfirmed, of each producer
  int batch = 0;      // messages of one request at most; 0: 1,000 streamed, 1 unary
  bool unary = false;
  int in_flight = 200;  // unary calls of each producer

  // Consumers.
  int consumers = 2;
  int credit = 10'000;  // unsettled, of each consumer
  int ack_batch = 1000;

  // Of single modes.
  int queues = 1000;
  bool idle = false;
  int64_t depth = 1'000'000;
};

// Each adds some options, which set `options`; it must live until the command ran.
void AddLoadOptions(CLI::App& app, Options* options);
void AddSecondsOption(CLI::App& app, Options* options);
void AddRateOption(CLI::App& app, Options* options);
void AddProducerOptions(CLI::App& app, Options* options);
void AddConsumerOptions(CLI::App& app, Options* options);
// Those of AddConsumerOptions without --consumers.
void AddCreditOptions(CLI::App& app, Options* options);

// Gives the run an end: `count` where neither count nor seconds was asked for.
void DefaultToCount(int64_t count, Options* options);

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_OPTIONS_H_
