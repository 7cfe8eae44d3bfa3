// Decides by measurement how settled messages leave RocksDB (docs/adr/0001-deletion-strategy.md).
//
//   ack_set        messages are never deleted one by one. Acks persist a head and, above it, rows
//   of
//                  512 ack bits; a filter drops settled messages while a memtable is flushed, and a
//                  background thread drops whole files below the synced head.
//   single_delete  every ack writes a SingleDelete; a persisted head tells readers where to seek.
//
// Both run behind the same commit loop with the same RocksDB options, alternately, and the medians
// are printed as a markdown table. Each value also goes to stderr as it is measured.

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "rocksdb/statistics.h"
#include "store.h"
#include "strategy.h"

ABSL_FLAG(std::string, dir, "bench-deletion-strategy.tmp", "Scratch directory; erased.");
ABSL_FLAG(int, repeats, 3, "Runs of each scenario per strategy; the table shows medians.");
ABSL_FLAG(std::string, scenarios, "keep_up,drain,stragglers,restart", "Which scenarios to run.");
ABSL_FLAG(uint64_t, keep_up_small, 5'000'000, "Messages of 100 B in the keep-up scenario.");
ABSL_FLAG(uint64_t, keep_up_large, 2'000'000, "Messages of 1 KB in the keep-up scenario.");
ABSL_FLAG(uint64_t, backlog_small, 10'000'000, "Messages of 100 B in the drain scenario.");
ABSL_FLAG(uint64_t, backlog_large, 3'000'000, "Messages of 1 KB in the drain scenario.");
ABSL_FLAG(uint64_t, straggler_backlog, 1'000'000, "Messages of 1 KB in the straggler scenario.");
ABSL_FLAG(uint64_t, step_mib, 64, "Message bytes passed per DeleteFilesInRange call.");
ABSL_FLAG(std::string, flush_filter, "skip", "ack_set's filter at flush: skip, remove or none.");

namespace sluice::bench {
namespace {

constexpr uint64_t kMiB = 1 << 20;
// An ack batch may hold more than a publish batch, so that consumers catch up after a stall.
constexpr size_t kBatchAcksMax = 2 * kBatchMessages;
constexpr uint64_t kConsumerLag = 1'000;
constexpr uint64_t kStragglerEvery = 1'000;
constexpr size_t kPageMessages = 1'000;
constexpr size_t kFirstPageMessages = 200;
constexpr uint64_t kSmallBody = 100;
constexpr uint64_t kLargeBody = 1'024;

// Metric -> strategy -> one value per repeat; metrics print in the order of their first value.
class Report {
 public:
  void Add(const std::string& metric, const std::string& strategy, double value) {
    if (samples_[metric].empty()) order_.push_back(metric);
    samples_[metric][strategy].push_back(value);
  }

  void Print() {
    absl::PrintF("| measured | ack_set | single_delete | ack_set / single_delete |\n");
    absl::PrintF("|---|---:|---:|---:|\n");
    for (const std::string& metric : order_) {
      const double ack_set = Median(samples_[metric]["ack_set"]);
      const double single_delete = Median(samples_[metric]["single_delete"]);
      absl::PrintF("| %s | %.5g | %.5g | %s |\n", metric, ack_set, single_delete,
                   single_delete == 0 ? "-" : absl::StrFormat("%.2f", ack_set / single_delete));
    }
  }

 private:
  static double Median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    return (values[values.size() / 2] + values[(values.size() - 1) / 2]) / 2;
  }

  std::vector<std::string> order_;
  std::map<std::string, std::map<std::string, std::vector<double>>> samples_;
};

// One run of one scenario: what it writes to disk and how much CPU it takes.
class Run {
 public:
  Run(Report* report, std::string scenario, std::string strategy)
      : report_(report), scenario_(std::move(scenario)), strategy_(std::move(strategy)) {
    std::filesystem::remove_all(absl::GetFlag(FLAGS_dir));
    write_bytes_ = ProcessWriteBytes();
    cpu_s_ = CpuSeconds();
  }

  ~Run() { std::filesystem::remove_all(absl::GetFlag(FLAGS_dir)); }

  std::unique_ptr<Store> Open(uint64_t body_bytes, uint64_t memtable_bytes = kMemtableBytes) {
    return std::make_unique<Store>(
        MakeStrategy(strategy_, {.step_messages = absl::GetFlag(FLAGS_step_mib) * kMiB / body_bytes,
                                 .flush_filter = absl::GetFlag(FLAGS_flush_filter)}),
        StoreOptions{.dir = absl::GetFlag(FLAGS_dir),
                     .body_bytes = body_bytes,
                     .memtable_bytes = memtable_bytes,
                     .statistics = statistics_});
  }

  void Add(const std::string& metric, double value) {
    absl::FPrintF(stderr, "%-13s %s: %s = %.5g\n", strategy_, scenario_, metric, value);
    report_->Add(scenario_ + ": " + metric, strategy_, value);
  }

  void AddWritten(double body_bytes) {
    const auto ticker = [&](rocksdb::Tickers name) {
      return statistics_->getTickerCount(name) / body_bytes;
    };
    Add("WAL bytes / body byte", ticker(rocksdb::WAL_FILE_BYTES));
    Add("flushed bytes / body byte", ticker(rocksdb::FLUSH_WRITE_BYTES));
    // Includes what opening flushes out of the WAL: RocksDB counts that as compaction.
    Add("compacted bytes / body byte", ticker(rocksdb::COMPACT_WRITE_BYTES));
    Add("process write_bytes / body byte", (ProcessWriteBytes() - write_bytes_) / body_bytes);
  }

  void AddCpu(double messages) {
    Add("CPU µs / message", (CpuSeconds() - cpu_s_) / messages * 1e6);
  }

  void AddLongestCommit(Store& store) {
    Add("longest commit ms", store.commit().longest_stall_s() * 1e3);
  }

  void AddLongestReclaimStep(Store& store) {
    Add("longest reclaim step ms", store.strategy().LongestReclaimStepSeconds() * 1e3);
  }

  void Settle(Store& store) {
    const auto start = Clock::now();
    store.FlushAndSettle();
    Add("settle s", SecondsSince(start));
    Add("disk MiB settled", store.DiskMiB());
    AddLongestReclaimStep(store);
  }

 private:
  static double ProcessWriteBytes() {
    std::ifstream io("/proc/self/io");
    std::string name;
    for (double value; io >> name >> value;) {
      if (name == "write_bytes:") return value;
    }
    return 0;
  }

  static double CpuSeconds() {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
           (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  }

  Report* const report_;
  const std::string scenario_;
  const std::string strategy_;
  const std::shared_ptr<rocksdb::Statistics> statistics_ = rocksdb::CreateDBStatistics();
  double write_bytes_ = 0;
  double cpu_s_ = 0;
};

std::string Label(const std::string& scenario, uint64_t body_bytes) {
  return absl::StrFormat("%s %d B", scenario, body_bytes);
}

void KeepUp(Report* report, const std::string& strategy, uint64_t messages, uint64_t body_bytes) {
  Run run(report, Label("keep-up", body_bytes), strategy);
  const auto store = run.Open(body_bytes);
  const auto start = Clock::now();
  uint64_t acked = 0;
  for (uint64_t seq = 0; seq < messages; seq += kBatchMessages) {
    std::vector<uint64_t> acks;
    while (acked + kConsumerLag < store->commit().durable_end() && acks.size() < kBatchAcksMax) {
      acks.push_back(acked++);
    }
    store->Submit(seq, seq + kBatchMessages, std::move(acks));
  }
  store->commit().Drain();
  run.Add("messages/s", messages / SecondsSince(start));
  run.AddCpu(messages);
  run.AddWritten(static_cast<double>(messages * body_bytes));
  run.AddLongestCommit(*store);
  run.Add("disk MiB at the end", store->DiskMiB());
  run.AddLongestReclaimStep(*store);
}

// Reads in order and acks all that `keep` does not hold back; returns how many were read.
uint64_t DrainUpTo(Store& store, uint64_t published, uint64_t end, uint64_t* cursor,
                   const std::function<bool(uint64_t)>& keep) {
  uint64_t read = 0;
  while (*cursor < end) {
    const std::vector<uint64_t> page =
        store.ReadPage(std::min<uint64_t>(kPageMessages, end - *cursor), cursor);
    if (page.empty()) break;
    read += page.size();
    for (size_t from = 0; from < page.size(); from += kBatchMessages) {
      std::vector<uint64_t> acks;
      for (size_t i = from; i < std::min(page.size(), from + kBatchMessages); ++i) {
        if (!keep(page[i])) acks.push_back(page[i]);
      }
      store.Submit(published, published, std::move(acks));
    }
  }
  store.commit().Drain();
  return read;
}

double FirstPageMs(Store& store, uint64_t expected_first) {
  const auto start = Clock::now();
  uint64_t cursor = 0;
  const std::vector<uint64_t> page = store.ReadPage(kFirstPageMessages, &cursor);
  const double elapsed_ms = SecondsSince(start) * 1e3;
  Require(!page.empty() && page.front() == expected_first, "the first page starts elsewhere");
  return elapsed_ms;
}

void DrainBacklog(Report* report, const std::string& strategy, uint64_t messages,
                  uint64_t body_bytes) {
  Run run(report, Label("drain", body_bytes), strategy);
  const auto keep_none = [](uint64_t) { return false; };
  auto store = run.Open(body_bytes);
  auto start = Clock::now();
  store->Publish(0, messages);
  run.Add("publish messages/s", messages / SecondsSince(start));
  run.Add("disk MiB published", store->DiskMiB());
  uint64_t cursor = 0;
  start = Clock::now();
  uint64_t read = DrainUpTo(*store, messages, messages / 2, &cursor, keep_none);
  double drain_s = SecondsSince(start);
  store.reset();
  start = Clock::now();
  store = run.Open(body_bytes);
  run.Add("reopen ms, half drained", SecondsSince(start) * 1e3);
  run.Add("first page ms, half drained", FirstPageMs(*store, messages / 2));
  start = Clock::now();
  read += DrainUpTo(*store, messages, messages, &cursor, keep_none);
  drain_s += SecondsSince(start);
  Require(read == messages, "messages were lost or came twice");
  run.Add("drain messages/s", messages / drain_s);
  run.AddCpu(messages);
  run.Add("disk MiB right after", store->DiskMiB());
  run.AddLongestCommit(*store);
  run.Settle(*store);
  run.AddWritten(static_cast<double>(messages * body_bytes));
  cursor = 0;
  Require(store->ReadPage(1, &cursor).empty(), "a settled message came back");
}

void Stragglers(Report* report, const std::string& strategy, uint64_t messages) {
  Run run(report, Label("stragglers", kLargeBody), strategy);
  const auto keep = [](uint64_t seq) { return seq % kStragglerEvery == 0; };
  const auto store = run.Open(kLargeBody);
  store->Publish(0, messages);
  uint64_t cursor = 0;
  auto start = Clock::now();
  DrainUpTo(*store, messages, messages, &cursor, keep);
  run.Add("drain messages/s", messages / SecondsSince(start));
  run.Add("disk MiB, stragglers left", store->DiskMiB());
  run.Add("first page ms, stragglers left", FirstPageMs(*store, 0));
  start = Clock::now();
  store->FlushAndSettle();
  run.Add("settle s, stragglers left", SecondsSince(start));
  run.Add("disk MiB settled, stragglers left", store->DiskMiB());
  run.Add("first page ms settled, stragglers left", FirstPageMs(*store, 0));
  std::vector<uint64_t> stragglers;
  cursor = 0;
  for (std::vector<uint64_t> page; !(page = store->ReadPage(kPageMessages, &cursor)).empty();) {
    stragglers.insert(stragglers.end(), page.begin(), page.end());
  }
  Require(stragglers.size() == (messages + kStragglerEvery - 1) / kStragglerEvery,
          "stragglers were lost");
  std::shuffle(stragglers.begin(), stragglers.end(), std::mt19937_64(1));
  for (size_t from = 0; from < stragglers.size(); from += kBatchMessages) {
    const size_t to = std::min(stragglers.size(), from + kBatchMessages);
    store->Submit(messages, messages, {stragglers.begin() + from, stragglers.begin() + to});
  }
  store->commit().Drain();
  run.AddLongestCommit(*store);
  run.Settle(*store);
  run.AddWritten(static_cast<double>(messages * kLargeBody));
}

// A crash with the WAL at its limit and nothing of it flushed. Closing does not flush either.
void Restart(Report* report, const std::string& strategy, uint64_t body_bytes) {
  Run run(report, Label("restart, full WAL", body_bytes), strategy);
  constexpr uint64_t kNeverFull = 4 * kWalBytesMax;
  const uint64_t messages =
      kWalBytesMax * 9 / 10 / (body_bytes + 2 * kMsgKeyBytes + 8) / kBatchMessages * kBatchMessages;
  auto store = run.Open(body_bytes, kNeverFull);
  store->Publish(0, messages / 2);
  for (uint64_t seq = messages / 2; seq < messages; seq += kBatchMessages) {
    std::vector<uint64_t> acks;
    const uint64_t first = seq - messages / 2;
    for (uint64_t ack = first; ack < first + kBatchMessages; ++ack) {
      if (ack < messages / 2) acks.push_back(ack);
    }
    store->Submit(seq, std::min(messages, seq + kBatchMessages), std::move(acks));
  }
  store->commit().Drain();
  store.reset();
  run.Add("messages in the WAL", messages);
  const auto start = Clock::now();
  store = run.Open(body_bytes);
  run.Add("open ms", SecondsSince(start) * 1e3);
  run.Add("first page ms", FirstPageMs(*store, messages / 2));
  run.Add("disk MiB after", store->DiskMiB());
}

void RunScenario(const std::string& scenario, const std::string& strategy, Report* report) {
  if (scenario == "keep_up") {
    KeepUp(report, strategy, absl::GetFlag(FLAGS_keep_up_large), kLargeBody);
    KeepUp(report, strategy, absl::GetFlag(FLAGS_keep_up_small), kSmallBody);
  } else if (scenario == "drain") {
    DrainBacklog(report, strategy, absl::GetFlag(FLAGS_backlog_large), kLargeBody);
    DrainBacklog(report, strategy, absl::GetFlag(FLAGS_backlog_small), kSmallBody);
  } else if (scenario == "stragglers") {
    Stragglers(report, strategy, absl::GetFlag(FLAGS_straggler_backlog));
  } else if (scenario == "restart") {
    Restart(report, strategy, kLargeBody);
    Restart(report, strategy, kSmallBody);
  } else {
    Require(false, "unknown scenario " + scenario);
  }
}

void RunAll() {
  const std::vector<std::string> scenarios = absl::StrSplit(absl::GetFlag(FLAGS_scenarios), ',');
  Report report;
  for (int repeat = 0; repeat < absl::GetFlag(FLAGS_repeats); ++repeat) {
    for (const std::string& scenario : scenarios) {
      // Who goes first alternates too: the disk and the neighbours are not the same a minute later.
      const bool ack_set_first = repeat % 2 == 0;
      RunScenario(scenario, ack_set_first ? "ack_set" : "single_delete", &report);
      RunScenario(scenario, ack_set_first ? "single_delete" : "ack_set", &report);
    }
  }
  report.Print();
}

}  // namespace
}  // namespace sluice::bench

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  sluice::bench::RunAll();
  return 0;
}
