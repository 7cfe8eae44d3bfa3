#include "client/cpp/worker.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "client/cpp/client.h"
#include "client/cpp/reconnect.h"
#include "client/cpp/status.h"
#include "client/cpp/time.h"

namespace sluice::client {
namespace {

// Leases are extended so often while they last: two may get lost.
constexpr int kExtendsPerLease = 3;
// Until the server has said how long leases are.
constexpr absl::Duration kLeaseGuess = absl::Seconds(30);
// How long Run goes on trying, once it was stopped, to settle what a broken stream left unsettled.
constexpr absl::Duration kSettleAfterStop = absl::Seconds(5);
// Of requests that nobody waits for the answer of.
constexpr int64_t kNoRequestId = 0;

using Taken = std::shared_ptr<const v1::Delivery>;
struct Job {
  Taken message;
  std::string receipt;  // the newest
};

// One Consume stream. Reading is for one thread; the rest is thread-safe.
class Stream {
 public:
  explicit Stream(Client& client) : rpc_(client.queues().Consume(&context_)) {}

  // Nothing is said about whether it arrives: the answer tells.
  void Send(const v1::ConsumeRequest& request) {
    std::lock_guard lock(writing_);
    if (!closed_) closed_ = !rpc_->Write(request);
  }
  void HalfClose() {
    std::lock_guard lock(writing_);
    if (!std::exchange(closed_, true)) rpc_->WritesDone();
  }
  bool Read(v1::ConsumeResponse* response) { return rpc_->Read(response); }
  absl::Status Finish() {
    {
      std::lock_guard lock(writing_);
      closed_ = true;
    }
    return FromGrpc(rpc_->Finish());
  }

 private:
  grpc::ClientContext context_;
  const std::unique_ptr<grpc::ClientReaderWriterInterface<v1::ConsumeRequest, v1::ConsumeResponse>> rpc_;
  std::mutex writing_;
  bool closed_ = false;  // nothing more may be, or can be, written
};

}  // namespace

// Run's thread reads. Each handling thread takes a message, and sends what becomes of it. The keeper
// extends leases, and ends deliveries when it is time to stop.
class Worker::Impl {
 public:
  Impl(Client& client, WorkerOptions options) : client_(client), options_(std::move(options)) {}

  absl::Status Run(const Handler& handler) {
    std::vector<std::thread> threads;
    for (int i = 0; i < options_.threads; ++i) threads.emplace_back([&] { Work(handler); });
    threads.emplace_back([this] { Keep(); });
    absl::Status status = RunStreams();
    {
      std::lock_guard lock(mutex_);
      ended_ = true;
      changed_.notify_all();
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& [id, settling] : settling_) {
      if (settling.message && options_.on_settled) options_.on_settled(*settling.message, status);
    }
    return status;
  }

  void Stop() {
    std::lock_guard lock(mutex_);
    StopTaking();
  }

 private:
  // Sent, and not answered: sent again when the stream breaks, as the same receipt twice is fine.
  struct Settling {
    v1::ConsumeRequest request;
    Taken message;  // null: it was given back untouched
  };

  absl::Status RunStreams() {
    absl::Duration pause = kFirstPause;
    while (true) {
      {
        std::lock_guard lock(mutex_);
        if (stopping_ && NothingLeft()) return absl::OkStatus();
      }
      bool progressed = false;
      const absl::Status status = RunStream(&progressed);
      const bool aged = ReasonOf(status) == v1::ERROR_REASON_STREAM_AGED;
      if (status.ok() || (!aged && !ReopenHelps(status))) return status;
      if (!aged && options_.on_reopen) options_.on_reopen(status);
      if (progressed) pause = kFirstPause;
      if (aged && progressed) continue;
      std::unique_lock lock(mutex_);
      const bool was_stopping = stopping_;
      if (was_stopping && absl::Now() > stopped_at_ + kSettleAfterStop) return status;
      PauseBeforeRetry(client_, changed_, lock, pause,
                       [&] { return stopping_ && !was_stopping; });
      pause = std::min(pause * 2, kLongestPause);
    }
  }

  // What a broken stream left unanswered, by calls: before the next one is given anything, as that
  // may be the same messages once more.
  absl::Status SettleUnanswered() {
    std::map<int64_t, Settling> unanswered;
    {
      std::lock_guard lock(mutex_);
      unanswered = settling_;
    }
    for (auto& [id, settling] : unanswered) {
      v1::ItemResults results;
      results.set_request_id(id);
      absl::Status status;
      if (settling.request.has_ack()) {
        settling.request.mutable_ack()->set_queue(options_.queue);
        auto answer = client_.Call(&v1::QueueService::StubInterface::Ack, settling.request.ack());
        status = answer.status();
        if (answer.ok()) results.mutable_failures()->Swap(answer->mutable_failures());
      } else {
        settling.request.mutable_nack()->set_queue(options_.queue);
        auto answer = client_.Call(&v1::QueueService::StubInterface::Nack, settling.request.nack());
        status = answer.status();
        if (answer.ok()) results.mutable_failures()->Swap(answer->mutable_failures());
      }
      if (!status.ok()) return status;
      TakeResults(results);
    }
    return absl::OkStatus();
  }

  absl::Status RunStream(bool* progressed) {
    if (absl::Status status = SettleUnanswered(); !status.ok()) return status;
    const auto stream = std::make_shared<Stream>(client_);
    stream->Send(MakeInit());
    std::vector<v1::ConsumeRequest> unanswered;
    {
      std::lock_guard lock(mutex_);
      stream_ = stream;
      drain_sent_ = drained_ = false;
      for (const auto& [id, settling] : settling_) unanswered.push_back(settling.request);
      LookAgain();
    }
    for (const v1::ConsumeRequest& request : unanswered) stream->Send(request);
    v1::ConsumeResponse response;
    while (stream->Read(&response)) {
      *progressed = true;
      Take(response);
    }
    {
      std::lock_guard lock(mutex_);
      stream_ = nullptr;
      started_ = false;
    }
    return stream->Finish();
  }

  v1::ConsumeRequest MakeInit() const {
    v1::ConsumeRequest request;
    v1::SubscribeRequest& init = *request.mutable_init();
    init.set_queue(options_.queue);
    init.set_consumer(options_.consumer);
    init.set_max_in_flight(options_.threads);
    init.set_consumer_priority(options_.consumer_priority);
    // What is worked on when the stream breaks is settled on the next one.
    init.set_keep_leases_on_close(true);
    if (options_.lease > absl::ZeroDuration()) *init.mutable_lease() = ToProto(options_.lease);
    return request;
  }

  void Take(const v1::ConsumeResponse& response) {
    switch (response.response_case()) {
      case v1::ConsumeResponse::kStarted: {
        std::lock_guard lock(mutex_);
        started_ = true;
        lease_ = FromProto(response.started().lease());
        active_at_ = absl::Now();
        LookAgain();
        return;
      }
      case v1::ConsumeResponse::kDeliveries:
        for (const v1::Delivery& delivery : response.deliveries().deliveries()) Take(delivery);
        return;
      case v1::ConsumeResponse::kResults: return TakeResults(response.results());
      case v1::ConsumeResponse::kLeaseLost: return Forget(response.lease_lost());
      case v1::ConsumeResponse::kDrained: {
        std::unique_lock lock(mutex_);
        drained_ = true;
        FinishIfDone(lock);
        return;
      }
      case v1::ConsumeResponse::RESPONSE_NOT_SET: return;
    }
  }

  void Take(const v1::Delivery& delivery) {
    std::unique_lock lock(mutex_);
    if (stopping_) {
      v1::NackItem release;
      release.set_action(v1::NACK_ACTION_RELEASE);
      return Settle(lock, delivery.receipt(), nullptr, std::move(release));
    }
    if (delivery.maybe_redelivered() && TakeAgain(lock, delivery)) return;
    const auto job = std::make_shared<Job>(
        Job{std::make_shared<const v1::Delivery>(delivery), delivery.receipt()});
    waiting_.push_back(job);
    held_[job->receipt] = job;
    if (++taken_ == options_.max_messages) StopTaking();
    changed_.notify_all();
  }

  // A crash of the server made it forget who has the message: we do, and go on with it, or have done
  // with it.
  bool TakeAgain(std::unique_lock<std::mutex>& lock, const v1::Delivery& delivery) {
    for (const auto& [id, settling] : settling_) {
      if (!settling.message || settling.message->message().id() != delivery.message().id()) continue;
      const Taken message = settling.message;
      Verdict verdict;
      if (settling.request.has_nack()) verdict = settling.request.nack().items(0);
      const int64_t same = id;
      settling_.erase(same);
      Settle(lock, delivery.receipt(), message, std::move(verdict));
      return true;
    }
    for (const auto& [receipt, job] : held_) {
      if (job->message->message().id() != delivery.message().id()) continue;
      const std::shared_ptr<Job> same = job;
      held_.erase(receipt);
      same->receipt = delivery.receipt();
      held_[same->receipt] = same;
      return true;
    }
    return false;
  }

  void TakeResults(const v1::ItemResults& results) {
    std::unique_lock lock(mutex_);
    const auto it = settling_.find(results.request_id());
    if (it == settling_.end()) return;  // an extend's, or answered before
    const Settling settled = std::move(it->second);
    settling_.erase(it);
    const absl::Status status =
        results.failures_size() == 0 ? absl::OkStatus() : FromItem(results.failures(0).status());
    if (settled.message && options_.on_settled) {
      lock.unlock();
      options_.on_settled(*settled.message, status);
      lock.lock();
    }
    FinishIfDone(lock);
  }

  // What nobody works on yet is another's now.
  void Forget(const v1::LeaseLost& lost) {
    std::unique_lock lock(mutex_);
    for (const std::string& receipt : lost.receipts()) {
      held_.erase(receipt);
      std::erase_if(waiting_, [&](const auto& job) { return job->receipt == receipt; });
    }
    FinishIfDone(lock);
  }

  void Work(const Handler& handler) {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return ended_ || !waiting_.empty(); });
      if (ended_) return;
      const std::shared_ptr<Job> job = std::move(waiting_.front());
      waiting_.pop_front();
      ++working_;
      lock.unlock();
      Verdict verdict = handler(*job->message);
      lock.lock();
      --working_;
      active_at_ = absl::Now();
      held_.erase(job->receipt);
      LookAgain();
      Settle(lock, job->receipt, job->message, std::move(verdict));
      lock.lock();
    }
  }

  // Unlocks.
  void Settle(std::unique_lock<std::mutex>& lock, const std::string& receipt, Taken message,
              Verdict verdict) {
    const int64_t id = ++last_id_;
    v1::ConsumeRequest request;
    request.set_request_id(id);
    if (verdict) {
      verdict->set_receipt(receipt);
      *request.mutable_nack()->add_items() = *std::move(verdict);
    } else {
      request.mutable_ack()->add_receipts(receipt);
    }
    settling_[id] = {request, std::move(message)};
    const std::shared_ptr<Stream> stream = stream_;
    lock.unlock();
    if (stream) stream->Send(request);
  }

  void Keep() {
    std::unique_lock lock(mutex_);
    absl::Time extended = absl::Now();
    while (!ended_) {
      look_again_ = false;
      const absl::Time now = absl::Now();
      const absl::Time extend_at = extended + lease_ / kExtendsPerLease;
      const bool idle = started_ && waiting_.empty() && working_ == 0 && !stopping_ &&
                        options_.idle_timeout > absl::ZeroDuration();
      const absl::Time idle_at = idle ? active_at_ + options_.idle_timeout : absl::InfiniteFuture();
      if (idle_at <= now) StopTaking();
      v1::ConsumeRequest request;
      request.set_request_id(kNoRequestId);
      if (stopping_ && stream_ && !drain_sent_) {
        drain_sent_ = true;
        request.mutable_drain();
      } else if (extend_at <= now) {
        extended = now;
        for (const auto& [receipt, job] : held_) request.mutable_extend()->add_receipts(receipt);
        if (request.has_extend() && options_.lease > absl::ZeroDuration()) {
          *request.mutable_extend()->mutable_lease() = ToProto(options_.lease);
        }
      } else {
        WaitFor(changed_, lock, std::min(extend_at, idle_at) - now,
                [&] { return ended_ || look_again_; });
        continue;
      }
      const std::shared_ptr<Stream> stream = stream_;
      if (!stream || request.request_case() == v1::ConsumeRequest::REQUEST_NOT_SET) continue;
      lock.unlock();
      stream->Send(request);
      lock.lock();
    }
  }

  void StopTaking() {
    if (std::exchange(stopping_, true)) return;
    stopped_at_ = absl::Now();
    LookAgain();
  }

  // Something changed that the keeper's next step depends on.
  void LookAgain() {
    look_again_ = true;
    changed_.notify_all();
  }

  bool NothingLeft() const { return waiting_.empty() && working_ == 0 && settling_.empty(); }

  void FinishIfDone(std::unique_lock<std::mutex>& lock) {
    if (!drained_ || !NothingLeft() || !stream_) return;
    const std::shared_ptr<Stream> stream = stream_;
    lock.unlock();
    stream->HalfClose();
    lock.lock();
  }

  Client& client_;
  const WorkerOptions options_;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  std::shared_ptr<Stream> stream_;              // null: there is none
  bool started_ = false;                        // the server has answered it
  std::deque<std::shared_ptr<Job>> waiting_;    // for a thread
  int working_ = 0;                             // threads that have one
  // By receipt: waiting or worked on, and leased.
  std::map<std::string, std::shared_ptr<Job>> held_;
  std::map<int64_t, Settling> settling_;        // by request id
  int64_t last_id_ = kNoRequestId;
  int64_t taken_ = 0;
  absl::Duration lease_ = kLeaseGuess;
  absl::Time active_at_ = absl::Now();
  bool stopping_ = false;  // takes nothing more
  absl::Time stopped_at_;
  bool look_again_ = false;
  bool drain_sent_ = false;
  bool drained_ = false;
  bool ended_ = false;
};

Worker::Worker(Client& client, WorkerOptions options)
    : impl_(std::make_unique<Impl>(client, std::move(options))) {}
Worker::~Worker() = default;

absl::Status Worker::Run(const Handler& handler) { return impl_->Run(handler); }
void Worker::Stop() { impl_->Stop(); }

}  // namespace sluice::client
