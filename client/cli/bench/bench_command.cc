// `sluice bench`
#include "client/cli/bench/modes.h"
#include "client/cli/commands.h"

namespace sluice::cli {
namespace {

constexpr char kFooter[] =
    "A benchmark makes queues of its own on the server, named bench. and a random number, and\n"
    "deletes them at the end, also on Ctrl-C. It checks what it consumed: nothing lost, nothing\n"
    "twice. Latencies count from when a message was due at the asked --rate, however late it\n"
    "could be sent; without --rate, from when it was given to the client library.\n"
    "\n"
    "Examples:\n"
    "  sluice bench publish\n"
    "  sluice bench flow --seconds 30 --size 4KiB --producers 4 --consumers 4\n"
    "  sluice bench pace --rate 2000/s --seconds 60 --json\n";

}  // namespace

void AddBenchCommands(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand(
      "bench", "Measure how fast the server is: throughput and latency of several kinds of work");
  command->footer(kFooter);
  command->require_subcommand(1);
  bench::AddPublish(*command, context);
  bench::AddDrain(*command, context);
  bench::AddFlow(*command, context);
  bench::AddPace(*command, context);
  bench::AddManyQueues(*command, context);
  bench::AddManyConsumers(*command, context);
  bench::AddDeep(*command, context);
}

}  // namespace sluice::cli
