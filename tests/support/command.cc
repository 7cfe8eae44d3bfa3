#include "tests/support/command.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "server/base/check.h"

namespace sluice::testing {
namespace {

std::string Contents(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

void Redirect(const std::string& path, int flags, int target) {
  const int fd = open(path.c_str(), flags, 0600);
  if (fd < 0 || dup2(fd, target) < 0) _exit(127);
  close(fd);
}

}  // namespace

SluiceCommand::SluiceCommand(const std::string& address, const std::vector<std::string>& arguments,
                             const std::string& input, Input then) {
  const std::string in = dir_.path() + "/in";
  const std::string out = dir_.path() + "/out";
  const std::string err = dir_.path() + "/err";
  if (then == Input::kStaysOpen) {
    SLUICE_CHECK(mkfifo(in.c_str(), 0600) == 0);
    input_fd_ = open(in.c_str(), O_RDWR | O_CLOEXEC);
    SLUICE_CHECK(write(input_fd_, input.data(), input.size()) ==
                 static_cast<ssize_t>(input.size()));
  } else {
    std::ofstream(in, std::ios::binary) << input;
  }
  const char* const other = std::getenv("SLUICE_CLI_BIN");
  std::vector<std::string> words = {other != nullptr ? other : SLUICE_CLI_PATH, "--server", address};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  child_ = fork();
  SLUICE_CHECK(child_ >= 0);
  if (child_ == 0) {
    if (then == Input::kClosed) {
      close(STDIN_FILENO);
    } else {
      Redirect(in, O_RDONLY, STDIN_FILENO);
    }
    Redirect(out, O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
    Redirect(err, O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
}

SluiceCommand::~SluiceCommand() {
  if (child_ >= 0) {
    Signal(SIGKILL);
    Wait();
  }
  if (input_fd_ >= 0) close(input_fd_);
}

void SluiceCommand::Signal(int signal) { kill(child_, signal); }

CommandResult SluiceCommand::Wait() {
  int status = 0;
  while (waitpid(child_, &status, 0) < 0 && errno == EINTR) {
  }
  child_ = -1;
  CommandResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.out = Contents(dir_.path() + "/out");
  result.err = Contents(dir_.path() + "/err");
  return result;
}

CommandResult RunSluice(const std::string& address, const std::vector<std::string>& arguments,
                        const std::string& input) {
  return SluiceCommand(address, arguments, input).Wait();
}

}  // namespace sluice::testing
