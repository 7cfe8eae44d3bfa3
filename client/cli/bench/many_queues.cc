// `sluice bench many-queues`: publishing over many queues at random, and to one for comparison.
#include "client/cli/bench/modes.h"
#include "client/cli/bench/producers.h"
#include "client/cli/bench/steps.h"

namespace sluice::cli::bench {
namespace {

constexpr int64_t kCountDefault = 1'000'000;
// A server's bindings.
constexpr int kQueuesMax = 100'000;

Published PublishTo(Run& run, ProducersTarget target, const std::string& work, Report& report) {
  Producers producers(run, std::move(target));
  report.producers = producers.count();
  if (run.WantsWarmUp()) {
    run.progress().Begin(work + ", warm-up");
    producers.Publish(run.WarmUpPhase());
  }
  run.progress().Begin(work);
  Published published = producers.Publish(run.MeasuredPhase());
  report.checked.published += producers.confirmed();
  return published;
}

absl::Status Measure(Run& run, Report& report) {
  const absl::StatusOr<std::string> one = run.queues().Make("one");
  if (!one.ok()) return one.status();
  run.progress().Begin("making queues");
  const auto many = run.queues().MakeRouted(run.options().queues);
  if (!many.ok()) return many.status();
  const Row to_one = PublishTo(run, {.queue = *one}, "publish to one queue", report)
                         .AsRow("publish to one queue");
  if (!run.Check().ok()) return run.Check();
  const Row to_many =
      PublishTo(run, {.exchange = many->exchange, .routing_keys = many->queues},
                "publish to many queues", report)
          .AsRow("publish to many queues");
  report.rows = {to_many, to_one};
  if (!run.Check().ok()) return run.Check();
  report.ratios.push_back(
      {"many_to_one", to_many.MessagesPerSecond() / std::max(to_one.MessagesPerSecond(), 1.0)});
  return CountLeftOver(run, report);
}

}  // namespace

void AddManyQueues(CLI::App& bench, Context& context) {
  auto options = std::make_shared<Options>();
  CLI::App* command = AddCommand(
      bench, context, "many-queues",
      "Publish over --queues queues at random, through a direct exchange, and as much to one "
      "queue: many_to_one is the ratio of their rates.",
      "  sluice bench many-queues --queues 10000\n",
      [&context, options] {
        DefaultToCount(kCountDefault, options.get());
        return Execute(context, *options, "many-queues", Measure);
      });
  command->add_option("--queues", options->queues, "Queues to make")
      ->check(CLI::Range(1, kQueuesMax))
      ->capture_default_str();
  AddLoadOptions(*command, options.get());
  AddSecondsOption(*command, options.get());
  AddProducerOptions(*command, options.get());
}

}  // namespace sluice::cli::bench
