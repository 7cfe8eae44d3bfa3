// A million messages whose consumer asked for a retry later.
#include <atomic>
#include <cstdint>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/time.h"
#include "tests/bench/scale/bench.h"
#include "tests/bench/load/load.h"

namespace sluice::bench {
namespace {

constexpr int64_t kMessages = 1'000'000;
constexpr size_t kBodyBytes = 100;
constexpr int kWindow = 10'000;
constexpr int kBatch = 500;
constexpr int kCredit = 20'000;
constexpr char kQueue[] = "retries";
constexpr absl::Duration kDelayLeast = absl::Seconds(6);
constexpr absl::Duration kDelay = absl::Seconds(120);
// When nothing has been delivered for so long, the server delivers no more.
constexpr absl::Duration kStuckAfter = absl::Seconds(3);
constexpr int64_t kCalls = 1000;

// When each message was nacked, by the text of its id.
class Nacked {
 public:
  void Add(const std::string& id, int64_t now_ns) { times_ns_[id] = now_ns; }
  // Zero: it was not.
  int64_t TimeOf(const std::string& id) const {
    const auto it = times_ns_.find(id);
    return it == times_ns_.end() ? 0 : it->second;
  }
  int64_t size() const { return static_cast<int64_t>(times_ns_.size()); }

 private:
  absl::flat_hash_map<std::string, int64_t> times_ns_;
};

void NackAll(Bench& bench, absl::Duration delay, int64_t messages, Nacked* nacked) {
  std::atomic<int64_t> settled{0};
  const absl::Time start = absl::Now();
  absl::Time last = start;
  Consuming consuming(
      bench.client(),
      {.queue = kQueue,
       .max_in_flight = kCredit,
       .max_messages = messages,
       .idle_timeout = kStuckAfter},
      [&](client::Consumer& consumer, const v1::Delivery& delivery) {
        v1::NackItem item;
        item.set_receipt(delivery.receipt());
        item.set_action(v1::NACK_ACTION_DELAY);
        *item.mutable_delay() = client::ToProto(delay);
        nacked->Add(delivery.message().id(), NowNs());
        consumer.Nack(std::move(item), [&](const absl::Status& status) {
          Require(status, "Nack");
          ++settled;
          last = absl::Now();
        });
      });
  consuming.Join();
  bench.Print({.step = absl::StrCat("nack each with a delay of ", absl::FormatDuration(delay)),
               .count = settled,
               .took = last - start});
  Check(settled == messages,
        absl::StrCat("only ", settled.load(), " of ", messages, " were delivered"));
}

// Other messages go on while the retries wait.
void OtherMessages(Bench& bench) {
  constexpr double kPerSecond = 500;
  Latencies latencies;
  Consuming consuming(bench.client(), {.queue = kQueue, .max_messages = kCalls},
                      [&](client::Consumer& consumer, const v1::Delivery& delivery) {
                        latencies.Add(absl::Nanoseconds(
                            NowNs() - ReadBody(delivery.message().body()).first));
                        consumer.Ack(delivery.receipt());
                      });
  Paced(kCalls, kPerSecond, [&](int64_t i) {
    v1::Message message;
    message.set_body(MakeBody(NowNs(), i, kBodyBytes));
    PublishOne(bench.client(), kQueue, std::move(message));
  });
  consuming.Join();
  bench.Print({.step = "publish to delivery of others meanwhile, 500/s",
               .count = kCalls,
               .latencies = &latencies});
}

void List(Bench& bench) {
  constexpr int kPages = 100;
  Latencies latencies;
  v1::ListMessagesRequest request;
  request.set_queue(kQueue);
  for (int page = 0; page < kPages; ++page) {
    const absl::Time start = absl::Now();
    const auto response =
        bench.client().Call<v1::ListMessagesRequest, v1::ListMessagesResponse>(
            &v1::AdminService::StubInterface::ListMessages, request);
    latencies.Add(absl::Now() - start);
    Require(response.status(), "ListMessages");
    for (const v1::StoredMessage& message : response->messages()) {
      Check(message.waiting() == v1::WAIT_REASON_RETRY_BACKOFF, "a retry is listed as such");
    }
    request.set_page_token(response->next_page_token());
    if (request.page_token().empty()) break;
  }
  bench.Print({.step = "ListMessages, pages of 100", .latencies = &latencies});
}

void Consume(Bench& bench, absl::Duration delay, int64_t messages, const Nacked& nacked) {
  Latencies late;
  int64_t early = 0;
  int64_t retries = 0;
  int64_t last_ns = 0;
  int64_t first_ns = 0;
  Consuming consuming(bench.client(),
                      {.queue = kQueue,
                       .max_in_flight = kCredit,
                       .max_messages = messages,
                       .idle_timeout = delay + absl::Seconds(30)},
                      [&](client::Consumer& consumer, const v1::Delivery& delivery) {
                        const int64_t now_ns = NowNs();
                        last_ns = now_ns;
                        if (first_ns == 0) first_ns = now_ns;
                        if (const int64_t nack_ns = nacked.TimeOf(delivery.message().id())) {
                          const int64_t late_ns =
                              now_ns - nack_ns - absl::ToInt64Nanoseconds(delay);
                          if (late_ns < 0) ++early;
                          late.Add(absl::Nanoseconds(late_ns));
                          ++retries;
                          Check(delivery.attempt() == 2, "a retry is the second attempt");
                        }
                        consumer.Ack(delivery.receipt());
                      });
  consuming.Join();
  bench.Print({.step = "deliver and ack when due: how late, counted from the nack",
               .count = retries,
               .took = absl::Nanoseconds(last_ns - first_ns),
               .latencies = &late});
  Check(early == 0, absl::StrCat(early, " retries came before they were due"));
  Check(retries == nacked.size(), absl::StrCat("only ", retries, " retries came"));
  Check(Depth(bench.address(), kQueue) == 0, "all retries were acked");
}

}  // namespace

void RunRetries(const ScaleOptions& options) {
  Bench bench("Delayed retries");
  bench.CreateQueue(kQueue);
  const int64_t messages = options.Scaled(kMessages);
  const absl::Duration delay = options.Scaled(kDelayLeast, kDelay);
  const Load load{bench.address(), kQueue, messages, kBodyBytes};
  const absl::Duration took = Timed([&] { PublishStreamed(load, kWindow, kBatch); });
  bench.Print({.step = "publish", .count = messages, .took = took});
  Nacked nacked;
  NackAll(bench, delay, messages, &nacked);
  if (nacked.size() == messages) {
    List(bench);
    OtherMessages(bench);
  }
  bench.PrintRestarts();
  Consume(bench, delay, messages, nacked);
}

}  // namespace sluice::bench
