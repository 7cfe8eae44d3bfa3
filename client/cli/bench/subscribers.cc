#include "client/cli/bench/subscribers.h"

#include <algorithm>

#include "client/cli/bench/clock.h"

namespace sluice::cli::bench {
namespace {

// Of one connection: a server allows 1,000 calls on it, and our own need room too.
constexpr int kPerConnection = 500;
constexpr absl::Duration kStopTimeout = absl::Seconds(10);

}  // namespace

// One stream. Its reads follow each other, so its counts have one writer at a time.
class Subscribers::Subscriber : public grpc::ClientReadReactor<v1::SubscribeResponse> {
 public:
  explicit Subscriber(Subscribers& all) : all_(all) {}

  void Start(client::Client& client, const v1::SubscribeRequest& request) {
    request_ = request;
    client.queues().async()->Subscribe(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }
  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (response_.has_started()) all_.Started();
    all_.Take(response_, *this);
    StartRead(&response_);
  }
  void OnDone(const grpc::Status& status) override { all_.Ended(status); }

  int64_t measured = 0;

 private:
  Subscribers& all_;
  grpc::ClientContext context_;
  v1::SubscribeRequest request_;
  v1::SubscribeResponse response_;
};

Subscribers::Subscribers(Run& run, const std::string& queue, Ledger& ledger)
    : run_(run),
      ledger_(ledger),
      queue_(queue),
      settler_(run.client(), queue, /*retry_acks=*/false, run.options().ack_batch) {
  for (int i = 0; i < run.options().consumers; ++i) {
    if (i % kPerConnection == 0) clients_.push_back(run.NewClient());
    subscribers_.push_back(std::make_unique<Subscriber>(*this));
  }
}

Subscribers::~Subscribers() { Stop(); }

void Subscribers::Start() {
  v1::SubscribeRequest request;
  request.set_queue(queue_);
  request.set_consumer("sluice bench");
  request.set_max_in_flight(run_.options().credit);
  {
    std::lock_guard lock(mutex_);
    live_ = static_cast<int64_t>(subscribers_.size());
  }
  for (size_t i = 0; i < subscribers_.size(); ++i) {
    subscribers_[i]->Start(*clients_[i / kPerConnection], request);
  }
  const auto started = [this] {
    std::lock_guard lock(mutex_);
    return started_;
  };
  const auto all = static_cast<int64_t>(subscribers_.size());
  if (!WaitWhileMoving(run_, [&] { return started() == all; }, started)) {
    run_.Fail(absl::FailedPreconditionError("subscriptions are not answered"));
  }
}

void Subscribers::Stop() {
  settler_.Stop(kStopTimeout);
  std::unique_lock lock(mutex_);
  stopping_ = true;
  lock.unlock();
  for (const auto& subscriber : subscribers_) subscriber->Cancel();
  lock.lock();
  changed_.wait(lock, [this] { return live_ == 0; });
}

void Subscribers::Take(const v1::SubscribeResponse& response, Subscriber& subscriber) {
  std::vector<int64_t> latencies;
  for (const v1::Delivery& delivery : response.deliveries()) {
    const std::optional<Stamp> stamp = ledger_.Deliver(delivery);
    if (!stamp) continue;
    if (stamp->phase == phase_) latencies.push_back(NowNs() - stamp->due_ns);
    settler_.Ack(delivery.receipt(), [this, producer = stamp->producer,
                                      sequence = stamp->sequence](const absl::Status& status) {
      if (status.ok()) {
        ledger_.Ack(producer, sequence);
        run_.progress().Acked(1);
      } else if (client::ReasonOf(status) != v1::ERROR_REASON_LEASE_EXPIRED) {
        run_.Fail(status);
      }
    });
  }
  if (latencies.empty()) return;
  subscriber.measured += static_cast<int64_t>(latencies.size());
  std::lock_guard lock(mutex_);
  for (const int64_t latency : latencies) latency_.Record(latency);
}

void Subscribers::Started() {
  std::lock_guard lock(mutex_);
  ++started_;
}

void Subscribers::Ended(const grpc::Status& status) {
  std::lock_guard lock(mutex_);
  if (!stopping_) run_.Fail(client::FromGrpc(status));
  --live_;
  changed_.notify_all();
}

LatencySummary Subscribers::latency() const {
  std::lock_guard lock(mutex_);
  return latency_.Summary();
}

double Subscribers::MaxToMin() const {
  const auto [least, most] = std::minmax_element(
      subscribers_.begin(), subscribers_.end(),
      [](const auto& a, const auto& b) { return a->measured < b->measured; });
  return static_cast<double>((*most)->measured) /
         static_cast<double>(std::max<int64_t>((*least)->measured, 1));
}

}  // namespace sluice::cli::bench
