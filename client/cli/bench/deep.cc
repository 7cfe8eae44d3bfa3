// `sluice bench deep`: the same work on an empty queue and behind a deep backlog.
#include "absl/strings/str_cat.h"
#include "client/cli/bench/modes.h"
#include "client/cli/bench/steps.h"

namespace sluice::cli::bench {
namespace {

constexpr int64_t kCountDefault = 500'000;
// Depths that a ledger can tell apart, with what is published on top.
constexpr int64_t kDepthMax = int64_t{1} << 31;

struct Rates {
  Row publish;
  Row drain;
  Row flow;
};

// With `count` messages each. An empty queue is empty again after it; a deep one is less deep by
// what consumers took beyond that before they were stopped.
Rates MeasureAll(Run& run, Producers& producers, const std::string& queue, Ledger& ledger,
                 int64_t count, const std::string& where) {
  Rates rates;
  rates.publish = Fill(run, producers, count, absl::StrCat("publish ", where))
                      .AsRow(absl::StrCat("publish ", where));
  if (run.stopping()) return rates;
  rates.drain = Drain(run, queue, ledger, count, absl::InfiniteDuration(),
                      absl::StrCat("drain ", where));
  if (run.stopping()) return rates;
  Phase phase = run.NewPhase();
  phase.count = count;
  rates.flow = Flow(run, producers, queue, ledger, std::nullopt, phase,
                    absl::StrCat("flow ", where))[0];
  return rates;
}

double Of(const Row& deep, const Row& empty) {
  return deep.MessagesPerSecond() / std::max(empty.MessagesPerSecond(), 1.0);
}

absl::Status Measure(Run& run, Report& report) {
  const absl::StatusOr<std::string> queue = run.queues().Make();
  if (!queue.ok()) return queue.status();
  Producers producers(run, {.queue = *queue});
  Ledger ledger(run.id(), producers.count());
  report.producers = producers.count();
  report.consumers = run.options().consumers;
  const int64_t count = run.options().count;
  if (run.WantsWarmUp()) {
    MeasureAll(run, producers, *queue, ledger, run.WarmUpPhase().count, "to warm up");
  }
  const Rates empty = MeasureAll(run, producers, *queue, ledger, count, "on empty");
  if (!run.Check().ok()) return run.Check();
  const Row fill = Fill(run, producers, run.options().depth, "fill").AsRow("fill");
  if (!run.Check().ok()) return run.Check();
  const Rates deep = MeasureAll(run, producers, *queue, ledger, count, "at depth");
  if (!run.Check().ok()) return run.Check();
  report.rows = {deep.flow,   deep.publish,  deep.drain,  empty.flow,
                 empty.publish, empty.drain, fill};
  report.ratios = {{"publish_deep_to_empty", Of(deep.publish, empty.publish)},
                   {"drain_deep_to_empty", Of(deep.drain, empty.drain)},
                   {"flow_deep_to_empty", Of(deep.flow, empty.flow)}};
  if (const int64_t left = producers.confirmed() - ledger.acked(); left > 0) {
    report.rows.push_back(
        Drain(run, *queue, ledger, left, absl::InfiniteDuration(), "drain the rest"));
  }
  report.checked = ledger.figures();
  report.checked.published = producers.confirmed();
  return run.Check();
}

}  // namespace

void AddDeep(CLI::App& bench, Context& context) {
  auto options = std::make_shared<Options>();
  CLI::App* command = AddCommand(
      bench, context, "deep",
      "Publish, drain and flow --count messages on an empty queue, the same behind a backlog of "
      "--depth, then drain it all. The ratios tell what the depth costs.",
      "  sluice bench deep --depth 10000000 --size 100\n",
      [&context, options] {
        if (options->count == 0) options->count = kCountDefault;
        return Execute(context, *options, "deep", Measure);
      });
  command->add_option("--depth", options->depth, "Messages of the backlog")
      ->check(CLI::Range(int64_t{1}, kDepthMax))
      ->capture_default_str();
  AddLoadOptions(*command, options.get());
  AddProducerOptions(*command, options.get());
  AddConsumerOptions(*command, options.get());
}

}  // namespace sluice::cli::bench
