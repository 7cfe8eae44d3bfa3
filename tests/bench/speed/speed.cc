// First speed figures: publishing one by one, in batches, streamed; publish -> deliver -> ack.
// Starts its own server with default settings (each confirm is synced) and prints markdown rows.
//
//   bench_speed [--scale 1.0] [--body_bytes 1024]
#include <functional>
#include <iostream>
#include <string>
#include <thread>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "tests/bench/speed/load.h"
#include "tests/support/server_process.h"

ABSL_FLAG(double, scale, 1.0, "multiplies how many messages each row takes");
ABSL_FLAG(int, body_bytes, 1024, "size of each body");

namespace sluice::bench {
namespace {

constexpr int kStreamBatch = 100;
constexpr int kCredit = 10'000;

class Table {
 public:
  explicit Table(const std::string& address) : address_(address) {
    std::cout << "| work | messages | seconds | messages/s |\n|---|---|---|---|" << std::endl;
  }
  // Each row has a queue of its own.
  void Row(const std::string& work, int64_t messages, const std::function<void(const Load&)>& run) {
    Load load{address_, absl::StrFormat("row-%d", ++rows_),
              static_cast<int64_t>(messages * absl::GetFlag(FLAGS_scale)),
              static_cast<size_t>(absl::GetFlag(FLAGS_body_bytes))};
    MakeQueue(address_, load.queue);
    const absl::Time start = absl::Now();
    run(load);
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    std::cout << absl::StrFormat("| %s | %d | %.1f | %.0f |", work, load.messages, seconds,
                                 load.messages / seconds)
              << std::endl;
  }

 private:
  const std::string address_;
  int rows_ = 0;
};

int Run() {
  testing::ServerProcess server;
  const absl::Status started = server.Start();
  if (!started.ok()) {
    std::cerr << started << "\n";
    return 1;
  }
  Table table(server.address());
  table.Row("Publish, 1 message, 1 call in flight", 5'000,
            [](const Load& load) { PublishUnary(load, 1, 1); });
  table.Row("Publish, 1 message, 200 calls in flight", 100'000,
            [](const Load& load) { PublishUnary(load, 200, 1); });
  table.Row("Publish, 100 messages, 1 call in flight", 100'000,
            [](const Load& load) { PublishUnary(load, 1, 100); });
  table.Row("Publish, 100 messages, 10 calls in flight", 300'000,
            [](const Load& load) { PublishUnary(load, 10, 100); });
  table.Row("PublishStream, window 1,000", 500'000,
            [](const Load& load) { PublishStreamed(load, 1'000, kStreamBatch); });
  table.Row("PublishStream, window 10,000", 1'000'000,
            [](const Load& load) { PublishStreamed(load, 10'000, kStreamBatch); });
  table.Row("publish, deliver, ack at once (window 1,000)", 500'000, [](const Load& load) {
    std::thread consumer([&] { Drain(load, kCredit); });
    PublishStreamed(load, 1'000, kStreamBatch);
    consumer.join();
  });
  table.Row("publish 500,000, then drain with acks", 500'000, [](const Load& load) {
    PublishStreamed(load, 10'000, kStreamBatch);
    const absl::Time start = absl::Now();
    Drain(load, kCredit);
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    std::cout << absl::StrFormat("| the drain of the next row | %d | %.1f | %.0f |\n",
                                 load.messages, seconds, load.messages / seconds);
  });
  return server.Terminate().value_or(1);
}

}  // namespace
}  // namespace sluice::bench

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  return sluice::bench::Run();
}
