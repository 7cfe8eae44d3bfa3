#include "server/api/in_flight_budget.h"

#include <utility>

namespace sluice::api {

void InFlightBudget::Give(int64_t bytes) {
  used_.fetch_sub(bytes, std::memory_order_seq_cst);
  if (has_waiters_.load(std::memory_order_seq_cst)) WakeIfRoom();
}

bool InFlightBudget::WaitIfFull(absl::AnyInvocable<void()> on_room) {
  if (!full()) return false;
  {
    absl::MutexLock lock(&mutex_);
    waiters_.push_back(std::move(on_room));
    has_waiters_.store(true, std::memory_order_seq_cst);
  }
  // The last bytes may have been given back before the waiter could be seen.
  WakeIfRoom();
  return true;
}

void InFlightBudget::WakeIfRoom() {
  if (full()) return;
  std::vector<absl::AnyInvocable<void()>> waiters;
  {
    absl::MutexLock lock(&mutex_);
    waiters.swap(waiters_);
    has_waiters_.store(false, std::memory_order_seq_cst);
  }
  for (auto& waiter : waiters) waiter();
}

void InFlightBudget::DropWaiters() {
  std::vector<absl::AnyInvocable<void()>> waiters;
  absl::MutexLock lock(&mutex_);
  waiters.swap(waiters_);
}

}  // namespace sluice::api
