#include "client/cli/bench/steps.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/cli/bench/clock.h"

namespace sluice::cli::bench {
namespace {

constexpr double kNanosPerSecond = 1e9;

double SecondsBetween(int64_t begin_ns, int64_t end_ns) {
  return static_cast<double>(std::max<int64_t>(end_ns - begin_ns, 0)) / kNanosPerSecond;
}

}  // namespace

Published Fill(Run& run, Producers& producers, int64_t messages, const std::string& work) {
  run.progress().Begin(work);
  Phase phase = run.NewPhase();
  phase.count = messages;
  return producers.Publish(phase);
}

Row Drain(Run& run, const std::string& queue, Ledger& ledger, int64_t messages,
          absl::Duration seconds, const std::string& work) {
  run.progress().Begin(work);
  const int64_t before = ledger.acked();
  Consumers consumers(run, queue, ledger);
  consumers.Measure(Phase(), /*any_phase=*/true);
  const int64_t begun_ns = NowNs();
  consumers.Start();
  AwaitAcked(run, ledger, before + messages, seconds);
  Row row{.work = work,
          .messages = ledger.acked() - before,
          .seconds = SecondsBetween(begun_ns, ledger.last_ack_ns()),
          .latency_of = "delivery to confirmed ack"};
  row.latency = consumers.Stop().ack.Summary();
  return row;
}

std::vector<Row> Flow(Run& run, Producers& producers, const std::string& queue, Ledger& ledger,
                      const std::optional<Phase>& warm_up, const Phase& phase,
                      const std::string& work) {
  Consumers consumers(run, queue, ledger);
  consumers.Start();
  if (warm_up) {
    run.progress().Begin(absl::StrCat(work, ", warm-up"));
    const int64_t before = ledger.acked();
    const Published published = producers.Publish(*warm_up);
    AwaitAcked(run, ledger, before + published.messages);
  }
  run.progress().Begin(work);
  consumers.Measure(phase);
  const int64_t before = ledger.acked();
  Published published = producers.Publish(phase);
  AwaitAcked(run, ledger, before + published.messages);
  const int64_t acked = std::min(ledger.acked() - before, published.messages);
  const double seconds = SecondsBetween(published.begun_ns, ledger.last_ack_ns());
  const Delivered delivered = consumers.Stop();
  return {{.work = work,
           .messages = acked,
           .seconds = std::max(seconds, published.seconds()),
           .latency_of = "publish to delivery",
           .latency = delivered.delivery.Summary()},
          published.AsRow(absl::StrCat(work, ", publish")),
          {.work = absl::StrCat(work, ", ack"),
           .messages = acked,
           .seconds = seconds,
           .latency_of = "delivery to confirmed ack",
           .latency = delivered.ack.Summary()}};
}

absl::Status CountLeftOver(Run& run, Report& report) {
  const absl::StatusOr<int64_t> stored = run.queues().CountMessages();
  if (stored.ok()) report.left_over = *stored;
  return stored.status();
}

}  // namespace sluice::cli::bench
