#include "client/cli/stop_on_signal.h"

#include <pthread.h>
#include <unistd.h>

#include <utility>

namespace sluice::cli {
namespace {

// Ends the thread that waits.
constexpr int kWake = SIGUSR1;
// What a shell reports of a process that a signal ended.
constexpr int kExitOfSignal = 128;

}  // namespace

StopOnSignal::StopOnSignal() {
  sigemptyset(&signals_);
  for (const int signal : {SIGINT, SIGTERM, kWake}) sigaddset(&signals_, signal);
  pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
}

StopOnSignal::~StopOnSignal() {
  if (!thread_.joinable()) return;
  pthread_kill(thread_.native_handle(), kWake);
  thread_.join();
}

void StopOnSignal::Start(std::function<void()> stop) {
  thread_ = std::thread([this, stop = std::move(stop)] {
    int signal = 0;
    for (int seen = 0; sigwait(&signals_, &signal) == 0 && signal != kWake; ++seen) {
      if (seen > 0) _exit(kExitOfSignal + signal);
      stop();
    }
  });
}

}  // namespace sluice::cli
