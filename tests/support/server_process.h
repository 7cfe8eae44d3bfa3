// A real `sluiced` as a child process, for tests that start, kill and restart it.
#ifndef SLUICE_TESTS_SUPPORT_SERVER_PROCESS_H_
#define SLUICE_TESTS_SUPPORT_SERVER_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace sluice::testing {

// A folder under $TMPDIR (else /tmp), removed with everything in it by the destructor.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Runs one server at a time on its own data folder and free loopback ports; both stay the same over
// restarts. The child is always ended and reaped: by the destructor at the latest, and by the
// kernel if this process dies first. What it logs goes to a file that outlives restarts.
//
// One thread only, and that thread must live as long as the server does (the kernel ends the child
// with the thread that started it).
class ServerProcess {
 public:
  // Long enough for a loaded machine; a start takes a fraction of a second.
  static constexpr absl::Duration kStartTimeout = absl::Seconds(30);

  // `flags` ("--name", "value", ...) join --listen, --http-listen and --data-dir at every start,
  // or take their place.
  explicit ServerProcess(std::vector<std::string> flags = {});
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  // Starts it and waits until its health service says SERVING. FAILED_PRECONDITION with the end of
  // the log if it exits before that; DEADLINE_EXCEEDED after kStartTimeout.
  absl::Status Start();
  // Starts it only: for servers that are expected to refuse.
  absl::Status Spawn();

  // SIGKILL, then reaps. Nothing if it does not run.
  void Kill();
  // SIGTERM, waits for the end: the exit code (128 + signal if a signal ended it).
  // DEADLINE_EXCEEDED if it takes longer; it then still runs.
  absl::StatusOr<int> Terminate(absl::Duration timeout = absl::Seconds(20));
  // Sends SIGTERM and returns at once.
  void SignalTerminate();
  // Waits for an end that something else causes.
  absl::StatusOr<int> WaitForExit(absl::Duration timeout);

  bool running() const { return pid_ > 0; }
  pid_t pid() const { return pid_; }
  const std::string& address() const { return address_; }
  int http_port() const { return http_port_; }
  const std::string& data_dir() const { return data_dir_; }
  void set_flags(std::vector<std::string> flags) { flags_ = std::move(flags); }

  // All that it logged, over all starts.
  std::string Log() const;
  // VmRSS, VmHWM and so on, in bytes; 0 if it does not run.
  int64_t MemoryBytes(const std::string& field) const;

 private:
  std::string EndOfLog() const;

  TempDir dir_;
  std::vector<std::string> flags_;
  std::string address_;
  std::string http_address_;
  std::string data_dir_;
  std::string log_path_;
  int http_port_ = 0;
  pid_t pid_ = -1;
};

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_SUPPORT_SERVER_PROCESS_H_
