// `sluice bench many-consumers`: how fairly many consumers share a queue, or what idle ones cost.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/cli/bench/consumers.h"
#include "client/cli/bench/modes.h"
#include "client/cli/bench/producers.h"
#include "client/cli/bench/steps.h"
#include "client/cli/bench/subscribers.h"

namespace sluice::cli::bench {
namespace {

constexpr int64_t kCountDefault = 1'000'000;
constexpr int kConsumersDefault = 1000;
// Twice what a server takes by default.
constexpr int kConsumersMax = 100'000;
// The server's own: many consumers hold little each.
constexpr int kCreditDefault = 100;
constexpr double kIdleRateDefault = 2000;
constexpr absl::Duration kIdleSecondsDefault = absl::Seconds(10);
constexpr double kNanosPerSecond = 1e9;

// All subscriptions on one queue that is published to at the same time.
absl::Status MeasureActive(Run& run, Report& report) {
  const absl::StatusOr<std::string> queue = run.queues().Make();
  if (!queue.ok()) return queue.status();
  Producers producers(run, {.queue = *queue});
  Ledger ledger(run.id(), producers.count());
  Subscribers subscribers(run, *queue, ledger);
  report.producers = producers.count();
  report.consumers = run.options().consumers;
  run.progress().Begin("subscribing");
  subscribers.Start();
  if (run.WantsWarmUp()) {
    run.progress().Begin("warm-up");
    producers.Publish(run.WarmUpPhase());
    AwaitAcked(run, ledger, producers.confirmed());
  }
  run.progress().Begin("many consumers");
  const Phase phase = run.MeasuredPhase();
  subscribers.Measure(phase);
  const Published published = producers.Publish(phase);
  AwaitAcked(run, ledger, producers.confirmed());
  const double seconds =
      static_cast<double>(ledger.last_ack_ns() - published.begun_ns) / kNanosPerSecond;
  subscribers.Stop();
  report.rows = {{.work = "publish to ack",
                  .messages = published.messages,
                  .seconds = std::max(seconds, published.seconds()),
                  .latency_of = "publish to delivery",
                  .latency = subscribers.latency()},
                 published.AsRow("publish")};
  report.ratios = {{"busiest_to_idlest_consumer", subscribers.MaxToMin()}};
  report.checked = ledger.figures();
  report.checked.published = producers.confirmed();
  return run.Check();
}

// Publishing at a steady rate, first alone, then beside subscriptions to a queue that stays empty.
absl::Status MeasureIdle(Run& run, Report& report) {
  const absl::StatusOr<std::string> queue = run.queues().Make();
  if (!queue.ok()) return queue.status();
  const absl::StatusOr<std::string> empty = run.queues().Make("idle");
  if (!empty.ok()) return empty.status();
  Producers producers(run, {.queue = *queue});
  Ledger ledger(run.id(), 0);
  Subscribers subscribers(run, *empty, ledger);
  report.producers = producers.count();
  report.consumers = run.options().consumers;
  if (run.WantsWarmUp()) {
    run.progress().Begin("warm-up");
    producers.Publish(run.WarmUpPhase());
  }
  run.progress().Begin("publish alone");
  const Row alone = producers.Publish(run.MeasuredPhase()).AsRow("publish alone");
  run.progress().Begin("subscribing");
  subscribers.Start();
  if (!run.Check().ok()) return run.Check();
  run.progress().Begin("publish beside idle consumers");
  const Row beside = producers.Publish(run.MeasuredPhase()).AsRow("publish beside idle consumers");
  if (!run.Check().ok()) return run.Check();
  subscribers.Stop();
  report.rows = {beside, alone};
  report.ratios = {{"p99_beside_idle_to_alone",
                    beside.latency.p99 / std::max(alone.latency.p99, 1.0)}};
  report.checked = ledger.figures();
  report.checked.published = producers.confirmed();
  if (auto status = CountLeftOver(run, report); !status.ok()) return status;
  return run.Check();
}

int MeasureEither(Context& context, Options* options) {
  if (!options->idle) {
    DefaultToCount(kCountDefault, options);
    return Execute(context, *options, "many-consumers", MeasureActive);
  }
  if (options->rate == 0) options->rate = kIdleRateDefault;
  if (options->count == 0 && options->seconds == absl::InfiniteDuration()) {
    options->seconds = kIdleSecondsDefault;
  }
  return Execute(context, *options, "many-consumers", MeasureIdle);
}

}  // namespace

void AddManyConsumers(CLI::App& bench, Context& context) {
  auto options = std::make_shared<Options>();
  options->consumers = kConsumersDefault;
  options->credit = kCreditDefault;
  CLI::App* command = AddCommand(
      bench, context, "many-consumers",
      "Flow through many consumers of one queue: how evenly they share it. With --idle: publish at "
      "a --rate [2000/s] for --seconds [10s] without and with so many consumers of another, empty "
      "queue: what they cost.",
      "  sluice bench many-consumers --consumers 1000\n"
      "  sluice bench many-consumers --idle --consumers 10000\n",
      [&context, options] { return MeasureEither(context, options.get()); });
  command->add_flag("--idle", options->idle, "The consumers have nothing to do");
  AddLoadOptions(*command, options.get());
  AddSecondsOption(*command, options.get());
  AddRateOption(*command, options.get());
  AddProducerOptions(*command, options.get());
  command->add_option("--consumers,-c", options->consumers, "Consumers, 500 on each connection")
      ->check(CLI::Range(1, kConsumersMax))
      ->capture_default_str();
  AddCreditOptions(*command, options.get());
}

}  // namespace sluice::cli::bench
