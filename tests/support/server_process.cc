#include "tests/support/server_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <fstream>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "server/base/check.h"
#include "tests/support/client.h"

namespace sluice::testing {
namespace {

// Enough of the log to see why a start failed, short enough to read in a test's output.
constexpr size_t kLogTailBytes = 4000;
// Between two looks at whether the server is up; bounds what a start costs a test.
constexpr absl::Duration kStartPollInterval = absl::Milliseconds(10);

// Below the ports that the kernel gives to outgoing connections, so that none of those takes a port
// between our look and the server's bind.
constexpr int kPortMin = 10'000;
constexpr int kPortMax = 32'000;

// A port that was free just now and is not `other`. Should another process take it before the
// server does, the start fails loudly.
int FreePort(int other = 0) {
  std::random_device random;
  std::uniform_int_distribution<int> ports(kPortMin, kPortMax);
  while (true) {
    const int port = ports(random);
    if (port == other) continue;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    SLUICE_CHECK(fd >= 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const bool is_free = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
    close(fd);
    if (is_free) return port;
  }
}

std::string ServerBinary() {
  if (const char* path = std::getenv("SLUICED_BIN")) return path;
  return SLUICED_PATH;
}

int ExitCode(int wait_status) {
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

}  // namespace

TempDir::TempDir() {
  const char* base = std::getenv("TMPDIR");
  path_ = absl::StrCat(base != nullptr ? base : "/tmp", "/sluice-test-XXXXXX");
  SLUICE_CHECK(mkdtemp(path_.data()) != nullptr);
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

ServerProcess::ServerProcess(std::vector<std::string> flags)
    : flags_(std::move(flags)),
      data_dir_(dir_.path() + "/data"),
      log_path_(dir_.path() + "/sluiced.log"),
      http_port_(FreePort()) {
  address_ = absl::StrCat("127.0.0.1:", FreePort(http_port_));
  http_address_ = absl::StrCat("127.0.0.1:", http_port_);
}

ServerProcess::~ServerProcess() { Kill(); }

absl::Status ServerProcess::Spawn() {
  SLUICE_CHECK(!running());
  std::vector<std::string> words = {ServerBinary()};
  const std::pair<std::string, std::string> defaults[] = {
      {"--listen", address_}, {"--http-listen", http_address_}, {"--data-dir", data_dir_}};
  for (const auto& [flag, value] : defaults) {
    if (std::find(flags_.begin(), flags_.end(), flag) == flags_.end()) {
      words.insert(words.end(), {flag, value});
    }
  }
  words.insert(words.end(), flags_.begin(), flags_.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  const int log = open(log_path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log < 0) return absl::ErrnoToStatus(errno, log_path_);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) {
    close(log);
    return absl::ErrnoToStatus(errno, "fork");
  }
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);  // the parent died before the line above
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
  close(log);
  pid_ = child;
  return absl::OkStatus();
}

absl::Status ServerProcess::Start() {
  if (absl::Status status = Spawn(); !status.ok()) return status;
  const absl::Time give_up = absl::Now() + kStartTimeout;
  while (absl::Now() < give_up) {
    if (absl::StatusOr<int> code = WaitForExit(kStartPollInterval); code.ok()) {
      return absl::FailedPreconditionError(
          absl::StrCat("sluiced exited with ", *code, " at start; its log ends:\n", EndOfLog()));
    }
    // A fresh channel each time: a kept one would back off after its first refused connection.
    absl::StatusOr<HealthStatus> health = CheckHealth(NewChannel(address_), "");
    if (health.ok() && *health == HealthStatus::kServing) return absl::OkStatus();
  }
  return absl::DeadlineExceededError(
      absl::StrCat("sluiced did not get ready; its log ends:\n", EndOfLog()));
}

void ServerProcess::Kill() {
  if (!running()) return;
  kill(pid_, SIGKILL);
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
}

void ServerProcess::SignalTerminate() {
  SLUICE_CHECK(running());
  kill(pid_, SIGTERM);
}

absl::StatusOr<int> ServerProcess::Terminate(absl::Duration timeout) {
  SignalTerminate();
  return WaitForExit(timeout);
}

absl::StatusOr<int> ServerProcess::WaitForExit(absl::Duration timeout) {
  SLUICE_CHECK(running());
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
  if (fd < 0) return absl::ErrnoToStatus(errno, "pidfd_open");
  pollfd entry{fd, POLLIN, 0};
  const absl::Time deadline = absl::Now() + timeout;
  int ready = 0;
  do {
    const absl::Duration left = std::max(absl::ZeroDuration(), deadline - absl::Now());
    ready = poll(&entry, 1, static_cast<int>(absl::ToInt64Milliseconds(left)));
  } while (ready < 0 && errno == EINTR);
  close(fd);
  if (ready == 0) return absl::DeadlineExceededError("sluiced still runs");
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return ExitCode(status);
}

std::string ServerProcess::Log() const {
  std::ifstream file(log_path_);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string ServerProcess::EndOfLog() const {
  std::string log = Log();
  return log.size() > kLogTailBytes ? log.substr(log.size() - kLogTailBytes) : log;
}

int64_t ServerProcess::MemoryBytes(const std::string& field) const {
  if (!running()) return 0;
  std::ifstream file(absl::StrCat("/proc/", pid_, "/status"));
  for (std::string line; std::getline(file, line);) {
    std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar(" \t:"), absl::SkipEmpty());
    int64_t kib = 0;
    if (words.size() >= 2 && words[0] == field && absl::SimpleAtoi(words[1], &kib)) {
      return kib * 1024;
    }
  }
  return 0;
}

}  // namespace sluice::testing
