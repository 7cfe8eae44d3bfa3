// `sluice bench publish`: producers alone.
#include "client/cli/bench/modes.h"
#include "client/cli/bench/producers.h"
#include "client/cli/bench/steps.h"

namespace sluice::cli::bench {
namespace {

constexpr int64_t kCountDefault = 1'000'000;
constexpr int kInFlightMax = 100'000;

absl::Status Measure(Run& run, Report& report) {
  const absl::StatusOr<std::string> queue = run.queues().Make();
  if (!queue.ok()) return queue.status();
  Producers producers(run, {.queue = *queue});
  report.producers = producers.count();
  if (run.WantsWarmUp()) {
    run.progress().Begin("warm-up");
    producers.Publish(run.WarmUpPhase());
  }
  if (!run.Check().ok()) return run.Check();
  run.progress().Begin("publish");
  report.rows.push_back(producers.Publish(run.MeasuredPhase()).AsRow("publish"));
  if (!run.Check().ok()) return run.Check();
  report.checked.published = producers.confirmed();
  return CountLeftOver(run, report);
}

}  // namespace

void AddPublish(CLI::App& bench, Context& context) {
  auto options = std::make_shared<Options>();
  CLI::App* command = AddCommand(
      bench, context, "publish",
      "Publish and wait for the confirms: streamed, or with --unary in single calls. Each confirm "
      "means stored and synced.",
      "  sluice bench publish --window 10000 --count 2000000\n"
      "  sluice bench publish --unary --in-flight 200 --seconds 10\n"
      "  sluice bench publish --rate 5000/s --seconds 30 --size 100\n",
      [&context, options] {
        DefaultToCount(kCountDefault, options.get());
        return Execute(context, *options, "publish", Measure);
      });
  AddLoadOptions(*command, options.get());
  AddSecondsOption(*command, options.get());
  AddRateOption(*command, options.get());
  AddProducerOptions(*command, options.get());
  CLI::Option* unary = command->add_flag(
      "--unary", options->unary, "Make a call for each --batch instead of streaming");
  command->add_option("--in-flight", options->in_flight,
                      "With --unary: calls of each producer under way at a time")
      ->check(CLI::Range(1, kInFlightMax))
      ->needs(unary)
      ->capture_default_str();
}

}  // namespace sluice::cli::bench
