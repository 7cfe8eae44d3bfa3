#include "client/cli/shell.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"

extern char** environ;

namespace sluice::cli {
namespace {

class Pipe {
 public:
  Pipe() {
    if (pipe2(ends_, O_CLOEXEC) != 0) ends_[0] = ends_[1] = -1;
  }
  ~Pipe() {
    Close(0);
    Close(1);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  bool ok() const { return ends_[0] >= 0; }
  int reader() const { return ends_[0]; }
  int writer() const { return ends_[1]; }
  void CloseReader() { Close(0); }
  void CloseWriter() { Close(1); }

 private:
  void Close(int end) {
    if (ends_[end] >= 0) close(ends_[end]);
    ends_[end] = -1;
  }
  int ends_[2];
};

// A command that does not read its input to the end is no failure: SIGPIPE is ignored by main.
void WriteAll(int fd, const std::string& bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    const ssize_t wrote = write(fd, bytes.data() + at, bytes.size() - at);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return;
    at += static_cast<size_t>(wrote);
  }
}

// True: to the end. Reads on beyond the limit, so that the command can end.
bool ReadAll(int fd, std::string* out) {
  char buffer[64 * 1024];
  bool fits = true;
  while (true) {
    const ssize_t got = read(fd, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return fits;
    fits = fits && out->size() + static_cast<size_t>(got) <= kShellOutputBytesMax;
    if (fits) out->append(buffer, static_cast<size_t>(got));
  }
}

absl::StatusOr<pid_t> Spawn(const std::string& command, const Pipe& input, const Pipe& output,
                            const std::map<std::string, std::string>& environment) {
  std::vector<std::string> texts;
  for (const auto& [name, value] : environment) texts.push_back(absl::StrCat(name, "=", value));
  std::vector<char*> variables;
  for (std::string& text : texts) variables.push_back(text.data());
  // Each name once: of two, some shells take the first and some the last.
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text = *variable;
    if (environment.count(std::string(text.substr(0, text.find('=')))) > 0) continue;
    variables.push_back(*variable);
  }
  variables.push_back(nullptr);
  std::string shell = "sh", flag = "-c", line = command;
  char* const arguments[] = {shell.data(), flag.data(), line.data(), nullptr};

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, input.reader(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, output.writer(), STDOUT_FILENO);
  // What we ignore or block, the command should not: it expects a pipe to end it.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t signals;
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  sigaddset(&signals, SIGPIPE);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t pid = 0;
  const int error =
      posix_spawn(&pid, "/bin/sh", &files, &attributes, arguments, variables.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) return absl::UnknownError(absl::StrCat("cannot run sh: ", strerror(error)));
  return pid;
}

absl::Status StatusOf(int wait_status) {
  if (WIFEXITED(wait_status)) {
    const int code = WEXITSTATUS(wait_status);
    if (code == 0) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat("the command ended with exit code ", code));
  }
  return absl::FailedPreconditionError(
      absl::StrCat("the command was ended by signal ", WTERMSIG(wait_status)));
}

}  // namespace

absl::StatusOr<std::string> RunShell(const std::string& command, const std::string& input,
                                     const std::map<std::string, std::string>& environment) {
  Pipe in, out;
  if (!in.ok() || !out.ok()) return absl::UnknownError("no file descriptors are left");
  const auto pid = Spawn(command, in, out, environment);
  if (!pid.ok()) return pid.status();
  in.CloseReader();
  out.CloseWriter();
  // Beside the reading: a command may write before it has read everything.
  std::thread writer([&] {
    WriteAll(in.writer(), input);
    in.CloseWriter();
  });
  std::string output;
  const bool fits = ReadAll(out.reader(), &output);
  writer.join();
  int wait_status = 0;
  while (waitpid(*pid, &wait_status, 0) < 0 && errno == EINTR) {
  }
  if (absl::Status status = StatusOf(wait_status); !status.ok()) return status;
  if (!fits) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the command wrote over ", kShellOutputBytesMax, " bytes"));
  }
  return output;
}

absl::StatusOr<std::string> RunShell(const std::string& command, const v1::Delivery& delivery) {
  const v1::Message& message = delivery.message();
  return RunShell(command, message.body(),
                  {{"SLUICE_QUEUE", delivery.queue()},
                   {"SLUICE_MESSAGE_ID", message.id()},
                   {"SLUICE_GROUP", message.group()},
                   {"SLUICE_ATTEMPT", absl::StrCat(delivery.attempt())}});
}

v1::NackItem RetryBecause(const absl::Status& status) {
  constexpr size_t kReasonBytesMax = 1024;  // a rule of the API
  v1::NackItem nack;
  nack.set_action(v1::NACK_ACTION_RETRY);
  nack.set_reason(std::string(status.message().substr(0, kReasonBytesMax)));
  return nack;
}

}  // namespace sluice::cli
