#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "server/app.h"
#include "server/base/log.h"
#include "server/config/command_line.h"

namespace {

constexpr int kExitOk = 0;
constexpr int kExitCannotStart = 1;
constexpr int kExitBadSettings = 64;  // EX_USAGE
constexpr int kExitStopTimedOut = 75; // EX_TEMPFAIL

// Each connection and each file of the store takes one: the limit is as high as we are allowed to set
// it.
void RaiseFileLimit() {
  constexpr rlim_t kEnough = 65536;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < kEnough) {
    sluice::Log(sluice::LogLevel::kWarning, "few file descriptors allowed",
                {{"limit", limit.rlim_cur}, {"wanted", kEnough}});
  }
}

// Signals that stop the server are taken by WaitForStop alone, on the main thread. Before any
// thread is started, as threads inherit the mask.
sigset_t BlockStopSignals() {
  signal(SIGPIPE, SIG_IGN);  // a peer that has gone is an error of its write, not of the process
  sigset_t signals;
  sigemptyset(&signals);
  // The terminal of a server in the foreground was closed. Not if nohup has said that it may be.
  struct sigaction hang_up{};
  sigaction(SIGHUP, nullptr, &hang_up);
  if (hang_up.sa_handler != SIG_IGN) sigaddset(&signals, SIGHUP);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// A second signal, or a stop that hangs, ends the process without ceremony: what was answered is on
// disk already, only leases are not saved.
void GuardStop(sigset_t signals) {
  std::thread([signals] {
    const timespec limit{sluice::App::kStopMsMax / 1000, 0};
    const int signal = sigtimedwait(&signals, nullptr, &limit);
    sluice::Log(sluice::LogLevel::kWarning, "stopping at once",
                {{"why", signal > 0 ? "second signal" : "the stop took too long"}});
    sluice::FlushLog();
    _exit(kExitStopTimedOut);
  }).detach();
}

}  // namespace

int main(int argc, char** argv) {
  // Debian builds Abseil with its search for deadlocks on, which gRPC then pays for with every lock:
  // an eighth of the processor time of a unary call.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  const auto parsed = sluice::config::ParseCommandLine(
      std::vector<std::string>(argv + 1, argv + argc), sluice::config::ProcessEnvironment(),
      SLUICE_VERSION);
  if (!parsed.ok()) {
    std::fprintf(stderr, "sluiced: %s\n", std::string(parsed.status().message()).c_str());
    return kExitBadSettings;
  }
  if (parsed->text) {
    std::fputs(parsed->text->c_str(), stdout);
    return kExitOk;
  }
  const sluice::config::Settings& settings = parsed->settings;
  sluice::ConfigureLog(settings.log_level, settings.log_format);
  const sigset_t stop_signals = BlockStopSignals();
  RaiseFileLimit();

  auto app = sluice::App::Start(settings, SLUICE_VERSION);
  if (!app.ok()) {
    sluice::Log(sluice::LogLevel::kError, "cannot start",
                {{"why", std::string(app.status().message())}, {"data_dir", settings.data_dir}});
    return kExitCannotStart;
  }

  int signal = 0;
  sigwait(&stop_signals, &signal);
  GuardStop(stop_signals);
  sluice::Log(sluice::LogLevel::kInfo, "stopping",
              {{"signal", std::string("SIG") + sigabbrev_np(signal)}});
  (*app)->Stop();
  sluice::Log(sluice::LogLevel::kInfo, "stopped");
  sluice::FlushLog();
  return kExitOk;
}
