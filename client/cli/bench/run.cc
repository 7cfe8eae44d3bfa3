#include "client/cli/bench/run.h"

#include <algorithm>
#include <iostream>
#include <optional>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "client/cli/bench/clock.h"
#include "client/cli/format.h"
#include "client/cli/stop_on_signal.h"

namespace sluice::cli::bench {
namespace {

// Of a count, what is done before it to warm up.
constexpr int64_t kWarmUpPart = 10;
// Between two looks at what others count.
constexpr std::chrono::milliseconds kLookEvery(2);

absl::Status Interrupted() { return absl::CancelledError("stopped before the end"); }

uint64_t RandomId() {
  std::random_device random;
  return uint64_t{random()} << 32 | random();
}

std::string Settings(const Options& options, const Report& report) {
  std::string text = absl::StrCat("sluice bench ", report.bench, ": bodies of ",
                                  HumanBytes(options.size));
  if (report.producers > 0) absl::StrAppend(&text, ", ", HumanCount(report.producers, "producer"));
  if (options.unary && report.producers > 0) {
    absl::StrAppend(&text, " (", HumanCount(options.in_flight, "call"), " in flight each)");
  } else if (report.producers > 0) {
    absl::StrAppend(&text, " (window ", HumanCount(options.window), " each)");
  }
  if (report.consumers > 0) {
    absl::StrAppend(&text, ", ", HumanCount(report.consumers, "consumer"), " (credit ",
                    HumanCount(options.credit), " each)");
  }
  if (options.rate > 0) {
    absl::StrAppend(&text, ", ", HumanCount(static_cast<int64_t>(options.rate)), "/s");
  }
  return text;
}

int Print(const Context& context, const absl::Status& status, const Report& report) {
  if (!report.rows.empty()) {
    std::cout << (context.json ? ToJson(report) + "\n" : ToText(report)) << std::flush;
  }
  if (status == Interrupted()) {
    std::cerr << "sluice: " << status.message() << "\n";
    return kExitRefused;
  }
  if (!status.ok()) return context.Fail(status);
  if (!report.sound()) {
    std::cerr << "sluice: messages were lost, duplicated or not acked: see the figures\n";
    return kExitRefused;
  }
  return kExitOk;
}

}  // namespace

Run::Run(Context& context, const Options& options)
    : context_(context),
      options_(options),
      id_(RandomId()),
      random_(std::make_shared<RandomBytes>(static_cast<size_t>(options.size))),
      queues_(context.client(), options.queue, options.keep) {}

std::unique_ptr<client::Client> Run::NewClient() const {
  return std::make_unique<client::Client>(client::ClientOptions{
      .address = context_.server, .timeout = context_.timeout, .own_connection = true});
}

void Run::Fail(const absl::Status& status) {
  std::lock_guard lock(mutex_);
  status_.Update(status);
  stopping_ = true;
}

absl::Status Run::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

absl::Status Run::Check() const {
  absl::Status status = this->status();
  return status.ok() && stopping_ ? Interrupted() : status;
}

Phase Run::NewPhase() { return {.number = ++phases_}; }

Phase Run::MeasuredPhase() {
  Phase phase = NewPhase();
  phase.count = options_.count;
  phase.seconds = options_.seconds;
  phase.rate = options_.rate;
  return phase;
}

Phase Run::WarmUpPhase() {
  Phase phase = NewPhase();
  if (options_.count > 0) phase.count = std::max<int64_t>(options_.count / kWarmUpPart, 1);
  phase.seconds = options_.warmup;
  phase.rate = options_.rate;
  return phase;
}

bool WaitWhileMoving(const Run& run, const std::function<bool()>& done,
                     const std::function<int64_t()>& moved) {
  int64_t last = -1;
  int64_t last_ns = NowNs();
  while (!done()) {
    if (run.stopping()) return false;
    const int64_t now = NowNs();
    if (const int64_t here = moved(); here != last) {
      last = here;
      last_ns = now;
    }
    if (now - last_ns > absl::ToInt64Nanoseconds(run.patience())) return false;
    std::this_thread::sleep_for(kLookEvery);
  }
  return true;
}

int Execute(Context& context, const Options& options, const std::string& name, const Mode& mode) {
  // Made before any thread, and gone before what it stops.
  std::optional<StopOnSignal> signals(std::in_place);
  Run run(context, options);
  signals->Start([&run] { run.Stop(); });
  Report report;
  report.bench = name;
  report.size = options.size;
  absl::Status status = mode(run, report);
  run.progress().End();
  report.complete = status.ok();
  report.settings = Settings(options, report);
  const int exit_code = Print(context, status, report);
  const absl::Status deleted = run.queues().DeleteAll();
  signals.reset();
  if (deleted.ok()) return exit_code;
  std::cerr << "sluice: could not delete the queues " << run.queues().name() << "*\n";
  return exit_code == kExitOk ? context.Fail(deleted) : exit_code;
}

}  // namespace sluice::cli::bench
