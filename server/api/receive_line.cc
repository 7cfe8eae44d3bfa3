#include "server/api/receive_line.h"

#include <grpc/support/time.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "server/api/call.h"

namespace sluice::api {
namespace {

constexpr int64_t kNsPerMs = 1'000'000;

}  // namespace

void ReceiveLine::Join(std::shared_ptr<UnaryCall> call) {
  waiting_.push_back(std::move(call));
  StartNext();
}

void ReceiveLine::Leave(const UnaryCall* call) {
  const auto it = std::find_if(receiving_.begin(), receiving_.end(),
                               [&](const Receiving& r) { return r.call.get() == call; });
  if (it != receiving_.end()) receiving_.erase(it);
  StartNext();
}

void ReceiveLine::Drop() {
  receiving_.clear();
  waiting_.clear();
}

void ReceiveLine::StartNext() {
  while (static_cast<int>(receiving_.size()) < limits_.calls_max && !waiting_.empty()) {
    const auto next = limits_.newest_first ? std::prev(waiting_.end()) : waiting_.begin();
    std::shared_ptr<UnaryCall> call = std::move(*next);
    waiting_.erase(next);
    if (call->StartReceiving()) {
      receiving_.push_back({std::move(call), clock_->MonotonicNs()});
    }
  }
  if (!waiting_.empty()) SetTimer();
}

void ReceiveLine::SetTimer() {
  if (timer_set_) return;
  const auto first = std::find_if(receiving_.begin(), receiving_.end(),
                                  [](const Receiving& r) { return !r.refused; });
  if (first == receiving_.end()) return;
  timer_set_ = true;
  const int64_t passed_ms = (clock_->MonotonicNs() - first->since_ns) / kNsPerMs;
  // One more, as both are rounded down: it must not fire just before the time.
  const int64_t left_ms = std::max<int64_t>(0, limits_.patience_ms - passed_ms) + 1;
  loop_->AddTimer(&timer_);
  timer_.Set(loop_->queue(), gpr_time_from_millis(left_ms, GPR_TIMESPAN),
             timer_tag_.Arm<&ReceiveLine::OnTimer>(shared_from_this()));
}

void ReceiveLine::OnTimer(bool fired) {
  loop_->RemoveTimer(&timer_);
  timer_set_ = false;
  if (!fired || waiting_.empty()) return;
  const int64_t before_ns = clock_->MonotonicNs() - limits_.patience_ms * kNsPerMs;
  for (Receiving& receiving : receiving_) {
    if (receiving.refused || receiving.since_ns > before_ns) continue;
    receiving.refused = true;
    receiving.call->RefuseSlow(limits_.patience_ms);
  }
  SetTimer();
}

}  // namespace sluice::api
