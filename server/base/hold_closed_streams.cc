// Linked into a program, this keeps standard streams that are closed from becoming something else: the
// next file that is opened would take their number, and be read or written to as if it were the
// stream. A log line must not end up in the store. What takes their place can be neither read nor
// written.
#include <fcntl.h>
#include <unistd.h>

#include <initializer_list>

namespace {

void HoldClosedStreams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(fd, F_GETFD) != -1) continue;
    [[maybe_unused]] const int held = open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

// Before main is too late: gRPC's library opens files when it is initialised.
[[gnu::section(".preinit_array"), gnu::used]] void (*const kHoldClosedStreams)() =
    HoldClosedStreams;

}  // namespace
