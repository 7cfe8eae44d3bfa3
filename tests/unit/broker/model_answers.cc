// What publishers are told, and what has to hold at rest.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/unit/broker/model_rules.h"

namespace sluice::broker {

void FeatureModel::Answered(PlannedPublish& publish,
                            const absl::StatusOr<std::vector<PublishedMessage>>& result) {
  if (publish.answered) return Fail("a publish was answered twice");
  publish.answered = true;
  if (!result.ok()) {
    publish.refused = true;
    ++seen[absl::StrCat("refused: ", std::string(ErrorReasonName(ReasonOf(result.status()))))];
    if (publish.stored_lsn != 0) Fail("a publish was refused, but is stored");
    return;
  }
  if (publish.stored_lsn > durable_lsn) Fail("a publish was answered before it was durable");
  if (result->size() != publish.messages.size()) return Fail("not all were published");
  for (size_t i = 0; i < publish.messages.size(); ++i) {
    const PlannedMessage& planned = publish.messages[i];
    const PublishedMessage& published = (*result)[i];
    if (published.routed_queues != static_cast<int32_t>(publish.queues.size())) {
      Fail(absl::StrCat("routed to ", published.routed_queues, " queues instead of ",
                        publish.queues.size()));
    }
    if (planned.id) {
      if (published.id != *planned.id) Fail("published under another id than stored");
      if (published.duplicate) Fail("stored, but called a duplicate");
    } else if (!publish.queues.empty()) {
      ++seen["duplicates"];
      if (!published.duplicate) Fail("answered OK, but not stored");
      if (!planned.dedup) {
        Fail("a duplicate without a deduplication id");
        continue;
      }
      const LedgerMessage* first = ledger.At(published.id);
      const auto its_plan = first ? planned_.find(first->body) : planned_.end();
      if (its_plan == planned_.end() ||
          its_plan->second.first->messages[its_plan->second.second].dedup != planned.dedup) {
        Fail("a duplicate's first id is of another message");
      } else if (first->stored_lsn > durable_lsn) {
        Fail("a duplicate was answered before the first was durable");
      } else if (const auto* row = ledger.Dedup(first->at.qid, *planned.dedup);
                 row && row->id == first->id && row->expire_ms <= publish.asked_ms) {
        Fail("called a duplicate though the window is over");
      }
    }
    if (!planned.id || !planned.dedup || publish.queues.size() < 2) continue;
    for (const std::string& name : publish.queues) {
      const LedgerQueue* queue = ledger.Find(name);
      if (queue && !planned.stored_in.contains(queue->qid) &&
          !ledger.Dedup(queue->qid, *planned.dedup)) {
        Fail("not stored in every queue");
      }
    }
  }
}

// --- at rest

// A ready message and a consumer that could take it never wait for each other.
void FeatureModel::CheckIdleConsumers(const std::vector<FeatureConsumer*>& consumers) {
  for (const FeatureConsumer* consumer : consumers) {
    const auto queue = ledger.queues.find(consumer->qid);
    if (consumer->ended || consumer->draining || !consumer->leases.empty() ||
        consumer->messages_left == 0 || consumer->max_in_flight == 0 ||
        consumer->max_bytes_in_flight == 0 || consumer->rate.per_second > 0 ||
        queue == ledger.queues.end()) {
      continue;
    }
    const LedgerQueue& of = queue->second;
    if (!of.exists || of.row.paused || of.row.config.delivery_rate.per_second > 0) continue;
    if (of.row.config.single_active_consumer) continue;
    for (Lane lane = 0; lane < kImmediateLanes; ++lane) {
      for (const auto& [seq, message] : of.lanes[lane].unsettled) {
        if (!IsReady(*message)) continue;
        return Fail(*message, "a ready message waits although a consumer is idle");
      }
    }
  }
}

LedgerMessage* FeatureModel::FindOverdue(int64_t lag_ms) {
  for (auto& [qid, queue] : ledger.queues) {
    if (!queue.exists) continue;
    const LedgerQueue* dead = ledger.Find(queue.row.config.dead_letter_queue);
    const bool may_wait =
        dead && (dead->row.config.max_length > 0 || dead->row.config.max_bytes > 0);
    for (LedgerLane& lane : queue.lanes) {
      for (auto& [seq, message] : lane.unsettled) {
        if (message->at.lane == kDelayedLane) {
          if (message->info.due_ms + lag_ms < now_ms) return message;
          continue;
        }
        if (may_wait || message->Dying()) continue;
        const int64_t expire_ms = message->info.expire_ms;
        if (expire_ms != 0 && expire_ms + lag_ms < now_ms && !message->leased) return message;
      }
    }
  }
  return nullptr;
}

// A listing at rest agrees with the log, message by message.
void FeatureModel::CheckListed(LedgerQueue& queue, const std::vector<ListedMessage>& listed) {
  size_t expected = 0;
  for (const LedgerLane& lane : queue.lanes) expected += lane.unsettled.size();
  if (listed.size() != expected) {
    return Fail(absl::StrCat("queue ", queue.name(), " lists ", listed.size(),
                             " messages instead of ", expected));
  }
  seen["listed"] += expected;
  for (const ListedMessage& shown : listed) {
    LedgerMessage* message = ledger.At(shown.position);
    if (!message || message->queue != &queue || message->state.settled) {
      return Fail("a message is listed that is not there");
    }
    if (shown.payload.size() != message->bytes || shown.publish_ms != message->info.publish_ms ||
        shown.group_hash != message->info.group_hash) {
      Fail(*message, "listed with other contents");
    }
    static const Deaths kNone;
    const Deaths& deaths = message->info.origin ? message->info.origin->deaths : kNone;
    if (!((shown.deaths ? *shown.deaths : kNone) == deaths)) {
      Fail(*message, "listed with other deaths");
    }
    if (message->number_used_again) continue;
    const bool open = message->leased || message->state.has_row;
    if (open && shown.attempt != message->Attempt()) Fail(*message, "listed with another attempt");
    MessageState state = MessageState::kReady;
    int64_t until_ms = 0;
    if (message->at.lane == kDelayedLane) {
      state = MessageState::kDelayed;
      until_ms = message->info.due_ms;
    } else if (message->leased) {
      state = MessageState::kLeased;
      until_ms = message->until_ms;
    } else if (message->Dying()) {
      state = MessageState::kBlocked;
    } else if (message->NotBeforeMs() > now_ms) {
      state = MessageState::kDelayed;
      until_ms = message->NotBeforeMs();
    } else if (message->NotBeforeMs() > last_turn_ms_) {
      continue;
    }
    if (state == MessageState::kReady && !open && message->info.group_hash != 0) {
      // Blocked if another of its group is open.
      if (shown.state == MessageState::kReady) continue;
      const LedgerMessage* blocker = nullptr;
      if (shown.state == MessageState::kBlocked && shown.blocked_by) {
        for (const LedgerLane& lane : queue.lanes) {
          for (const auto& [seq, other] : lane.unsettled) {
            if (other->id == *shown.blocked_by || other->at == *shown.blocked_by) blocker = other;
          }
        }
      }
      if (!blocker || blocker->info.group_hash != message->info.group_hash) {
        Fail(*message, "listed as blocked, but not by a message of its group");
      }
      continue;
    }
    if (shown.state != state) {
      Fail(*message, absl::StrCat("listed in state ", static_cast<int>(shown.state), " instead of ",
                                  static_cast<int>(state)));
    }
    if (shown.until_ms != until_ms) {
      Fail(*message, absl::StrCat("listed until ", shown.until_ms, " instead of ", until_ms));
    }
  }
}

}  // namespace sluice::broker
