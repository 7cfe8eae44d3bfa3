// `sluice bench drain`: consumers alone, on a backlog made before.
#include "client/cli/bench/modes.h"
#include "client/cli/bench/steps.h"

namespace sluice::cli::bench {
namespace {

constexpr int64_t kCountDefault = 1'000'000;

absl::Status Measure(Run& run, Report& report) {
  const absl::StatusOr<std::string> queue = run.queues().Make();
  if (!queue.ok()) return queue.status();
  Producers producers(run, {.queue = *queue});
  Ledger ledger(run.id(), producers.count());
  report.consumers = run.options().consumers;
  const int64_t count = run.options().count;
  if (run.WantsWarmUp()) {
    const int64_t some = run.WarmUpPhase().count;
    Fill(run, producers, some, "warm-up, filling");
    Drain(run, *queue, ledger, some, absl::InfiniteDuration(), "warm-up");
  }
  Fill(run, producers, count, "filling");
  if (!run.Check().ok()) return run.Check();
  report.rows.push_back(Drain(run, *queue, ledger, count, run.options().seconds, "drain"));
  if (!run.Check().ok()) return run.Check();
  report.checked = ledger.figures();
  report.checked.published = producers.confirmed();
  return CountLeftOver(run, report);
}

}  // namespace

void AddDrain(CLI::App& bench, Context& context) {
  auto options = std::make_shared<Options>();
  CLI::App* command = AddCommand(
      bench, context, "drain",
      "Consume a backlog of --count messages, made before, and ack each. --seconds ends it early.",
      "  sluice bench drain --count 500000 --consumers 4\n"
      "  sluice bench drain --ack-batch 1 --seconds 10\n",
      [&context, options] {
        if (options->count == 0) options->count = kCountDefault;
        return Execute(context, *options, "drain", Measure);
      });
  AddLoadOptions(*command, options.get());
  AddSecondsOption(*command, options.get());
  AddConsumerOptions(*command, options.get());
}

}  // namespace sluice::cli::bench
