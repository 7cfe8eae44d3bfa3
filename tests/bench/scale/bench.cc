#include "tests/bench/scale/bench.h"

#include <atomic>
#include <cstring>
#include <iostream>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "tests/bench/load/load.h"

namespace sluice::bench {
namespace {

// Of settling what is in flight when a consumer ends.
constexpr absl::Duration kCloseTimeout = absl::Seconds(60);
// Of calls that are measured: a slow one is a figure, not an error.
constexpr absl::Duration kCallTimeout = absl::Seconds(60);

std::atomic<bool> all_checks_held{true};

}  // namespace

void Check(bool holds, const std::string& what) {
  if (holds) return;
  all_checks_held = false;
  std::cerr << "CHECK FAILED: " << what << std::endl;
}

bool AllChecksHeld() { return all_checks_held; }

void Require(const absl::Status& status, const std::string& what) {
  if (!status.ok()) Die(absl::StrCat(what, ": ", status.ToString()));
}

Bench::Bench(const std::string& title) {
  std::cout << "\n### " << title
            << "\n\n| step | count | seconds | 1/s | p50 ms | p99 ms | p99.9 ms | max ms | CPU s | "
               "RSS MiB | peak MiB | disk MiB |\n"
               "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
  Print({.step = "start, empty", .took = Timed([this] { Start(); })});
}

void Bench::Start() {
  Require(server_.Start(), "start of the server");
  cpu_told_ = absl::ZeroDuration();
  client_ = std::make_unique<client::Client>(
      client::ClientOptions{.address = server_.address(), .timeout = kCallTimeout});
}

void Bench::Print(const Row& row) {
  const double seconds = absl::ToDoubleSeconds(row.took);
  std::cout << "| " << row.step << " | ";
  if (row.count > 0) std::cout << row.count;
  std::cout << " | ";
  if (row.took > absl::ZeroDuration()) std::cout << absl::StrFormat("%.2f", seconds);
  std::cout << " | ";
  if (row.count > 0 && seconds > 0) std::cout << absl::StrFormat("%.0f", row.count / seconds);
  std::cout << " | " << (row.latencies ? row.latencies->Cells() : Latencies().Cells());
  if (server_.running()) {
    const absl::Duration cpu = CpuTime(server_);
    std::cout << absl::StrFormat(
        " | %.2f | %.0f | %.0f | %.0f |", absl::ToDoubleSeconds(cpu - cpu_told_),
        MemoryMiB(server_, "VmRSS"), MemoryMiB(server_, "VmHWM"), DiskMiB(server_));
    cpu_told_ = cpu;
    ResetPeakMemory(server_);
  } else {
    std::cout << " | | | | |";
  }
  std::cout << std::endl;
}

void Bench::PrintRestarts() {
  constexpr absl::Duration kStopTimeout = absl::Minutes(2);
  const absl::Duration stop =
      Timed([this] { Check(server_.Terminate(kStopTimeout).value_or(1) == 0, "a clean stop"); });
  Print({.step = "stop (SIGTERM)", .took = stop});
  Print({.step = "start to serving after SIGTERM", .took = Timed([this] { Start(); })});
  server_.Kill();
  Print({.step = "start to serving after SIGKILL", .took = Timed([this] { Start(); })});
}

void Bench::CreateQueue(const std::string& name) {
  v1::CreateQueueRequest request;
  request.mutable_config()->set_name(name);
  Require(client()
              .Call<v1::CreateQueueRequest, v1::CreateQueueResponse>(
                  &v1::AdminService::StubInterface::CreateQueue, request)
              .status(),
          "CreateQueue");
}

void Bench::CreateExchange(const std::string& name, v1::ExchangeType type) {
  v1::CreateExchangeRequest request;
  request.mutable_exchange()->set_name(name);
  request.mutable_exchange()->set_type(type);
  Require(client()
              .Call<v1::CreateExchangeRequest, v1::CreateExchangeResponse>(
                  &v1::AdminService::StubInterface::CreateExchange, request)
              .status(),
          "CreateExchange");
}

void Bench::Bind(const std::string& exchange, const std::string& key, const std::string& queue) {
  v1::CreateBindingRequest request;
  request.mutable_binding()->set_exchange(exchange);
  request.mutable_binding()->set_binding_key(key);
  request.mutable_binding()->set_queue(queue);
  Require(client()
              .Call<v1::CreateBindingRequest, v1::CreateBindingResponse>(
                  &v1::AdminService::StubInterface::CreateBinding, request)
              .status(),
          "CreateBinding");
}

std::string MakeBody(int64_t first, int64_t second, size_t bytes) {
  std::string body(std::max(bytes, sizeof(BodyNumbers)), 'x');
  const BodyNumbers numbers{first, second};
  std::memcpy(body.data(), &numbers, sizeof(numbers));
  return body;
}

BodyNumbers ReadBody(std::string_view body) {
  BodyNumbers numbers;
  if (body.size() < sizeof(numbers)) Die("a body is too short");
  std::memcpy(&numbers, body.data(), sizeof(numbers));
  return numbers;
}

int64_t NowNs() { return absl::GetCurrentTimeNanos(); }

void Paced(int64_t count, double per_second, const std::function<void(int64_t)>& call) {
  const absl::Time start = absl::Now();
  for (int64_t i = 0; i < count; ++i) {
    absl::SleepFor(start + absl::Seconds(1) * (static_cast<double>(i) / per_second) - absl::Now());
    call(i);
  }
}

void PublishOne(client::Client& client, const std::string& queue, v1::Message message) {
  v1::PublishRequest request;
  request.set_queue(queue);
  *request.add_messages() = std::move(message);
  Require(client
              .Call<v1::PublishRequest, v1::PublishResponse>(
                  &v1::QueueService::StubInterface::Publish, request)
              .status(),
          "Publish");
}

namespace {

client::ConsumerOptions WithCloseTimeout(client::ConsumerOptions options) {
  options.close_timeout = kCloseTimeout;
  return options;
}

}  // namespace

Consuming::Consuming(client::Client& client, client::ConsumerOptions options, Handler handler)
    : consumer_(client, WithCloseTimeout(std::move(options))),
      thread_([this, handler = std::move(handler)] {
        Require(consumer_.Run(
                    [&](const v1::Delivery& delivery) { handler(consumer_, delivery); }),
                "a consumer");
      }) {}

Consuming::~Consuming() {
  consumer_.Stop();
  Join();
}

void Consuming::Join() {
  if (thread_.joinable()) thread_.join();
}

void Consuming::Stop() { consumer_.Stop(); }

}  // namespace sluice::bench
