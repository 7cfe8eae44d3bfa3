// The figures of a benchmark, as a table for people or as JSON for scripts. Pure.
#ifndef SLUICE_CLIENT_CLI_BENCH_REPORT_H_
#define SLUICE_CLIENT_CLI_BENCH_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/cli/bench/histogram.h"
#include "client/cli/bench/ledger.h"

namespace sluice::cli::bench {

// One measurement.
struct Row {
  std::string work;  // "publish", "drain at depth", ...
  int64_t messages = 0;
  double seconds = 0;
  std::string latency_of = {};  // what the latency is from and to; empty: none was taken
  LatencySummary latency = {};

  double MessagesPerSecond() const;
};

// A figure that compares rows.
struct Ratio {
  std::string name;
  double value = 0;
};

struct Report {
  std::string bench;     // the mode
  std::string settings;  // for people, one line
  int64_t size = 0;
  int producers = 0;
  int consumers = 0;
  // The first row is what the benchmark is about.
  std::vector<Row> rows;
  std::vector<Ratio> ratios;
  // What was checked. Lost: published, and neither consumed nor left over.
  Consumed checked;
  int64_t left_over = 0;  // known to be in the queue still
  bool complete = false;  // ran to its end

  int64_t lost() const;
  // Nothing lost, duplicated or foreign, and all that was consumed was acked.
  bool sound() const;
};

// A row for each measurement, the ratios, and what was checked, in words.
std::string ToText(const Report& report);

// One line, without its end. The first row's `messages_per_second` and `latency_us` stand at the
// top as well as in `rows`.
std::string ToJson(const Report& report);

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_REPORT_H_
