#include "client/cli/bench/progress.h"

#include <unistd.h>

#include <iostream>

#include "absl/strings/str_cat.h"
#include "client/cli/bench/clock.h"
#include "client/cli/format.h"

namespace sluice::cli::bench {
namespace {

// Often enough to look alive.
constexpr std::chrono::milliseconds kShowEvery(500);
constexpr double kNanosPerSecond = 1e9;

}  // namespace

Progress::Progress() {
  if (::isatty(STDERR_FILENO) == 1) thread_ = std::thread([this] { Show(); });
}

Progress::~Progress() { End(); }

void Progress::Begin(const std::string& work) {
  std::lock_guard lock(mutex_);
  work_ = work;
  begun_ns_ = NowNs();
  confirmed_ = 0;
  acked_ = 0;
}

void Progress::End() {
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Progress::Show() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kShowEvery, [this] { return ended_; })) {
    if (work_.empty()) continue;
    const double seconds = static_cast<double>(NowNs() - begun_ns_) / kNanosPerSecond;
    std::string line = absl::StrCat("\r\033[K", work_);
    const auto add = [&](int64_t count, const char* what) {
      if (count == 0) return;
      const auto rate = static_cast<int64_t>(static_cast<double>(count) / seconds);
      absl::StrAppend(&line, ", ", HumanCount(count), " ", what, " (", HumanCount(rate), "/s)");
    };
    add(confirmed(), "confirmed");
    add(acked(), "acked");
    std::cerr << line << std::flush;
  }
  std::cerr << "\r\033[K" << std::flush;
}

}  // namespace sluice::cli::bench
