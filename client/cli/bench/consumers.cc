#include "client/cli/bench/consumers.h"

#include <atomic>
#include <limits>
#include <optional>
#include <thread>
#include <utility>

#include "client/cli/bench/clock.h"
#include "client/cpp/consumer.h"

namespace sluice::cli::bench {
namespace {

constexpr uint32_t kNoPhase = 0;
constexpr uint32_t kAnyPhase = std::numeric_limits<uint32_t>::max();
// The credit is told in messages; in bytes there is room for it, up to what a server may grant.
constexpr int64_t kCreditBytes = 64 << 20;

client::ConsumerOptions OptionsFor(const Options& options, const std::string& queue) {
  client::ConsumerOptions consumer;
  consumer.queue = queue;
  consumer.consumer = "sluice bench";
  consumer.max_in_flight = options.credit;
  consumer.max_bytes_in_flight = kCreditBytes;
  consumer.ack_batch = options.ack_batch;
  return consumer;
}

}  // namespace

class Consumers::Consumer {
 public:
  Consumer(Run& run, const std::string& queue, Ledger& ledger)
      : run_(run),
        ledger_(ledger),
        client_(run.NewClient()),
        consumer_(*client_, OptionsFor(run.options(), queue)) {}
  ~Consumer() { Stop(); }

  void Start() {
    thread_ = std::thread([this] { Consume(); });
  }

  void Measure(uint32_t phase) { phase_ = phase; }

  void Stop() {
    if (!thread_.joinable()) return;
    consumer_.Stop();
    thread_.join();
  }

  // After Stop:
  const LatencyHistogram& delivery() const { return delivery_; }
  const LatencyHistogram& ack() const { return ack_; }

 private:
  void Consume() {
    const absl::Status status =
        consumer_.Run([this](const v1::Delivery& delivery) { Take(delivery); });
    if (!status.ok()) run_.Fail(status);
  }

  void Take(const v1::Delivery& delivery) {
    const std::optional<Stamp> stamp = ledger_.Deliver(delivery);
    if (!stamp) return;
    const int64_t now_ns = NowNs();
    const uint32_t phase = phase_;
    if (stamp->phase == phase) delivery_.Record(now_ns - stamp->due_ns);
    const bool counts = stamp->phase == phase || phase == kAnyPhase;
    consumer_.Ack(delivery.receipt(),
                  [this, key = AckKey{stamp->sequence, stamp->producer, counts},
                   now_ns](const absl::Status& status) { Acked(status, key, now_ns); });
  }

  // What an ack's callback needs of the stamp.
  struct AckKey {
    uint64_t sequence;
    uint32_t producer;
    bool counts;
  };

  // On the thread of the client.
  void Acked(const absl::Status& status, const AckKey& key, int64_t delivered_ns) {
    // A lost lease is no error: the message comes again, and counts when that one is acked.
    if (!status.ok()) {
      if (client::ReasonOf(status) != v1::ERROR_REASON_LEASE_EXPIRED) run_.Fail(status);
      return;
    }
    if (key.counts) ack_.Record(NowNs() - delivered_ns);
    ledger_.Ack(key.producer, key.sequence);
    run_.progress().Acked(1);
  }

  Run& run_;
  Ledger& ledger_;
  std::atomic<uint32_t> phase_{kNoPhase};
  LatencyHistogram delivery_;  // of the consumer's thread
  LatencyHistogram ack_;       // of the thread of the client
  const std::unique_ptr<client::Client> client_;
  client::Consumer consumer_;
  std::thread thread_;
};

Consumers::Consumers(Run& run, const std::string& queue, Ledger& ledger) {
  for (int i = 0; i < run.options().consumers; ++i) {
    consumers_.push_back(std::make_unique<Consumer>(run, queue, ledger));
  }
}

Consumers::~Consumers() { Stop(); }

void Consumers::Start() {
  for (const auto& consumer : consumers_) consumer->Start();
}

void Consumers::Measure(const Phase& phase, bool any_phase) {
  for (const auto& consumer : consumers_) consumer->Measure(any_phase ? kAnyPhase : phase.number);
}

void AwaitAcked(Run& run, const Ledger& ledger, int64_t total, absl::Duration seconds) {
  const int64_t begun_ns = NowNs();
  const auto timed_out = [&] {
    return seconds != absl::InfiniteDuration() &&
           NowNs() - begun_ns >= absl::ToInt64Nanoseconds(seconds);
  };
  const bool moved = WaitWhileMoving(
      run, [&] { return ledger.acked() >= total || timed_out(); },
      [&] { return ledger.acked(); });
  if (!moved && !run.stopping()) {
    run.Fail(absl::DataLossError("what was published is not delivered, or its acks not answered"));
  }
}

Delivered Consumers::Stop() {
  Delivered delivered;
  for (const auto& consumer : consumers_) consumer->Stop();
  for (const auto& consumer : consumers_) {
    delivered.delivery.Merge(consumer->delivery());
    delivered.ack.Merge(consumer->ack());
  }
  return delivered;
}

}  // namespace sluice::cli::bench
