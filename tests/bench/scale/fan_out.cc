// One publish to many queues: what it costs to store the message in each of them.
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/bench/scale/bench.h"
#include "client/cpp/publisher.h"

namespace sluice::bench {
namespace {

constexpr int kQueues = 100;
constexpr int kRepeats = 3;
// Copies in all queues together, for each size of body.
constexpr int64_t kCopiesMax = 400'000;
constexpr int64_t kCopiedBytesMax = int64_t{2} << 30;
constexpr size_t kBodySizes[] = {16, 1 << 10, 10 << 10, 100 << 10};
constexpr int kWindow = 200;

void PublishMany(Bench& bench, const std::string& exchange, int queues, size_t body_bytes,
                 int64_t copies) {
  const int64_t messages = std::max<int64_t>(1, copies / queues);
  Latencies latencies;
  const int64_t written = WrittenBytes(bench.server());
  const absl::Duration took = Timed([&] {
    client::Publisher publisher(bench.client(),
                                {.exchange = exchange, .max_in_flight = kWindow});
    for (int64_t i = 0; i < messages; ++i) {
      v1::Message message;
      message.set_body(MakeBody(i, 0, body_bytes));
      const int64_t start_ns = NowNs();
      Require(publisher.Publish(std::move(message),
                                [&, start_ns](const client::PublishOutcome& outcome) {
                                  Require(outcome.status, "a fan-out");
                                  latencies.Add(absl::Nanoseconds(NowNs() - start_ns));
                                }),
              "Publish");
    }
    Require(publisher.Close(), "Close");
  });
  const double per_copy = static_cast<double>(WrittenBytes(bench.server()) - written) /
                          static_cast<double>(messages * queues);
  bench.Print({.step = absl::StrFormat("%d B to %d queue%s; %.0f B written a copy", body_bytes,
                                       queues, queues == 1 ? "" : "s", per_copy),
               .count = messages,
               .took = took,
               .latencies = &latencies});
}

}  // namespace

void RunFanOut(const ScaleOptions& options) {
  for (const size_t body_bytes : kBodySizes) {
    // A server for each size: what one leaves to compact is not to slow down the next.
    Bench bench(absl::StrCat("Fan-out, bodies of ", body_bytes, " bytes"));
    bench.CreateExchange("all", v1::EXCHANGE_TYPE_FANOUT);
    bench.CreateExchange("one", v1::EXCHANGE_TYPE_FANOUT);
    for (int i = 0; i < kQueues; ++i) {
      const std::string queue = absl::StrCat("q", i);
      bench.CreateQueue(queue);
      bench.Bind("all", "", queue);
    }
    bench.CreateQueue("single");
    bench.Bind("one", "", "single");
    const int64_t copies = options.Scaled(
        std::min(kCopiesMax, kCopiedBytesMax / static_cast<int64_t>(body_bytes)));
    for (int i = 0; i < kRepeats; ++i) {
      PublishMany(bench, "all", kQueues, body_bytes, copies / kRepeats);
      // As many messages, stored once: what a fan-out that shares its body might come to.
      PublishMany(bench, "one", 1, body_bytes, copies / kRepeats / kQueues);
    }
    for (int i = 0; i < kQueues; ++i) {
      Check(Depth(bench.address(), absl::StrCat("q", i)) ==
                kRepeats * std::max<int64_t>(1, copies / kRepeats / kQueues),
            "every queue has every message");
    }
  }
}

}  // namespace sluice::bench
