// A million delayed messages: waiting, found by id, over restarts, and when they are due.
#include <iostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/publisher.h"
#include "client/cpp/time.h"
#include "tests/bench/scale/bench.h"

namespace sluice::bench {
namespace {

constexpr int64_t kMessages = 1'000'000;
constexpr size_t kBodyBytes = 100;
constexpr int kWindow = 10'000;
constexpr int kCredit = 10'000;
constexpr int64_t kEachCall = 1000;  // of get, cancel and reschedule by id
constexpr int kPages = 100;
constexpr int kPageSize = 100;
// From the first publish until the first message is due; what is done meanwhile has to fit in.
constexpr absl::Duration kLeadLeast = absl::Seconds(5);
constexpr absl::Duration kLead = absl::Seconds(90);
constexpr absl::Duration kBurstLead = absl::Seconds(30);
constexpr absl::Duration kSpreadLeast = absl::Seconds(2);
constexpr absl::Duration kSpread = absl::Seconds(60);
constexpr absl::Duration kIdleAfter = absl::Seconds(30);

struct Known {
  int64_t index = 0;
  std::string id;
};

// Messages of one queue, each due at a time of its own.
class DelayedQueue {
 public:
  DelayedQueue(Bench& bench, std::string name, int64_t messages)
      : bench_(bench), name_(std::move(name)), due_ns_(messages), times_seen_(messages) {
    bench_.CreateQueue(name_);
  }

  // Due times spread evenly, in random order, over `spread` from `first_due` on; whole milliseconds,
  // so that the server does not round them up. Keeps some ids.
  void Publish(absl::Time first_due, absl::Duration spread, std::mt19937_64& random) {
    std::uniform_int_distribution<int64_t> offset_ms(0, absl::ToInt64Milliseconds(spread) - 1);
    const int64_t first_ms = absl::ToUnixMillis(first_due);
    const int64_t keep_each = std::max<int64_t>(1, messages() / (3 * kEachCall));
    client::Publisher publisher(
        bench_.client(), {.queue = name_, .max_in_flight = kWindow, .return_results = true});
    for (int64_t i = 0; i < messages(); ++i) {
      const absl::Time due = absl::FromUnixMillis(first_ms + offset_ms(random));
      due_ns_[i] = absl::ToUnixNanos(due);
      v1::Message message;
      message.set_body(MakeBody(i, 0, kBodyBytes));
      *message.mutable_deliver_at() = client::ToProto(due);
      const bool keep = i % keep_each == 0;
      Require(publisher.Publish(std::move(message),
                                [this, i, keep](const client::PublishOutcome& outcome) {
                                  Require(outcome.status, "a delayed message");
                                  if (keep) known_.push_back({i, outcome.message_id});
                                }),
              "Publish");
    }
    Require(publisher.Close(), "Close");
  }

  // Some by id, while they wait.
  void GetSome() {
    Latencies latencies;
    for (const Known& known : Some()) {
      v1::GetMessageRequest request;
      request.set_queue(name_);
      request.set_message_id(known.id);
      Measure<v1::GetMessageResponse>(&v1::AdminService::StubInterface::GetMessage, request,
                                      &latencies);
    }
    bench_.Print({.step = "GetMessage by id", .latencies = &latencies});
  }

  void List() {
    Latencies latencies;
    v1::ListMessagesRequest request;
    request.set_queue(name_);
    request.set_page_size(kPageSize);
    for (int page = 0; page < kPages; ++page) {
      const auto response = Measure<v1::ListMessagesResponse>(
          &v1::AdminService::StubInterface::ListMessages, request, &latencies);
      for (const v1::StoredMessage& message : response.messages()) {
        Check(message.state() == v1::MESSAGE_STATE_DELAYED, "a delayed message is listed as such");
      }
      request.set_page_token(response.next_page_token());
      if (request.page_token().empty()) break;
    }
    bench_.Print({.step = absl::StrCat("ListMessages, pages of ", kPageSize),
                  .latencies = &latencies});
  }

  void CancelSome() {
    Latencies latencies;
    for (const Known& known : TakeSome()) {
      v1::DeleteMessagesRequest request;
      request.set_queue(name_);
      request.mutable_filter()->add_ids(known.id);
      const auto response = Measure<v1::DeleteMessagesResponse>(
          &v1::AdminService::StubInterface::DeleteMessages, request, &latencies);
      Check(response.deleted() == 1, "a delayed message is cancelled by its id");
      times_seen_[known.index] = 1;
      ++cancelled_;
    }
    bench_.Print({.step = "DeleteMessages by id", .latencies = &latencies});
  }

  // To the end of all others, and to their begin.
  void RescheduleSome(absl::Time first_due, absl::Duration spread) {
    Latencies latencies;
    for (const Known& known : TakeSome()) {
      const absl::Time due = absl::FromUnixMillis(absl::ToUnixMillis(
          known.index % 2 == 0 ? first_due : first_due + spread));
      v1::RescheduleMessagesRequest request;
      request.set_queue(name_);
      request.mutable_filter()->add_ids(known.id);
      *request.mutable_deliver_at() = client::ToProto(due);
      const auto response = Measure<v1::RescheduleMessagesResponse>(
          &v1::AdminService::StubInterface::RescheduleMessages, request, &latencies);
      Check(response.rescheduled() == 1, "a delayed message is rescheduled by its id");
      due_ns_[known.index] = absl::ToUnixNanos(due);
    }
    bench_.Print({.step = "RescheduleMessages by id", .latencies = &latencies});
  }

  // Consumes all that is left, with acks: how late each came.
  void Consume(const std::string& step, absl::Time first_due) {
    const int64_t expected = messages() - cancelled_;
    if (absl::Now() > first_due) {
      std::cerr << "note: consuming began after the first was due; latencies say nothing\n";
    }
    Latencies late;
    int64_t early = 0;
    int64_t last_ns = 0;
    Consuming consuming(bench_.client(),
                        {.queue = name_,
                         .max_in_flight = kCredit,
                         .max_messages = expected,
                         .idle_timeout = std::max(first_due - absl::Now(), absl::ZeroDuration()) +
                                         kIdleAfter},
                        [&](client::Consumer& consumer, const v1::Delivery& delivery) {
                          const int64_t now_ns = NowNs();
                          const int64_t index = ReadBody(delivery.message().body()).first;
                          const int64_t late_ns = now_ns - due_ns_[index];
                          if (late_ns < 0) ++early;
                          late.Add(absl::Nanoseconds(late_ns));
                          ++times_seen_[index];
                          last_ns = now_ns;
                          consumer.Ack(delivery.receipt());
                        });
    consuming.Join();
    bench_.Print({.step = step,
                  .count = static_cast<int64_t>(late.size()),
                  .took = absl::FromUnixNanos(last_ns) - first_due,
                  .latencies = &late});
    Check(early == 0, absl::StrCat(early, " messages came before they were due"));
    int64_t wrong = 0;
    for (const uint8_t times : times_seen_) wrong += times != 1;
    Check(wrong == 0, absl::StrCat(wrong, " messages did not come exactly once"));
  }

  int64_t messages() const { return static_cast<int64_t>(due_ns_.size()); }

 private:
  template <typename Response, typename Method, typename Request>
  Response Measure(Method method, const Request& request, Latencies* latencies) {
    const absl::Time start = absl::Now();
    auto response = bench_.client().Call<Request, Response>(method, request);
    latencies->Add(absl::Now() - start);
    Require(response.status(), "a call about a delayed message");
    return *std::move(response);
  }

  std::vector<Known> Some() const {
    // Where there are few, some are left for the others.
    const auto quarter = std::max<int64_t>(1, messages() / 4);
    const size_t count = std::min<size_t>(known_.size(), std::min(kEachCall, quarter));
    return {known_.begin(), known_.begin() + static_cast<ptrdiff_t>(count)};
  }
  std::vector<Known> TakeSome() {
    std::vector<Known> some = Some();
    known_.erase(known_.begin(), known_.begin() + static_cast<ptrdiff_t>(some.size()));
    return some;
  }

  Bench& bench_;
  const std::string name_;
  std::vector<int64_t> due_ns_;
  std::vector<uint8_t> times_seen_;
  std::vector<Known> known_;
  int64_t cancelled_ = 0;
};

}  // namespace

void RunDelayed(const ScaleOptions& options) {
  std::mt19937_64 random(options.seed);
  Bench bench("Delayed messages");
  {
    DelayedQueue queue(bench, "spread", options.Scaled(kMessages));
    const absl::Time first_due = absl::Now() + options.Scaled(kLeadLeast, kLead);
    const absl::Duration spread = options.Scaled(kSpreadLeast, kSpread);
    const absl::Duration took = Timed([&] { queue.Publish(first_due, spread, random); });
    bench.Print({.step = "publish, each with its own due time",
                 .count = queue.messages(),
                 .took = took});
    queue.GetSome();
    queue.List();
    queue.CancelSome();
    queue.RescheduleSome(first_due, spread);
    bench.PrintRestarts();
    queue.Consume(absl::StrCat("deliver and ack, due over ", absl::FormatDuration(spread),
                               ": how late"),
                  first_due);
  }
  DelayedQueue queue(bench, "burst", options.Scaled(kMessages));
  const absl::Time first_due = absl::Now() + options.Scaled(kLeadLeast, kBurstLead);
  const absl::Duration took =
      Timed([&] { queue.Publish(first_due, absl::Seconds(1), random); });
  bench.Print({.step = "publish, all due in the same second",
               .count = queue.messages(),
               .took = took});
  queue.Consume("deliver and ack, all due in one second: how late", first_due);
}

}  // namespace sluice::bench
