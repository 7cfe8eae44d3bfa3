// A deep backlog: what it costs in memory, how long restarts take on it, and that it drains in full.
// Starts its own server with default settings and prints markdown rows.
//
//   bench_backlog [--messages 10000000] [--body_bytes 100]
#include <iostream>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_format.h"
#include "tests/bench/load/figures.h"
#include "tests/bench/load/load.h"
#include "tests/support/server_process.h"

ABSL_FLAG(int64_t, messages, 10'000'000, "depth of the backlog");
ABSL_FLAG(int, body_bytes, 100, "size of each body");

namespace sluice::bench {
namespace {

constexpr int64_t kWindow = 10'000;
constexpr int kBatch = 500;
constexpr int kCredit = 20'000;
constexpr char kQueue[] = "backlog";

void Row(const testing::ServerProcess& server, const std::string& step, absl::Duration took) {
  std::cout << absl::StrFormat("| %s | %.2f | %d | %.0f | %.0f | %.0f |", step,
                               absl::ToDoubleSeconds(took), Depth(server.address(), kQueue),
                               MemoryMiB(server, "VmRSS"), MemoryMiB(server, "VmHWM"),
                               DiskMiB(server))
            << std::endl;
}

int Run() {
  testing::ServerProcess server;
  const auto start_or_die = [&server] {
    const absl::Status status = server.Start();
    if (!status.ok()) Die(status.ToString());
  };
  std::cout << "| step | seconds | depth | VmRSS MiB | VmHWM MiB | disk MiB |\n"
               "|---|---|---|---|---|---|\n";
  const Load load{server.address(), kQueue, absl::GetFlag(FLAGS_messages),
                  static_cast<size_t>(absl::GetFlag(FLAGS_body_bytes))};
  absl::Duration took = Timed(start_or_die);
  MakeQueue(server.address(), kQueue);
  Row(server, "start, empty", took);
  took = Timed([&] { PublishStreamed(load, kWindow, kBatch); });
  Row(server, absl::StrFormat("publish (%.0f/s)", load.messages / absl::ToDoubleSeconds(took)),
      took);
  took = Timed([&] { (void)server.Terminate(); });
  std::cout << absl::StrFormat("| stop (SIGTERM) | %.2f | | | | |\n", absl::ToDoubleSeconds(took));
  Row(server, "start to serving after SIGTERM", Timed(start_or_die));
  server.Kill();
  Row(server, "start to serving after SIGKILL", Timed(start_or_die));
  took = Timed([&] { Drain(load, kCredit); });
  Row(server, absl::StrFormat("drain, all acked (%.0f/s)",
                              load.messages / absl::ToDoubleSeconds(took)),
      took);
  server.Kill();
  Row(server, "start to serving after the drain and SIGKILL", Timed(start_or_die));
  return Depth(server.address(), kQueue) == 0 ? 0 : 1;
}

}  // namespace
}  // namespace sluice::bench

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  return sluice::bench::Run();
}
