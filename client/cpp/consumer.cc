#include "client/cpp/consumer.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "client/cpp/client.h"
#include "client/cpp/loop.h"
#include "client/cpp/reconnect.h"
#include "client/cpp/time.h"

namespace sluice::client {
namespace {

// Not zero, which would be for ever; long enough for what waits to be delivered.
constexpr absl::Duration kShortestIdleTimeout = absl::Milliseconds(100);

// One stream, read by one thread.
class Subscription {
 public:
  // `context` must outlive it.
  Subscription(Client& client, grpc::ClientContext* context, const v1::SubscribeRequest& request)
      : reader_(client.queues().PrepareAsyncSubscribe(context, request, client.loop().queue())) {
    reader_->StartCall(step_.name());
    started_ = Await();
    if (started_) reader_->Read(&responses_[0], step_.name());
  }

  // Null: nothing more comes, see Finish. What it returned before is gone then, as the next one is
  // read while this one is handled.
  const v1::SubscribeResponse* Next() {
    if (!started_ || !Await()) return nullptr;
    const v1::SubscribeResponse* const response = &responses_[reading_];
    reading_ = 1 - reading_;
    reader_->Read(&responses_[reading_], step_.name());
    return response;
  }

  // Only after Next returned null.
  grpc::Status Finish() {
    grpc::Status status;
    reader_->Finish(&status, step_.name());
    Await();
    return status;
  }

 private:
  // Waits for the operation under way. Whether it worked.
  bool Await() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_; });
    done_ = false;
    return ok_;
  }
  void OnStep(bool ok) {
    std::lock_guard lock(mutex_);
    ok_ = ok;
    done_ = true;
    changed_.notify_one();
  }

  const std::unique_ptr<grpc::ClientAsyncReaderInterface<v1::SubscribeResponse>> reader_;
  std::array<v1::SubscribeResponse, 2> responses_;
  size_t reading_ = 0;
  bool started_ = false;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  bool done_ = false;
  bool ok_ = false;
  Loop::Tag step_{[this](bool ok) { OnStep(ok); }};
};

}  // namespace

// Run's thread reads and handles. A second thread waits for Stop: it lets acks out before it
// cancels the stream, since a cancel makes every unsettled message ready for others at once.
class Consumer::Impl {
 public:
  Impl(Client& client, ConsumerOptions options)
      : client_(client),
        options_(std::move(options)),
        settler_(client, options_.queue, options_.reopen, options_.ack_batch) {}

  absl::Status Run(const Handler& handler) {
    std::thread stopper([this] { CancelWhenStopped(); });
    const absl::Status status = RunStreams(handler);
    settler_.Stop(options_.close_timeout);
    {
      std::lock_guard lock(mutex_);
      ended_ = true;
      changed_.notify_all();
    }
    stopper.join();
    return status;
  }

  void Stop() {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }

  Settler& settler() { return settler_; }

 private:
  absl::Status RunStreams(const Handler& handler) {
    absl::Duration pause = kFirstPause;
    while (true) {
      bool progressed = false;
      const absl::Status status = RunStream(handler, &progressed);
      if (stopping() || status.ok() || AllDelivered()) return absl::OkStatus();
      // The end of a stream's life is no error, and no concern of our caller's.
      aged_ = ReasonOf(status) == v1::ERROR_REASON_STREAM_AGED;
      if (!aged_ && (!options_.reopen || !ReopenHelps(status))) return status;
      if (!aged_ && options_.on_reopen) options_.on_reopen(status);
      if (progressed) pause = kFirstPause;
      if (aged_ && progressed) continue;
      std::unique_lock lock(mutex_);
      if (PauseBeforeRetry(client_, changed_, lock, pause, [&] { return stopping_; })) {
        return absl::OkStatus();
      }
      pause = std::min(pause * 2, kLongestPause);
    }
  }

  absl::Status RunStream(const Handler& handler, bool* progressed) {
    grpc::ClientContext context;
    {
      std::lock_guard lock(mutex_);
      if (stopping_) return absl::OkStatus();
      context_ = &context;
    }
    Subscription subscription(client_, &context, MakeRequest());
    while (const v1::SubscribeResponse* response = subscription.Next()) {
      *progressed = true;
      if (response->has_lease_lost() && options_.on_lease_lost) {
        options_.on_lease_lost(response->lease_lost());
      }
      if (response->deliveries_size() > 0) Handle(*response, handler);
    }
    const grpc::Status status = subscription.Finish();
    std::lock_guard lock(mutex_);
    context_ = nullptr;
    return FromGrpc(status);
  }

  void Handle(const v1::SubscribeResponse& response, const Handler& handler) {
    for (const v1::Delivery& delivery : response.deliveries()) {
      if (stopping()) {
        Release(delivery);
      } else {
        ++delivered_;
        last_delivery_ = absl::Now();
        handler(delivery);
      }
    }
    if (options_.after_batch) options_.after_batch();
  }

  void Release(const v1::Delivery& delivery) {
    if (delivery.receipt().empty()) return;
    v1::NackItem item;
    item.set_receipt(delivery.receipt());
    item.set_action(v1::NACK_ACTION_RELEASE);
    settler_.Nack(std::move(item), nullptr);
  }

  v1::SubscribeRequest MakeRequest() const {
    v1::SubscribeRequest request;
    request.set_queue(options_.queue);
    request.set_consumer(options_.consumer);
    request.set_max_in_flight(options_.max_in_flight);
    request.set_max_bytes_in_flight(options_.max_bytes_in_flight);
    request.set_auto_ack(options_.auto_ack);
    request.set_exclusive(options_.exclusive);
    request.set_consumer_priority(options_.consumer_priority);
    request.set_keep_leases_on_close(options_.keep_leases_on_close);
    if (options_.rate_per_second > 0) {
      request.mutable_delivery_rate()->set_per_second(options_.rate_per_second);
      request.mutable_delivery_rate()->set_burst(options_.rate_burst);
    }
    if (options_.lease > absl::ZeroDuration()) *request.mutable_lease() = ToProto(options_.lease);
    if (options_.idle_timeout > absl::ZeroDuration()) {
      *request.mutable_idle_timeout() = ToProto(IdleTimeLeft());
    }
    if (options_.max_messages > 0) request.set_max_messages(options_.max_messages - delivered_);
    return request;
  }

  // A stream that takes over from an aged one goes on counting.
  absl::Duration IdleTimeLeft() const {
    if (!aged_) return options_.idle_timeout;
    return std::max(options_.idle_timeout - (absl::Now() - last_delivery_), kShortestIdleTimeout);
  }

  bool AllDelivered() const {
    return options_.max_messages > 0 && delivered_ >= options_.max_messages;
  }

  bool stopping() {
    std::lock_guard lock(mutex_);
    return stopping_;
  }

  void CancelWhenStopped() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopping_ || ended_; });
    if (ended_) return;
    lock.unlock();
    settler_.Flush(options_.close_timeout);
    lock.lock();
    if (context_ != nullptr) context_->TryCancel();
  }

  Client& client_;
  const ConsumerOptions options_;
  Settler settler_;
  // Only Run's thread:
  int64_t delivered_ = 0;
  absl::Time last_delivery_ = absl::Now();
  bool aged_ = false;  // the last stream ended by its age

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  bool stopping_ = false;
  bool ended_ = false;
  grpc::ClientContext* context_ = nullptr;  // of the live stream, to cancel it
};

Consumer::Consumer(Client& client, ConsumerOptions options)
    : impl_(std::make_unique<Impl>(client, std::move(options))) {}
Consumer::~Consumer() = default;
absl::Status Consumer::Run(const Handler& handler) { return impl_->Run(handler); }
void Consumer::Stop() { impl_->Stop(); }
void Consumer::Ack(const std::string& receipt, SettleCallback callback) {
  impl_->settler().Ack(receipt, std::move(callback));
}
void Consumer::Nack(v1::NackItem item, SettleCallback callback) {
  impl_->settler().Nack(std::move(item), std::move(callback));
}

}  // namespace sluice::client
