// A hundred thousand message groups, and one group with a deep backlog.
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "client/cpp/publisher.h"
#include "tests/bench/scale/bench.h"

namespace sluice::bench {
namespace {

constexpr int64_t kGroups = 100'000;
constexpr int64_t kPerGroup = 10;
constexpr int64_t kDeep = 500'000;
constexpr size_t kBodyBytes = 100;
constexpr int kWindow = 10'000;
constexpr int kConsumers = 4;
constexpr int kCredit = 5'000;
constexpr int64_t kHolderCredit = 100'000;
constexpr int kReceiptsPerAck = 10'000;
constexpr int64_t kHolderBytes = int64_t{64} << 20;
constexpr absl::Duration kLease = absl::Hours(1);
constexpr double kPacePerSecond = 500;
constexpr int64_t kPacedMessages = 5'000;
constexpr int64_t kOtherGroups = 100;

// `count` messages; the i-th goes to the group and has the number that `place(i)` says.
template <typename Place>
absl::Duration PublishGroups(Bench& bench, const std::string& queue, int64_t count, Place place) {
  return Timed([&] {
    client::Publisher publisher(bench.client(), {.queue = queue, .max_in_flight = kWindow});
    for (int64_t i = 0; i < count; ++i) {
      const auto [group, number] = place(i);
      v1::Message message;
      message.set_group(absl::StrCat("g", group));
      message.set_body(MakeBody(group, number, kBodyBytes));
      Require(publisher.Publish(std::move(message),
                                [](const client::PublishOutcome& outcome) {
                                  Require(outcome.status, "a message of a group");
                                }),
              "Publish");
    }
    Require(publisher.Close(), "Close");
  });
}

// Takes `count` messages and holds them: a stream that ends with its last message keeps its leases.
class Holder {
 public:
  Holder(Bench& bench, std::string queue, int64_t count)
      : bench_(bench), queue_(std::move(queue)) {
    Consuming consuming(bench.client(),
                        {.queue = queue_,
                         .max_in_flight = static_cast<int>(std::min(count, kHolderCredit)),
                         .max_bytes_in_flight = kHolderBytes,
                         .lease = kLease,
                         .max_messages = count},
                        [this](client::Consumer&, const v1::Delivery& delivery) {
                          receipts_.push_back(delivery.receipt());
                          groups_.insert(ReadBody(delivery.message().body()).first);
                        });
    consuming.Join();
    Check(static_cast<int64_t>(groups_.size()) == count, "one message of a group is leased");
  }

  // Acks what it holds.
  void Release() {
    for (size_t i = 0; i < receipts_.size();) {
      v1::AckRequest request;
      request.set_queue(queue_);
      while (i < receipts_.size() && request.receipts_size() < kReceiptsPerAck) {
        request.add_receipts(receipts_[i++]);
      }
      const auto response = bench_.client().Call<v1::AckRequest, v1::AckResponse>(
          &v1::QueueService::StubInterface::Ack, request);
      Require(response.status(), "Ack");
      Check(response->failures_size() == 0, "what is held can be acked");
    }
  }

 private:
  Bench& bench_;
  const std::string queue_;
  std::vector<std::string> receipts_;
  absl::flat_hash_set<int64_t> groups_;
};

// New messages of other groups, published at a modest pace to a queue whose backlog is blocked.
void OtherGroups(Bench& bench, const std::string& queue, int64_t count, const std::string& step) {
  Latencies latencies;
  std::atomic<int64_t> foreign{0};
  Consuming consuming(bench.client(), {.queue = queue, .max_messages = count},
                      [&](client::Consumer& consumer, const v1::Delivery& delivery) {
                        const BodyNumbers numbers = ReadBody(delivery.message().body());
                        if (numbers.first < 0) {
                          latencies.Add(absl::Nanoseconds(NowNs() - numbers.second));
                        } else {
                          ++foreign;
                        }
                        consumer.Ack(delivery.receipt());
                      });
  Paced(count, kPacePerSecond, [&](int64_t i) {
    v1::Message message;
    message.set_group(absl::StrCat("other", i % kOtherGroups));
    message.set_body(MakeBody(-1, NowNs(), kBodyBytes));
    PublishOne(bench.client(), queue, std::move(message));
  });
  consuming.Join();
  bench.Print({.step = step, .count = count, .latencies = &latencies});
  Check(foreign == 0, "blocked groups stay blocked");
}

// Checks, over all consumers, that each group comes in order and one at a time.
class OrderOfGroups {
 public:
  OrderOfGroups(int64_t groups, int64_t first_number) : next_(groups, first_number), open_(groups) {}

  void Delivered(const BodyNumbers& numbers) {
    std::lock_guard lock(mutex_);
    if (next_[numbers.first] != numbers.second) ++out_of_order_;
    if (open_[numbers.first]) ++overlapping_;
    next_[numbers.first] = numbers.second + 1;
    open_[numbers.first] = true;
  }
  // Before the ack is sent.
  void Acking(const BodyNumbers& numbers) {
    std::lock_guard lock(mutex_);
    open_[numbers.first] = false;
  }
  void Judge(int64_t end) const {
    Check(out_of_order_ == 0, absl::StrCat(out_of_order_, " messages out of order"));
    Check(overlapping_ == 0, absl::StrCat(overlapping_, " messages beside one of their group"));
    int64_t incomplete = 0;
    for (const int64_t next : next_) incomplete += next != end;
    Check(incomplete == 0, absl::StrCat(incomplete, " groups did not come whole"));
  }

 private:
  std::mutex mutex_;
  std::vector<int64_t> next_;
  std::vector<bool> open_;
  int64_t out_of_order_ = 0;
  int64_t overlapping_ = 0;
};

void DrainGroups(Bench& bench, const std::string& queue, int64_t groups, int64_t first_number,
                 int64_t end, const std::string& step) {
  const int64_t messages = groups * (end - first_number);
  OrderOfGroups order(groups, first_number);
  std::atomic<int64_t> left{messages};
  absl::Notification done;
  const absl::Duration took = Timed([&] {
    std::vector<std::unique_ptr<Consuming>> consumers;
    for (int i = 0; i < kConsumers; ++i) {
      consumers.push_back(std::make_unique<Consuming>(
          bench.client(), client::ConsumerOptions{.queue = queue, .max_in_flight = kCredit},
          [&](client::Consumer& consumer, const v1::Delivery& delivery) {
            const BodyNumbers numbers = ReadBody(delivery.message().body());
            order.Delivered(numbers);
            order.Acking(numbers);
            consumer.Ack(delivery.receipt());
            if (--left == 0) done.Notify();
          }));
    }
    done.WaitForNotification();
  });
  bench.Print({.step = step, .count = messages, .took = took});
  order.Judge(end);
  Check(Depth(bench.address(), queue) == 0, "all messages of the groups were acked");
}

}  // namespace

void RunGroups(const ScaleOptions& options) {
  Bench bench("Message groups");
  const int64_t groups = options.Scaled(kGroups);
  const int64_t paced = options.Scaled(kPacedMessages);
  bench.CreateQueue("many");
  absl::Duration took = PublishGroups(bench, "many", groups * kPerGroup, [&](int64_t i) {
    return std::pair{i % groups, i / groups};
  });
  bench.Print({.step = absl::StrCat("publish ", kPerGroup, " messages to each of ", groups,
                                    " groups"),
               .count = groups * kPerGroup,
               .took = took});
  {
    const absl::Time start = absl::Now();
    Holder holder(bench, "many", groups);
    bench.Print({.step = "lease one of each group", .count = groups, .took = absl::Now() - start});
    OtherGroups(bench, "many", paced,
                "publish to delivery of other groups meanwhile, 500/s");
    took = Timed([&] { holder.Release(); });
    bench.Print({.step = "ack those", .count = groups, .took = took});
  }
  DrainGroups(bench, "many", groups, 1, kPerGroup,
              absl::StrCat("drain with ", kConsumers, " consumers, each acked"));

  bench.CreateQueue("deep");
  const int64_t deep = options.Scaled(kDeep);
  took = PublishGroups(bench, "deep", deep, [](int64_t i) { return std::pair{int64_t{0}, i}; });
  bench.Print({.step = "publish to one group of another queue", .count = deep, .took = took});
  {
    Holder holder(bench, "deep", 1);
    OtherGroups(bench, "deep", paced,
                "publish to delivery of other groups, the deep one leased, 500/s");
    OtherGroups(bench, "deep", paced, "the same again");
    holder.Release();
  }
  bench.PrintRestarts();
}

}  // namespace sluice::bench
