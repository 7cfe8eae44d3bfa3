#include "client/cli/bench/report.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/format.h"

namespace sluice::cli::bench {
namespace {

constexpr double kMicrosPerMilli = 1000;
constexpr double kBytesPerMiB = 1 << 20;

// Microseconds as milliseconds with three digits that count.
std::string Milliseconds(double us) {
  const double ms = us / kMicrosPerMilli;
  if (ms < 1) return absl::StrFormat("%.3f", ms);
  if (ms < 100) return absl::StrFormat("%.2f", ms);
  return absl::StrFormat("%.0f", ms);
}

std::vector<std::string> Cells(const Row& row, int64_t size) {
  const double rate = row.MessagesPerSecond();
  std::vector<std::string> cells = {
      row.work, HumanCount(row.messages), absl::StrFormat("%.2f", row.seconds),
      HumanCount(std::llround(rate)),
      absl::StrFormat("%.1f", rate * static_cast<double>(size) / kBytesPerMiB)};
  if (row.latency.count == 0) {
    cells.insert(cells.end(), {"-", "-", "-", "-", ""});
  } else {
    cells.insert(cells.end(), {Milliseconds(row.latency.p50), Milliseconds(row.latency.p99),
                               Milliseconds(row.latency.p999), Milliseconds(row.latency.max),
                               row.latency_of});
  }
  return cells;
}

std::string CheckedText(const Report& report) {
  if (!report.complete) return "not checked: it did not come to its end";
  const Consumed& checked = report.checked;
  std::string text = absl::StrCat("checked: ", HumanCount(checked.published), " confirmed");
  if (checked.consumed > 0 || report.left_over == 0) {
    absl::StrAppend(&text, ", ", HumanCount(checked.consumed), " consumed, ",
                    HumanCount(checked.acked), " acked");
  }
  if (report.left_over > 0) absl::StrAppend(&text, ", ", HumanCount(report.left_over), " stored");
  absl::StrAppend(&text, "; ", HumanCount(report.lost()), " lost, ",
                  HumanCount(checked.duplicates, "duplicate"));
  if (checked.redelivered > 0) {
    absl::StrAppend(&text, ", ", HumanCount(checked.redelivered), " redelivered and marked so");
  }
  if (checked.foreign > 0) absl::StrAppend(&text, ", ", HumanCount(checked.foreign), " foreign");
  return text;
}

// Finite and not exponential, as every JSON parser takes it.
std::string Number(double value) {
  return std::isfinite(value) ? absl::StrFormat("%.3f", value) : "0";
}

std::string LatencyJson(const LatencySummary& latency) {
  return absl::StrCat("{\"p50\":", Number(latency.p50), ",\"p90\":", Number(latency.p90),
                      ",\"p99\":", Number(latency.p99), ",\"p999\":", Number(latency.p999),
                      ",\"max\":", Number(latency.max), ",\"mean\":", Number(latency.mean),
                      ",\"count\":", latency.count, "}");
}

// Without its braces.
std::string RowJson(const Row& row) {
  return absl::StrCat("\"messages\":", row.messages, ",\"seconds\":", Number(row.seconds),
                      ",\"messages_per_second\":", Number(row.MessagesPerSecond()),
                      ",\"latency_of\":\"", row.latency_of,
                      "\",\"latency_us\":", LatencyJson(row.latency));
}

}  // namespace

double Row::MessagesPerSecond() const {
  return seconds > 0 ? static_cast<double>(messages) / seconds : 0;
}

int64_t Report::lost() const { return checked.published - checked.consumed - left_over; }

bool Report::sound() const {
  return lost() == 0 && checked.duplicates == 0 && checked.foreign == 0 &&
         checked.acked == checked.consumed;
}

std::string ToText(const Report& report) {
  std::vector<std::vector<std::string>> table = {{"WORK", ">MESSAGES", ">SECONDS", ">MESSAGES/S",
                                                  ">MiB/S", ">P50 MS", ">P99 MS", ">P99.9 MS",
                                                  ">MAX MS", "LATENCY OF"}};
  for (const Row& row : report.rows) table.push_back(Cells(row, report.size));
  std::string text = absl::StrCat(report.settings, "\n", Table(table));
  for (const Ratio& ratio : report.ratios) {
    absl::StrAppend(&text, ratio.name, ": ", absl::StrFormat("%.2f", ratio.value), "\n");
  }
  return absl::StrCat(text, CheckedText(report), "\n");
}

std::string ToJson(const Report& report) {
  const Consumed& checked = report.checked;
  const Row first = report.rows.empty() ? Row() : report.rows.front();
  const auto row = [](std::string* out, const Row& each) {
    absl::StrAppend(out, "{\"work\":\"", each.work, "\",", RowJson(each), "}");
  };
  const auto ratio = [](std::string* out, const Ratio& each) {
    absl::StrAppend(out, "\"", each.name, "\":", Number(each.value));
  };
  return absl::StrCat(
      "{\"bench\":\"", report.bench, "\",\"size\":", report.size,
      ",\"producers\":", report.producers, ",\"consumers\":", report.consumers, ",", RowJson(first),
      ",\"rows\":[", absl::StrJoin(report.rows, ",", row), "],\"ratios\":{",
      absl::StrJoin(report.ratios, ",", ratio), "},\"confirmed\":", checked.published,
      ",\"consumed\":", checked.consumed, ",\"acked\":", checked.acked,
      ",\"stored\":", report.left_over, ",\"lost\":", report.lost(),
      ",\"duplicates\":", checked.duplicates, ",\"redelivered\":", checked.redelivered,
      ",\"foreign\":", checked.foreign, ",\"complete\":", report.complete ? "true" : "false", "}");
}

}  // namespace sluice::cli::bench
