// Ten thousand queues, and ten thousand bindings of one exchange.
#include <atomic>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "tests/bench/scale/bench.h"
#include "tests/support/client.h"

namespace sluice::bench {
namespace {

constexpr int64_t kQueues = 10'000;
constexpr int64_t kPerQueue = 20;
constexpr int64_t kBindings = 10'000;
constexpr size_t kBodyBytes = 100;
constexpr int kThreads = 100;
constexpr int64_t kPacedMessages = 2'000;
constexpr double kPacePerSecond = 200;
constexpr int kScrapes = 10;
constexpr absl::Duration kIdle = absl::Seconds(20);

std::string QueueName(int64_t i) { return absl::StrFormat("queue-%05d", i); }

// Calls `call(i)` for every i of [0, count), on kThreads threads.
absl::Duration Parallel(int64_t count, const std::function<void(int64_t)>& call) {
  return Timed([&] {
    std::atomic<int64_t> next{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        for (int64_t i = next++; i < count; i = next++) call(i);
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
}

void Create(Bench& bench, int64_t queues) {
  const double before_mib = MemoryMiB(bench.server(), "VmRSS");
  const absl::Duration took =
      Parallel(queues, [&](int64_t i) { bench.CreateQueue(QueueName(i)); });
  const double each_kib = (MemoryMiB(bench.server(), "VmRSS") - before_mib) * 1024 /
                          static_cast<double>(queues);
  bench.Print({.step = absl::StrFormat("create queues, 100 calls in flight; %.1f KiB a queue",
                                       each_kib),
               .count = queues,
               .took = took});
}

void Publish(Bench& bench, int64_t queues, int64_t messages, bool in_turn, uint64_t seed) {
  Latencies latencies;
  std::atomic<uint64_t> salt{seed};
  const absl::Duration took = Parallel(messages, [&](int64_t i) {
    const int64_t queue =
        in_turn ? i % queues
                : static_cast<int64_t>(std::mt19937_64(salt++)() % static_cast<uint64_t>(queues));
    v1::Message message;
    message.set_body(MakeBody(NowNs(), i, kBodyBytes));
    const absl::Time start = absl::Now();
    PublishOne(bench.client(), QueueName(queue), std::move(message));
    latencies.Add(absl::Now() - start);
  });
  bench.Print({.step = absl::StrCat("publish to them ", in_turn ? "in turn" : "at random",
                                    ", 100 calls in flight"),
               .count = messages,
               .took = took,
               .latencies = &latencies});
}

// One call at a time, at a modest pace, while `meanwhile` goes on (nothing, or scrapes).
void PublishPaced(Bench& bench, int64_t queues, int64_t count, const std::string& step,
                  const std::function<void()>& meanwhile) {
  Latencies latencies;
  std::atomic<bool> over{false};
  std::thread other([&] {
    while (meanwhile && !over) meanwhile();
  });
  Paced(count, kPacePerSecond, [&](int64_t i) {
    v1::Message message;
    message.set_body(MakeBody(NowNs(), i, kBodyBytes));
    const absl::Time start = absl::Now();
    PublishOne(bench.client(), QueueName(i * 7919 % queues), std::move(message));
    latencies.Add(absl::Now() - start);
  });
  over = true;
  other.join();
  bench.Print({.step = step, .count = count, .latencies = &latencies});
}

void List(Bench& bench, int64_t queues, int page_size) {
  Latencies latencies;
  v1::ListQueuesRequest request;
  request.set_page_size(page_size);
  int64_t listed = 0;
  do {
    const absl::Time start = absl::Now();
    const auto response = bench.client().Call<v1::ListQueuesRequest, v1::ListQueuesResponse>(
        &v1::AdminService::StubInterface::ListQueues, request);
    latencies.Add(absl::Now() - start);
    Require(response.status(), "ListQueues");
    listed += response->queues_size();
    request.set_page_token(response->next_page_token());
  } while (!request.page_token().empty());
  bench.Print({.step = absl::StrCat("ListQueues, pages of ", page_size), .latencies = &latencies});
  Check(listed == queues, "every queue is listed once");
}

size_t Scrape(Bench& bench, Latencies* latencies) {
  const absl::Time start = absl::Now();
  const auto answer = testing::HttpGet(bench.server().http_port(), "/metrics");
  latencies->Add(absl::Now() - start);
  Require(answer.status(), "/metrics");
  return answer->body.size();
}

void Scrapes(Bench& bench) {
  Latencies latencies;
  size_t bytes = 0;
  for (int i = 0; i < kScrapes; ++i) bytes = Scrape(bench, &latencies);
  bench.Print({.step = absl::StrCat("GET /metrics, ", bytes / 1024, " KiB"),
               .latencies = &latencies});
}

// kThreads subscriptions at a time, each until its queue is empty.
void Consume(Bench& bench, int64_t queues, int64_t messages) {
  std::atomic<int64_t> received{0};
  const absl::Duration took = Parallel(queues, [&](int64_t i) {
    v1::GetQueueRequest request;
    request.set_queue(QueueName(i));
    const auto response = bench.client().Call<v1::GetQueueRequest, v1::GetQueueResponse>(
        &v1::AdminService::StubInterface::GetQueue, request);
    Require(response.status(), "GetQueue");
    const int64_t depth = response->queue().stats().ready();
    if (depth == 0) return;
    client::Consumer consumer(bench.client(), {.queue = QueueName(i),
                                               .max_messages = depth,
                                               .idle_timeout = kIdle});
    Require(consumer.Run([&](const v1::Delivery& delivery) {
      ++received;
      consumer.Ack(delivery.receipt());
    }),
            "a consumer");
  });
  bench.Print({.step = "subscribe to each, take all and ack, 100 at a time",
               .count = received,
               .took = took});
  Check(received == messages, "every message came");
}

// A topic exchange: one binding matches each message, and one matches all.
void Bindings(Bench& bench, int64_t queues, int64_t bindings, int64_t paced) {
  bench.CreateExchange("topics", v1::EXCHANGE_TYPE_TOPIC);
  const absl::Duration took = Parallel(bindings, [&](int64_t i) {
    bench.Bind("topics", absl::StrCat("region.", i, ".*"), QueueName(i % queues));
  });
  bench.Print({.step = "create bindings of one topic exchange", .count = bindings, .took = took});
  for (const bool routed : {false, true}) {
    Latencies latencies;
    Paced(paced, kPacePerSecond, [&](int64_t i) {
      v1::PublishRequest request;
      if (routed) {
        request.set_exchange("topics");
      } else {
        request.set_queue(QueueName(i % queues));
      }
      v1::Message& message = *request.add_messages();
      message.set_routing_key(absl::StrCat("region.", i * 7919 % bindings, ".news"));
      message.set_body(MakeBody(NowNs(), i, kBodyBytes));
      const absl::Time start = absl::Now();
      const auto response = bench.client().Call<v1::PublishRequest, v1::PublishResponse>(
          &v1::QueueService::StubInterface::Publish, request);
      latencies.Add(absl::Now() - start);
      Require(response.status(), "Publish");
      Check(response->results(0).routed_queues() == 1, "one binding matches");
    });
    bench.Print({.step = routed ? "publish through the exchange, 200/s"
                                : "publish to a queue by name, 200/s",
                 .count = paced,
                 .latencies = &latencies});
  }
}

}  // namespace

void RunQueues(const ScaleOptions& options) {
  Bench bench("Queues and bindings");
  const int64_t queues = options.Scaled(kQueues);
  const int64_t messages = queues * kPerQueue / 2;
  const int64_t paced = options.Scaled(kPacedMessages);
  Create(bench, queues);
  List(bench, queues, 100);
  List(bench, queues, 1000);
  Scrapes(bench);
  Publish(bench, queues, messages, /*in_turn=*/true, options.seed);
  Publish(bench, queues, messages, /*in_turn=*/false, options.seed);
  PublishPaced(bench, queues, paced, "publish one at a time, 200/s", nullptr);
  Latencies scrapes;
  PublishPaced(bench, queues, paced, "the same, scraped without a pause",
               [&] { Scrape(bench, &scrapes); });
  List(bench, queues, 100);
  Scrapes(bench);
  bench.PrintRestarts();
  Consume(bench, queues, 2 * messages + 2 * paced);
  Bindings(bench, queues, options.Scaled(kBindings), paced);
  bench.PrintRestarts();
}

}  // namespace sluice::bench
