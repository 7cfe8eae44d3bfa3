// Pieces of work that several benchmarks are made of.
#ifndef SLUICE_CLIENT_CLI_BENCH_STEPS_H_
#define SLUICE_CLIENT_CLI_BENCH_STEPS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/cli/bench/consumers.h"
#include "client/cli/bench/ledger.h"
#include "client/cli/bench/producers.h"
#include "client/cli/bench/report.h"
#include "client/cli/bench/run.h"

namespace sluice::cli::bench {

// Publishes so many as fast as it goes, and shows it as `work`.
Published Fill(Run& run, Producers& producers, int64_t messages, const std::string& work);

// New consumers take `messages` of what is in the queue, for at most `seconds`. Timed from their
// subscribing to the last ack.
Row Drain(Run& run, const std::string& queue, Ledger& ledger, int64_t messages,
          absl::Duration seconds, const std::string& work);

// Publishing and consuming at once, until so many are acked as were published; `warm_up` first, not
// counted. Rows: the whole, from the first publish to the last ack, with the latency from due to
// delivered; the publishing alone; the acks.
std::vector<Row> Flow(Run& run, Producers& producers, const std::string& queue, Ledger& ledger,
                      const std::optional<Phase>& warm_up, const Phase& phase,
                      const std::string& work);

// What the server still holds in the run's queues when all is done, into the report.
absl::Status CountLeftOver(Run& run, Report& report);

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_STEPS_H_
