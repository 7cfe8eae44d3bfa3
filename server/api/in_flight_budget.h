// How many bytes of publishes the whole server holds that are not yet answered.
#ifndef SLUICE_SERVER_API_IN_FLIGHT_BUDGET_H_
#define SLUICE_SERVER_API_IN_FLIGHT_BUDGET_H_

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"

namespace sluice::api {

// Thread-safe. A single request may take it over the limit: what is already read must be held
// anyway; the limit decides whether more is read.
class InFlightBudget {
 public:
  explicit InFlightBudget(int64_t bytes_max) : bytes_max_(bytes_max) {}

  bool full() const { return used_.load(std::memory_order_relaxed) >= bytes_max_; }
  int64_t used() const { return used_.load(std::memory_order_relaxed); }
  void Take(int64_t bytes) { used_.fetch_add(bytes, std::memory_order_seq_cst); }
  // Runs the waiters, on this thread, once there is room again.
  void Give(int64_t bytes);

  // False if there is room now. Otherwise keeps `on_room` and runs it once when there is; it must
  // be quick.
  bool WaitIfFull(absl::AnyInvocable<void()> on_room);
  // Drops all waiters unrun.
  void DropWaiters();

 private:
  void WakeIfRoom();

  const int64_t bytes_max_;
  std::atomic<int64_t> used_{0};
  std::atomic<bool> has_waiters_{false};
  absl::Mutex mutex_;
  std::vector<absl::AnyInvocable<void()>> waiters_ ABSL_GUARDED_BY(mutex_);
};

// Counts the bytes of one request until it is answered or dropped.
class BudgetShare {
 public:
  BudgetShare(InFlightBudget* budget, int64_t bytes) : budget_(budget), bytes_(bytes) {
    budget_->Take(bytes_);
  }
  BudgetShare(BudgetShare&& other) noexcept
      : budget_(std::exchange(other.budget_, nullptr)), bytes_(other.bytes_) {}
  BudgetShare& operator=(BudgetShare&&) = delete;
  ~BudgetShare() {
    if (budget_) budget_->Give(bytes_);
  }

 private:
  InFlightBudget* budget_;
  const int64_t bytes_;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_IN_FLIGHT_BUDGET_H_
