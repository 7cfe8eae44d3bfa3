// Large numbers: a million delayed messages and retries, 100,000 groups, 10,000 queues and bindings,
// fan-outs to 100 queues. What they cost in memory and on disk, what they do to latencies and to the
// start of the server. Each work has its own server with default settings and prints a markdown
// table. Fails if a message is lost, early, or out of order.
//
//   bench_scale [--works delayed,retries,groups,queues,fan_out] [--scale 1.0] [--seed 1]
#include <cstdint>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "tests/bench/scale/bench.h"

ABSL_FLAG(std::vector<std::string>, works,
          std::vector<std::string>({"delayed", "retries", "groups", "queues", "fan_out"}),
          "which works to run, in this order");
ABSL_FLAG(double, scale, 1.0, "multiplies every count");
ABSL_FLAG(uint64_t, seed, 1, "of due times");

int main(int argc, char** argv) {
  using namespace sluice::bench;
  absl::ParseCommandLine(argc, argv);
  const std::map<std::string, void (*)(const ScaleOptions&)> works = {
      {"delayed", RunDelayed}, {"retries", RunRetries}, {"groups", RunGroups},
      {"queues", RunQueues},   {"fan_out", RunFanOut},
  };
  const ScaleOptions options{absl::GetFlag(FLAGS_scale), absl::GetFlag(FLAGS_seed)};
  std::cout << "scale " << options.scale << ", seed " << options.seed << "\n";
  for (const std::string& name : absl::GetFlag(FLAGS_works)) {
    const auto work = works.find(name);
    if (work == works.end()) Die(absl::StrCat("there is no work named '", name, "'"));
    work->second(options);
  }
  return AllChecksHeld() ? 0 : 1;
}
