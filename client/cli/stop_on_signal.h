// Ctrl-C as a polite request to stop.
#ifndef SLUICE_CLIENT_CLI_STOP_ON_SIGNAL_H_
#define SLUICE_CLIENT_CLI_STOP_ON_SIGNAL_H_

#include <csignal>
#include <functional>
#include <thread>

namespace sluice::cli {

// Turns SIGINT and SIGTERM into one call of `stop`, on a thread of its own; a second signal ends
// the process at once. Must be made before any other thread, as threads inherit what is blocked.
class StopOnSignal {
 public:
  StopOnSignal();
  ~StopOnSignal();
  StopOnSignal(const StopOnSignal&) = delete;
  StopOnSignal& operator=(const StopOnSignal&) = delete;

  void Start(std::function<void()> stop);

 private:
  sigset_t signals_;
  std::thread thread_;
};

}  // namespace sluice::cli

#endif  // SLUICE_CLIENT_CLI_STOP_ON_SIGNAL_H_
