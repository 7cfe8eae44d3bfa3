#include "server/metrics/process_figures.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <string>

namespace sluice::metrics {
namespace {

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

int64_t CountOpenFds() {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir("/proc/self/fd"), &closedir);
  if (!dir) return 0;
  int64_t entries = 0;
  while (readdir(dir.get()) != nullptr) ++entries;
  return entries - 3;  // ".", ".." and this reading's own
}

// A line like "Threads:\t12".
int64_t StatusNumber(const std::string& line, const char* name) {
  const std::string prefix = std::string(name) + ":";
  return line.compare(0, prefix.size(), prefix) == 0 ? std::stoll(line.substr(prefix.size())) : 0;
}

}  // namespace

ProcessFigures ReadProcessFigures() {
  ProcessFigures figures;
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) == 0) {
    figures.cpu_seconds = Seconds(usage.ru_utime) + Seconds(usage.ru_stime);
  }
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) figures.max_fds = static_cast<int64_t>(limit.rlim_cur);
  figures.open_fds = CountOpenFds();

  const int64_t page_bytes = sysconf(_SC_PAGESIZE);
  int64_t virtual_pages = 0;
  int64_t resident_pages = 0;
  if (std::ifstream statm("/proc/self/statm"); statm >> virtual_pages >> resident_pages) {
    figures.virtual_bytes = virtual_pages * page_bytes;
    figures.resident_bytes = resident_pages * page_bytes;
  }
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    figures.threads += StatusNumber(line, "Threads");
  }
  return figures;
}

}  // namespace sluice::metrics
