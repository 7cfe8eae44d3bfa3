// The benchmarks, one file each: each adds its subcommand to `sluice bench`.
#ifndef SLUICE_CLIENT_CLI_BENCH_MODES_H_
#define SLUICE_CLIENT_CLI_BENCH_MODES_H_

#include "client/cli/context.h"

namespace sluice::cli::bench {

void AddPublish(CLI::App& bench, Context& context);
void AddDrain(CLI::App& bench, Context& context);
void AddFlow(CLI::App& bench, Context& context);
void AddPace(CLI::App& bench, Context& context);
void AddManyQueues(CLI::App& bench, Context& context);
void AddManyConsumers(CLI::App& bench, Context& context);
void AddDeep(CLI::App& bench, Context& context);

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_MODES_H_
