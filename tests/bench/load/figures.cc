#include "tests/bench/load/figures.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/support/client.h"

namespace sluice::bench {
namespace {

constexpr double kMiB = 1 << 20;

std::string ProcPath(const testing::ServerProcess& server, const char* file) {
  return absl::StrCat("/proc/", server.pid(), "/", file);
}

}  // namespace

void Die(const std::string& why) {
  std::cerr << why << std::endl;
  std::_Exit(1);
}

int64_t Depth(const std::string& address, const std::string& queue) {
  testing::Client client(address);
  v1::GetQueueRequest request;
  request.set_queue(queue);
  v1::GetQueueResponse response;
  if (!testing::Call(client.admin, &v1::AdminService::Stub::GetQueue, request, &response).ok()) {
    return -1;
  }
  const v1::QueueStats& stats = response.queue().stats();
  return stats.ready() + stats.leased() + stats.delayed() + stats.blocked();
}

double DiskMiB(const testing::ServerProcess& server) {
  uintmax_t bytes = 0;
  std::error_code ignored;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(server.data_dir(), ignored)) {
    std::error_code gone;
    if (!entry.is_regular_file(gone)) continue;
    const uintmax_t size = entry.file_size(gone);
    if (!gone) bytes += size;
  }
  return static_cast<double>(bytes) / kMiB;
}

double MemoryMiB(const testing::ServerProcess& server, const std::string& field) {
  return static_cast<double>(server.MemoryBytes(field)) / kMiB;
}

void ResetPeakMemory(const testing::ServerProcess& server) {
  if (!server.running()) return;
  constexpr char kResetPeak[] = "5";  // proc(5)
  std::ofstream(ProcPath(server, "clear_refs")) << kResetPeak;
}

int64_t WrittenBytes(const testing::ServerProcess& server) {
  std::ifstream in(ProcPath(server, "io"));
  std::string name;
  int64_t value = 0;
  while (in >> name >> value) {
    if (name == "write_bytes:") return value;
  }
  return 0;
}

absl::Duration CpuTime(const testing::ServerProcess& server) {
  std::ifstream in(ProcPath(server, "stat"));
  std::string text;
  std::getline(in, text);
  // The name in brackets may hold anything; utime and stime are 11 fields further on.
  std::istringstream fields(text.substr(std::min(text.size(), text.rfind(')') + 1)));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  int64_t user = 0;
  int64_t system = 0;
  fields >> user >> system;
  return absl::Seconds(1) * (static_cast<double>(user + system) /
                             static_cast<double>(sysconf(_SC_CLK_TCK)));
}

void Latencies::Add(absl::Duration latency) {
  std::lock_guard lock(mutex_);
  values_.push_back(latency);
  sorted_ = false;
}

size_t Latencies::size() const {
  std::lock_guard lock(mutex_);
  return values_.size();
}

absl::Duration Latencies::Percentile(double percent) const {
  std::lock_guard lock(mutex_);
  if (values_.empty()) return absl::ZeroDuration();
  if (!sorted_) std::sort(values_.begin(), values_.end());
  sorted_ = true;
  const auto rank = static_cast<size_t>(std::ceil(percent / 100 * values_.size()));
  return values_[std::clamp<size_t>(rank, 1, values_.size()) - 1];
}

std::string Latencies::Cells() const {
  if (size() == 0) return " | | | ";
  const auto cell = [this](double percent) {
    const double ms = absl::ToDoubleMilliseconds(Percentile(percent));
    return absl::StrFormat(ms < 10 ? "%.2f" : "%.0f", ms);
  };
  return absl::StrCat(cell(50), " | ", cell(99), " | ", cell(99.9), " | ", cell(100));
}

}  // namespace sluice::bench
