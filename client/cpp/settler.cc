#include "client/cpp/settler.h"

#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "client/cpp/client.h"
#include "client/cpp/loop.h"
#include "client/cpp/reconnect.h"
#include "client/cpp/time.h"

namespace sluice::client {
namespace {

// API rule: receipts of one call.
constexpr int kReceiptsPerCallMax = 10'000;

// What waits to be settled in one way, and the call that is under way.
template <typename Item, typename RequestType, typename ResponseType>
struct Line {
  using Request = RequestType;
  using Response = ResponseType;
  struct Waiting {
    Item item;
    SettleCallback callback;
  };

  std::deque<Waiting> waiting;
  std::vector<Waiting> sent;  // their items are in the request
  Request request;
  Response response;
  std::unique_ptr<grpc::ClientAsyncResponseReaderInterface<Response>> reader;
};
using AckLine = Line<std::string, v1::AckRequest, v1::AckResponse>;
using NackLine = Line<v1::NackItem, v1::NackRequest, v1::NackResponse>;

void MoveIntoRequest(AckLine& line) {
  for (auto& sent : line.sent) line.request.add_receipts(std::move(sent.item));
}
void MoveIntoRequest(NackLine& line) {
  for (auto& sent : line.sent) line.request.add_items()->Swap(&sent.item);
}

absl::Status ClosedError() {
  return absl::CancelledError("the consumer was closed before this was settled");
}

}  // namespace

class Settler::Impl {
 public:
  Impl(Client& client, std::string queue, bool retry_acks, int receipts_per_call)
      : client_(client),
        queue_(std::move(queue)),
        retry_acks_(retry_acks),
        receipts_per_call_(
            static_cast<size_t>(std::clamp(receipts_per_call, 1, kReceiptsPerCallMax))) {}
  ~Impl() { Stop(absl::InfiniteDuration()); }

  void Ack(std::string receipt, SettleCallback callback) {
    std::unique_lock lock(mutex_);
    if (stopping_) return;
    acks_.waiting.push_back({std::move(receipt), std::move(callback)});
    if (!busy_) SendNext(lock);
  }

  void Nack(v1::NackItem nack, SettleCallback callback) {
    std::unique_lock lock(mutex_);
    if (stopping_) return;
    nacks_.waiting.push_back({std::move(nack), std::move(callback)});
    if (!busy_) SendNext(lock);
  }

  bool Flush(absl::Duration timeout) {
    std::unique_lock lock(mutex_);
    return WaitFor(changed_, lock, timeout, [&] { return Idle(); });
  }

  void Stop(absl::Duration timeout) {
    Flush(timeout);
    std::unique_lock lock(mutex_);
    stopping_ = true;
    if (context_) context_->TryCancel();
    if (pausing_) pause_alarm_.Cancel();
    changed_.wait(lock, [&] { return Idle(); });
  }

 private:
  bool Idle() const { return acks_.waiting.empty() && nacks_.waiting.empty() && !busy_; }

  // Makes the next call if there is something to settle; nothing may be under way. Lets go of the
  // lock for good.
  void SendNext(std::unique_lock<std::mutex>& lock) {
    if (stopping_) return FailWaiting(lock);
    if (!acks_.waiting.empty()) {
      Send(acks_, &v1::QueueService::StubInterface::PrepareAsyncAck, acked_, lock);
    } else if (!nacks_.waiting.empty()) {
      Send(nacks_, &v1::QueueService::StubInterface::PrepareAsyncNack, nacked_, lock);
    } else {
      changed_.notify_all();
    }
  }

  template <typename AnyLine, typename Prepare>
  void Send(AnyLine& line, Prepare prepare, Loop::Tag& answered,
            std::unique_lock<std::mutex>& lock) {
    busy_ = true;
    auto& waiting = line.waiting;
    const auto count = static_cast<std::ptrdiff_t>(std::min(waiting.size(), receipts_per_call_));
    line.sent.assign(std::make_move_iterator(waiting.begin()),
                     std::make_move_iterator(waiting.begin() + count));
    waiting.erase(waiting.begin(), waiting.begin() + count);
    context_.emplace();
    client_.SetDeadline({}, &*context_);
    // What is sent again goes out as soon as there is a connection.
    context_->set_wait_for_ready(pause_ > kFirstPause);
    lock.unlock();

    line.request.Clear();
    line.request.set_queue(queue_);
    MoveIntoRequest(line);
    line.response.Clear();
    line.reader = (client_.queues().*prepare)(&*context_, line.request, client_.loop().queue());
    line.reader->StartCall();
    // The last: the call, and with it the reader, is the loop's from here on.
    line.reader->Finish(&line.response, &status_, answered.name());
  }

  // ---- on the loop

  void OnAcked() {
    const absl::Status status = FromGrpc(status_);
    if (retry_acks_ && ReopenHelps(status)) {
      std::unique_lock lock(mutex_);
      if (!stopping_) {
        EndCall(acks_);
        return SendAgainLater();
      }
    }
    TellOutcomes(acks_, status);
  }

  void OnNacked() { TellOutcomes(nacks_, FromGrpc(status_)); }

  template <typename AnyLine>
  void EndCall(AnyLine& line) {
    line.reader.reset();  // it lives in what the context holds
    context_.reset();
  }

  void SendAgainLater() {
    for (size_t i = acks_.sent.size(); i-- > 0;) {
      std::string* receipt = acks_.request.mutable_receipts(static_cast<int>(i));
      acks_.waiting.push_front({std::move(*receipt), std::move(acks_.sent[i].callback)});
    }
    acks_.sent.clear();
    pausing_ = true;
    pause_alarm_.Set(client_.loop().queue(),
                     std::chrono::system_clock::now() + absl::ToChronoMilliseconds(pause_),
                     paused_.name());
    pause_ = std::min(pause_ * 2, kLongestPause);
  }

  void OnPaused() {
    std::unique_lock lock(mutex_);
    pausing_ = false;
    busy_ = false;
    SendNext(lock);
  }

  template <typename AnyLine>
  void TellOutcomes(AnyLine& line, const absl::Status& status) {
    std::vector<absl::Status> outcomes(line.sent.size(), status);
    if (status.ok()) {
      for (const v1::ItemFailure& failure : line.response.failures()) {
        const auto index = static_cast<size_t>(failure.index());
        if (index < outcomes.size()) outcomes[index] = FromItem(failure.status());
      }
    }
    for (size_t i = 0; i < outcomes.size(); ++i) {
      if (line.sent[i].callback) line.sent[i].callback(outcomes[i]);
    }
    line.sent.clear();
    std::unique_lock lock(mutex_);
    EndCall(line);
    pause_ = kFirstPause;
    busy_ = false;
    SendNext(lock);
  }

  // ---- on whatever thread

  void FailWaiting(std::unique_lock<std::mutex>& lock) {
    std::deque<AckLine::Waiting> acks;
    std::deque<NackLine::Waiting> nacks;
    acks.swap(acks_.waiting);
    nacks.swap(nacks_.waiting);
    busy_ = true;
    lock.unlock();
    for (auto& ack : acks) {
      if (ack.callback) ack.callback(ClosedError());
    }
    for (auto& nack : nacks) {
      if (nack.callback) nack.callback(ClosedError());
    }
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }

  Client& client_;
  const std::string queue_;
  const bool retry_acks_;
  const size_t receipts_per_call_;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_, but that the call is of whoever has made it, until it is answered:
  AckLine acks_;
  NackLine nacks_;
  grpc::Status status_;
  std::optional<grpc::ClientContext> context_;  // while a call is under way, to cancel it
  absl::Duration pause_ = kFirstPause;          // before the next retry
  grpc::Alarm pause_alarm_;
  bool busy_ = false;  // a call, its callbacks or a pause
  bool pausing_ = false;
  bool stopping_ = false;

  Loop::Tag acked_{[this](bool) { OnAcked(); }};
  Loop::Tag nacked_{[this](bool) { OnNacked(); }};
  Loop::Tag paused_{[this](bool) { OnPaused(); }};
};

Settler::Settler(Client& client, std::string queue, bool retry_acks, int receipts_per_call)
    : impl_(std::make_unique<Impl>(client, std::move(queue), retry_acks, receipts_per_call)) {}
Settler::~Settler() = default;

void Settler::Ack(std::string receipt, SettleCallback callback) {
  impl_->Ack(std::move(receipt), std::move(callback));
}
void Settler::Nack(v1::NackItem item, SettleCallback callback) {
  impl_->Nack(std::move(item), std::move(callback));
}
bool Settler::Flush(absl::Duration timeout) { return impl_->Flush(timeout); }
void Settler::Stop(absl::Duration timeout) { impl_->Stop(timeout); }

}  // namespace sluice::client
