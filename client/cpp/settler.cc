#include "client/cpp/settler.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "client/cpp/client.h"
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
          static_cast<size_t>(std::clamp(receipts_per_call, 1, kReceiptsPerCallMax))) {
  thread_ = std::thread([this] { Run(); });
}

Settler::~Settler() { Stop(absl::InfiniteDuration()); }

void Settler::Ack(std::string receipt, SettleCallback callback) {
  Item item;
  item.nack.set_receipt(std::move(receipt));
  item.callback = std::move(callback);
  std::lock_guard lock(mutex_);
  acks_.push_back(std::move(item));
  changed_.notify_all();
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

std::vector<Settler::Item> Settler::TakeSome(std::deque<Item>& from) {
  const auto count = static_cast<std::ptrdiff_t>(std::min(from.size(), receipts_per_call_));
  std::vector<Item> items(std::make_move_iterator(from.begin()),
                          std::make_move_iterator(from.begin() + count));
  from.erase(from.begin(), from.begin() + count);
  return items;
}

absl::Status Settler::SendAcks(const std::vector<Item>& items,
                               std::vector<absl::Status>* outcomes) {
  v1::AckRequest request;
  request.set_queue(queue_);
  for (const Item& item : items) request.add_receipts(item.nack.receipt());
  const auto response = client_.Call(&v1::QueueService::StubInterface::Ack, request);
  if (response.ok()) TakeFailures(*response, outcomes);
  return response.status();
}

absl::Status Settler::SendNacks(const std::vector<Item>& items,
                                std::vector<absl::Status>* outcomes) {
  v1::NackRequest request;
  request.set_queue(queue_);
  for (const Item& item : items) *request.add_items() = item.nack;
  const auto response = client_.Call(&v1::QueueService::StubInterface::Nack, request);
  if (response.ok()) TakeFailures(*response, outcomes);
  return response.status();
}

void Settler::Run() {
  absl::Duration pause = kFirstPause;
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !acks_.empty() || !nacks_.empty(); });
    if (acks_.empty() && nacks_.empty()) return;
    const bool is_ack = !acks_.empty();
    std::vector<Item> items = TakeSome(is_ack ? acks_ : nacks_);
    busy_ = items.size();
    const bool last_words = stopping_;
    lock.unlock();

    std::vector<absl::Status> outcomes(items.size());
    absl::Status status;
    if (last_words) {
      status = absl::CancelledError("the consumer was closed before this was settled");
    } else {
      status = is_ack ? SendAcks(items, &outcomes) : SendNacks(items, &outcomes);
    }
    const bool again = is_ack && retry_acks_ && !last_words && ReopenHelps(status);
    if (!again) {
      for (size_t i = 0; i < items.size(); ++i) {
        if (items[i].callback) items[i].callback(status.ok() ? outcomes[i] : status);
      }
    }

    lock.lock();
    busy_ = 0;
    if (again) {
      acks_.insert(acks_.begin(), std::make_move_iterator(items.begin()),
                   std::make_move_iterator(items.end()));
      WaitFor(changed_, lock, pause, [&] { return stopping_; });
      pause = std::min(pause * 2, kLongestPause);
    } else {
      pause = kFirstPause;
    }
    changed_.notify_all();
  }
}

}  // namespace sluice::client
