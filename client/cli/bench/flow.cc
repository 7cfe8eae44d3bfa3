// `sluice bench flow` and `sluice bench pace`: producers and consumers at once.
#include "client/cli/bench/modes.h"
#include "client/cli/bench/steps.h"

namespace sluice::cli::bench {
namespace {

constexpr int64_t kFlowCountDefault = 1'000'000;
constexpr double kPaceDefault = 2000;
// Long enough for the server's flushes to be in it.
constexpr absl::Duration kPaceSecondsDefault = absl::Seconds(60);

absl::Status Measure(Run& run, const std::string& work, Report& report) {
  const absl::StatusOr<std::string> queue = run.queues().Make();
  if (!queue.ok()) return queue.status();
  Producers producers(run, {.queue = *queue});
  Ledger ledger(run.id(), producers.count());
  report.producers = producers.count();
  report.consumers = run.options().consumers;
  std::optional<Phase> warm_up;
  if (run.WantsWarmUp()) warm_up = run.WarmUpPhase();
  report.rows = Flow(run, producers, *queue, ledger, warm_up, run.MeasuredPhase(), work);
  report.checked = ledger.figures();
  report.checked.published = producers.confirmed();
  return run.Check();
}

void AddMode(CLI::App& bench, Context& context, const std::string& name, const std::string& help,
             const std::string& examples, std::function<void(Options*)> set_defaults) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      AddCommand(bench, context, name, help, examples, [&context, options, name, set_defaults] {
        set_defaults(options.get());
        return Execute(context, *options, name, [&name](Run& run, Report& report) {
          return Measure(run, name, report);
        });
      });
  AddLoadOptions(*command, options.get());
  AddSecondsOption(*command, options.get());
  AddRateOption(*command, options.get());
  AddProducerOptions(*command, options.get());
  AddConsumerOptions(*command, options.get());
}

}  // namespace

void AddFlow(CLI::App& bench, Context& context) {
  AddMode(bench, context, "flow",
          "Publish and consume at once, each message acked. The rate is that of the slower side: "
          "from the first publish to the last ack.",
          "  sluice bench flow\n"
          "  sluice bench flow --producers 4 --consumers 8 --seconds 30\n",
          [](Options* options) { DefaultToCount(kFlowCountDefault, options); });
}

void AddPace(CLI::App& bench, Context& context) {
  AddMode(bench, context, "pace",
          "Publish at a steady --rate [2000/s], for --seconds [60s] unless --count is given, and "
          "consume: the latency from when a message was due to its delivery.",
          "  sluice bench pace\n"
          "  sluice bench pace --rate 10000/s --seconds 30 --producers 1 --consumers 1\n",
          [](Options* options) {
            if (options->rate == 0) options->rate = kPaceDefault;
            if (options->count == 0 && options->seconds == absl::InfiniteDuration()) {
              options->seconds = kPaceSecondsDefault;
            }
          });
}

}  // namespace sluice::cli::bench
