#include "client/cpp/settler.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "client/cpp/client.h"
#include "client/cpp/reconnect.h"
#include "client/cpp/time.h"

namespace sluice::client {
namespace {

// API rule: receipts of one call.
constexpr int kReceiptsPerCallMax = 10'000;

template <typename Response>
void TakeFailures(const Response& response, std::vector<absl::Status>* outcomes) {
  for (const v1::ItemFailure& failure : response.failures()) {
    const auto index = static_cast<size_t>(failure.index());
    if (index < outcomes->size()) (*outcomes)[index] = FromItem(failure.status());
  }
}

}  // namespace

Settler::Settler(Client& client, std::string queue, bool retry_acks, int receipts_per_call)
    : client_(client),
      queue_(std::move(queue)),
      retry_acks_(retry_acks),
      receipts_per_call_(
          static_cast<size_t>(std::clamp(receipts_per_call, 1, kReceiptsPerCallMax))),
      pause_(kFirstPause) {
  thread_ = std::thread([this] { Run(); });
}

Settler::~Settler() { Stop(absl::InfiniteDuration()); }

void Settler::Ack(std::string receipt, SettleCallback callback) {
  std::lock_guard lock(mutex_);
  acks_.push_back({std::move(receipt), std::move(callback)});
  if (acks_.size() == 1) changed_.notify_all();
}

void Settler::Nack(v1::NackItem nack, SettleCallback callback) {
  std::lock_guard lock(mutex_);
  nacks_.push_back({std::move(nack), std::move(callback)});
  changed_.notify_all();
}

bool Settler::Flush(absl::Duration timeout) {
  std::unique_lock lock(mutex_);
  return WaitFor(changed_, lock, timeout,
                 [&] { return acks_.empty() && nacks_.empty() && busy_ == 0; });
}

void Settler::Stop(absl::Duration timeout) {
  Flush(timeout);
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Settler::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !acks_.empty() || !nacks_.empty(); });
    if (!acks_.empty()) {
      SettleSome(acks_, lock);
    } else if (!nacks_.empty()) {
      SettleSome(nacks_, lock);
    } else {
      return;
    }
  }
}

template <typename Item>
void Settler::SettleSome(std::deque<Item>& waiting, std::unique_lock<std::mutex>& lock) {
  const auto count = static_cast<std::ptrdiff_t>(std::min(waiting.size(), receipts_per_call_));
  std::vector<Item> items(std::make_move_iterator(waiting.begin()),
                          std::make_move_iterator(waiting.begin() + count));
  waiting.erase(waiting.begin(), waiting.begin() + count);
  busy_ = items.size();
  const bool last_words = stopping_;
  lock.unlock();

  Outcomes outcomes(items.size());
  absl::Status status;
  bool again = false;
  if (last_words) {
    status = absl::CancelledError("the consumer was closed before this was settled");
  } else {
    again = Send(items, &status, &outcomes);
  }
  if (!again) {
    for (size_t i = 0; i < items.size(); ++i) {
      if (items[i].callback) items[i].callback(status.ok() ? outcomes[i] : status);
    }
  }

  lock.lock();
  busy_ = 0;
  if (again) {
    waiting.insert(waiting.begin(), std::make_move_iterator(items.begin()),
                   std::make_move_iterator(items.end()));
    PauseBeforeRetry(client_, changed_, lock, pause_, [&] { return stopping_; });
    pause_ = std::min(pause_ * 2, kLongestPause);
  } else {
    pause_ = kFirstPause;
  }
  changed_.notify_all();
}

bool Settler::Send(std::vector<WaitingAck>& items, absl::Status* status, Outcomes* outcomes) {
  v1::AckRequest request;
  request.set_queue(queue_);
  for (WaitingAck& item : items) request.add_receipts(std::move(item.receipt));
  const auto response = client_.Call(&v1::QueueService::StubInterface::Ack, request);
  *status = response.status();
  if (response.ok()) TakeFailures(*response, outcomes);
  if (!retry_acks_ || !ReopenHelps(*status)) return false;
  for (size_t i = 0; i < items.size(); ++i) {
    items[i].receipt = std::move(*request.mutable_receipts(static_cast<int>(i)));
  }
  return true;
}

bool Settler::Send(std::vector<WaitingNack>& items, absl::Status* status, Outcomes* outcomes) {
  v1::NackRequest request;
  request.set_queue(queue_);
  for (WaitingNack& item : items) request.add_items()->Swap(&item.nack);
  const auto response = client_.Call(&v1::QueueService::StubInterface::Nack, request);
  *status = response.status();
  if (response.ok()) TakeFailures(*response, outcomes);
  return false;
}

}  // namespace sluice::client
