// Queues that are made, changed and go, and streams that end by themselves.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/unit/broker/model_rules.h"

namespace sluice::broker {

bool FeatureModel::IsConsumed(QueueId qid) const {
  bool consumed = false;
  consumers_([&](const FeatureConsumer& consumer) {
    consumed |= consumer.qid == qid && !consumer.ended && !consumer.gone;
  });
  return consumed;
}

bool FeatureModel::IsReferredTo(const LedgerQueue& queue) const {
  return std::any_of(ledger.live().begin(), ledger.live().end(), [&](const LedgerQueue* other) {
    return other->row.config.dead_letter_queue == queue.name();
  });
}

void FeatureModel::CheckQueueRows(const LedgerBatch& batch) {
  for (const auto& [qid, before] : batch.queue_rows_before) {
    const LedgerQueue& queue = ledger.queues.at(qid);
    const bool same = before.config == queue.row.config && before.paused == queue.row.paused &&
                      before.temporary == queue.row.temporary && before.create_ms != 0;
    if (same || asked_rows_.contains(queue.name())) continue;
    Fail(absl::StrCat("queue ", queue.name(), " was changed by nobody"));
  }
  for (const QueueId qid : batch.queues_gone) {
    const LedgerQueue& queue = ledger.queues.at(qid);
    routing.RemoveQueue(queue.name());
    CheckQueueGone(queue, batch.time_ms);
  }
}

void FeatureModel::CheckQueueGone(const LedgerQueue& queue, int64_t time_ms) {
  const auto fails = [&](const std::string& what) {
    Fail(absl::StrCat("queue ", queue.name(), " is gone, ", what));
  };
  if (may_go_.contains(queue.name())) {
    ++seen[queue.row.temporary ? "queues gone with their stream" : "queues deleted"];
    return;
  }
  if (queue.row.temporary && booting_) {
    ++seen["queues gone with their boot"];
    return;
  }
  const int64_t idle_ms = queue.row.config.idle_expiry_ms;
  if (idle_ms == 0) return fails("which nobody asked for");
  if (IsConsumed(queue.qid)) return fails("though it is consumed");
  if (IsReferredTo(queue)) return fails("though it is a dead-letter queue");
  if (queue.used_ms + idle_ms > time_ms) {
    return fails(absl::StrCat("though it was used at ", queue.used_ms));
  }
  ++seen["queues gone idle"];
}

// At the end of a turn.
void FeatureModel::NoteUses() {
  for (LedgerQueue* queue : ledger.live()) {
    queue->deepest = std::max(queue->deepest, queue->messages);
    if (queue->messages == 0 && durable_lsn == appended_lsn) queue->bytes_near = false;
    if (IsConsumed(queue->qid)) {
      Used(*queue);
    } else if (IsReferredTo(*queue)) {
      queue->may_be_used_ms = now_ms;
    }
  }
}

// At rest: what has long been idle is gone.
void FeatureModel::CheckIdleQueues() {
  for (const LedgerQueue* queue : ledger.live()) {
    // Twice: in the turn in which its referrer went it may have counted as used once more.
    const int64_t idle_ms = 2 * queue->row.config.idle_expiry_ms;
    if (idle_ms == 0 || queue->may_be_used_ms + idle_ms >= now_ms) continue;
    if (queue->row.update_ms + idle_ms >= now_ms) continue;
    Fail(absl::StrCat("queue ", queue->name(), " should have gone: last used at ",
                      queue->may_be_used_ms));
  }
}

// A stream may only end for want of messages when it could have taken some and there were none.
void FeatureModel::CheckIdleStreams() {
  consumers_([&](FeatureConsumer& consumer) {
    if (!std::exchange(consumer.ended_idle, false)) return;
    ++seen["streams ended idle"];
    if (now_ms < std::max(consumer.since_ms, consumer.last_grant_ms) + consumer.idle_timeout_ms) {
      return Fail("a stream ended as idle before its time");
    }
    const auto queue = ledger.queues.find(consumer.qid);
    if (!known_ || queue == ledger.queues.end() || !queue->second.exists) return;
    for (Lane lane = 0; lane < kImmediateLanes; ++lane) {
      for (const auto& [seq, message] : queue->second.lanes[lane].unsettled) {
        if (!MustHaveBeenGranted(*message)) continue;
        // A first hand-out of this turn to somebody else, held back with a further one, is nowhere
        // to be seen yet.
        if (!message->state.has_row && SomeWaitForTheDisk(queue->second)) continue;
        return Fail(*message, "a stream ended as idle, but there is a message");
      }
    }
  });
}

}  // namespace sluice::broker
