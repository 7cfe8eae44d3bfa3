// What is due: one function does all of it, for every queue of the shard.
#include <algorithm>

#include "server/broker/shard.h"

namespace sluice::broker {
namespace {

// Bound of one turn, so that one moment cannot hold up everything else.
constexpr int kDueItemsPerTurnMax = 10'000;
// How often a Receive that is out of time looks again while its messages are being read.
constexpr int64_t kReceiveGraceNs = 2'000'000;
constexpr int64_t kNsPerMs = 1'000'000;

}  // namespace

void Shard::RunDue(Now now) {
  for (int i = 0; i < kDueItemsPerTurnMax; ++i) {
    const auto timer = mono_timers_.PopDue(now.mono_ns);
    if (!timer) break;
    RunTimer(*timer, now);
  }
  for (int i = 0; i < kDueItemsPerTurnMax; ++i) {
    const auto timer = engine_timers_.PopDue(now.engine_ms);
    if (!timer) break;
    RunTimer(*timer, now);
  }
  RunExpiry(now);
  RunDying(now);
}

void Shard::RunTimer(const Timer& timer, Now now) {
  Queue* queue = FindQueue(timer.qid);
  switch (timer.kind) {
    case TimerKind::kLease: return LeaseRanOut(timer, now);
    case TimerKind::kRetry: return RetryIsDue(timer);
    case TimerKind::kIdle: return StreamIdle(timer, now);
    case TimerKind::kReceiveWait: return ReceiveWaited(timer, now);
    case TimerKind::kPublishWait: return GiveUpParked(timer.id, now);
    case TimerKind::kDue:
      if (!queue) return;
      if (timer.lane == kDelayedLane) return StartJoining(*queue, *queue->lanes[timer.lane], now);
      return StartRetries(*queue, *queue->lanes[timer.lane], now);
    case TimerKind::kQueueRate:
      if (!queue) return;
      queue->rate_timer_ns = 0;
      return Wake(*queue);
    case TimerKind::kConsumerRate:
      if (Consumer* consumer = FindConsumer(timer.id)) {
        consumer->rate_timer_ns = 0;
        WakeConsumer(*consumer);
      }
      return;
    case TimerKind::kQueueIdle:
      if (queue) QueueIsIdle(*queue, now);
      return;
  }
}

void Shard::LeaseRanOut(const Timer& timer, Now now) {
  Queue* queue = FindQueue(timer.qid);
  if (!queue) return;
  LaneState& lane = *queue->lanes[timer.lane];
  OpenMessage& message = lane.open.at(timer.id);
  ++queue->counters.leases_expired;
  TellLeaseLost(message.holder, {lane.At(timer.id), message.boot, message.delivery_count},
                ErrorReason::kLeaseExpired);
  // Back at once: the lease itself was the time to wait.
  ReturnMessage(*queue, lane, timer.id, message, /*failed=*/true, 0, now);
}

void Shard::RetryIsDue(const Timer& timer) {
  Queue* queue = FindQueue(timer.qid);
  if (!queue) return;
  LaneState& lane = *queue->lanes[timer.lane];
  OpenMessage& message = lane.open.at(timer.id);
  --lane.waiting;
  message.not_before_ms = 0;
  message.due_row_lsn = 0;
  message.state = OpenState::kReturned;
  lane.returned.insert(timer.id);
  Wake(*queue);
}

// What is there for the queue's consumers, but has to be read first.
bool Shard::SomeAreBeingRead(const Queue& queue) {
  return std::any_of(queue.lanes.begin(), queue.lanes.begin() + kImmediateLanes,
                     [](const std::unique_ptr<LaneState>& lane) {
                       return lane && (lane->reading || lane->joining || lane->parked_reads > 0);
                     });
}

// Idle is a stream that could take messages and has had none to take for so long.
void Shard::StreamIdle(const Timer& timer, Now now) {
  Consumer* consumer = FindConsumer(timer.id);
  if (!consumer) return;
  consumer->timer_due_ns = 0;
  const bool waits_for_its_client = !CanTake(*consumer, 0);
  const bool has_more = !consumer->outbox.empty() || !consumer->held.empty() ||
                        (consumer->queue &&
                         (consumer->queue->Ready() > 0 || SomeAreBeingRead(*consumer->queue)));
  if (waits_for_its_client || has_more) {
    SetConsumerTimer(*consumer, now.mono_ns + consumer->idle_timeout_ms * kNsPerMs);
  } else {
    EndSubscription(*consumer, absl::OkStatus());
  }
}

void Shard::ReceiveWaited(const Timer& timer, Now now) {
  Consumer* consumer = FindConsumer(timer.id);
  if (!consumer) return;
  consumer->timer_due_ns = 0;
  // A call that does not wait still gets what is there.
  Dispatch(*consumer->queue, now);
  if (!consumer->outbox.empty()) return;
  if (SomeAreBeingRead(*consumer->queue)) {
    SetConsumerTimer(*consumer, now.mono_ns + kReceiveGraceNs);
  } else {
    AnswerReceive(*consumer);
  }
}

}  // namespace sluice::broker
