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
    const ErrorReason reason = ReasonOf(result.status());
    ++seen[absl::StrCat("refused: ", std::string(ErrorReasonName(reason)))];
    if (publish.stored_lsn != 0) Fail("a publish was refused, but is stored");
    return CheckRefusal(publish, reason);
  }
  if (publish.stored_lsn > durable_lsn) Fail("a publish was answered before it was durable");
  if (result->size() != publish.messages.size()) return Fail("not all were published");
  bool exact = publish.queue.empty() && publish.routing_version == routing_version_;
  for (size_t i = 0; i < publish.messages.size(); ++i) {
    const PlannedMessage& planned = publish.messages[i];
    const PublishedMessage& published = (*result)[i];
    if (planned.id) {
      if (published.id != *planned.id) Fail("published under another id than stored");
      if (published.duplicate) Fail("stored, but called a duplicate");
    } else if (publish.producer && published.duplicate) {
      CheckDuplicate(publish, i, published);
      continue;
    }
    std::set<size_t> routed = planned.routed;
    if (!publish.queue.empty()) routed = {1};
    if (routed.empty() && exact) {
      const auto route = RouteOf(publish, planned, ledger.routing);
      if (!route) return Fail("published to no exchange");
      routed = {route->size()};
    }
    if (publish.mandatory && published.routed_queues == 0) Fail("mandatory, but not routed");
    if (published.routed_queues == 0) ++seen["no route"];
    if (!routed.empty() && !routed.contains(static_cast<size_t>(published.routed_queues))) {
      Fail(absl::StrCat("routed to ", published.routed_queues, " queues instead of ",
                        *routed.begin()));
    }
    if (!planned.id && published.routed_queues > 0) CheckDuplicate(publish, i, published);
  }
}

void FeatureModel::CheckRefusal(const PlannedPublish& publish, ErrorReason reason) {
  if (ModelProducer* producer = publish.producer) {
    const bool current = publish.generation == producer->generation;
    if (reason == ErrorReason::kProducerFenced && current) Fail("fenced by nobody");
    const auto [first, is_first] =
        producer->refused.try_emplace(publish.generation, publish.number);
    if (reason == ErrorReason::kSequenceRefused && is_first) Fail("refused behind nothing refused");
    first->second = std::min(first->second, publish.number);
    if (reason == ErrorReason::kQueueDeleted || reason == ErrorReason::kExchangeNotFound) {
      ++seen["refused to producers of what is gone"];
      return without_target_.push_back(producer);
    }
  }
  const bool for_its_route =
      reason == ErrorReason::kNoRoute || reason == ErrorReason::kExchangeNotFound;
  if (for_its_route && !publish.of_transaction) unrouted_.push_back({&publish, reason});
}

// At the end of the turn: the log knows only now what the turn has changed.
void FeatureModel::CheckUnrouted() {
  for (const auto& [publish, reason] : std::exchange(unrouted_, {})) {
    bool found = false;
    for (const ModelRouting* known : std::initializer_list<const ModelRouting*>{
             &routing_of_last_turn_, &ledger.routing, &publish->routing}) {
      for (const PlannedMessage& message : publish->messages) {
        const auto route = RouteOf(*publish, message, *known);
        found |= reason == ErrorReason::kNoRoute ? publish->mandatory && route && route->empty()
                                                 : !route;
      }
    }
    if (!found) {
      Fail(reason == ErrorReason::kNoRoute ? "a publish that has a route was refused"
                                           : "a publish was refused though its exchange is there");
    }
  }
  routing_of_last_turn_ = ledger.routing;
}

bool FeatureModel::HasTarget(const ModelProducer& producer) const {
  if (producer.queue.empty()) return ledger.ExchangeNumber(producer.exchange) == producer.number;
  const LedgerQueue* queue = ledger.Find(producer.queue);
  return queue && queue->qid == producer.number;
}

// At the end of the turn, as above.
void FeatureModel::CheckTargetsGone() {
  for (const ModelProducer* producer : std::exchange(without_target_, {})) {
    if (HasTarget(*producer)) Fail("a producer was refused though what it publishes to is there");
  }
}

// Answered OK, and not stored.
void FeatureModel::CheckDuplicate(const PlannedPublish& publish, size_t index,
                                  const PublishedMessage& published) {
  const PlannedMessage& planned = publish.messages[index];
  ++seen["duplicates"];
  if (!published.duplicate) return Fail("answered OK, but not stored");
  if (publish.producer) {
    const int64_t sequence = publish.first_sequence + static_cast<int64_t>(index);
    const auto row = ledger.producers.find(publish.producer->hash);
    const bool known =
        row != ledger.producers.end() && row->second.last_sequence >= sequence;
    // The row may have gone with the target since it was decided.
    if (!known && HasTarget(*publish.producer)) {
      return Fail(absl::StrCat("sequence ", sequence, " is called known, but is not"));
    }
    const auto stored = publish.producer->stored.find(sequence);
    if (stored != publish.producer->stored.end() && stored->second > durable_lsn) {
      return Fail("a repeat was answered before the first was durable");
    }
    ++seen["repeated sequences"];
    return;
  }
  if (!planned.dedup) return Fail("a duplicate without a deduplication id");
  const LedgerMessage* first = ledger.At(published.id);
  const auto its_plan = first ? planned_.find(first->body) : planned_.end();
  if (its_plan == planned_.end() ||
      its_plan->second.first->messages[its_plan->second.second].dedup != planned.dedup) {
    Fail("a duplicate's first id is of another message");
  } else if (first->stored_lsn > durable_lsn) {
    Fail("a duplicate was answered before the first was durable");
  } else if (const LedgerQueue* queue = ledger.Find(publish.queue)) {
    const storage::DedupRow* row = ledger.Dedup(queue->qid, *planned.dedup);
    if (!row || row->id != first->id || row->expire_ms > publish.asked_ms) return;
    Fail("called a duplicate though the window is over");
  }
}

// --- at rest

// A ready message and a consumer that could take it never wait for each other.
void FeatureModel::CheckIdleConsumers(const std::vector<FeatureConsumer*>& consumers) {
  for (const FeatureConsumer* consumer : consumers) {
    const auto queue = ledger.queues.find(consumer->qid);
    if (queue == ledger.queues.end()) continue;
    const LedgerQueue& of = queue->second;
    // One that is too large for its credit holds up what comes behind it.
    if (!std::all_of(of.lanes.begin(), of.lanes.begin() + kImmediateLanes, [&](const auto& lane) {
          return std::all_of(lane.unsettled.begin(), lane.unsettled.end(), [&](const auto& entry) {
            return entry.second->leased || MayTake(*consumer, *entry.second);
          });
        })) {
      continue;
    }
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

// Whether a dead letter of that size can go there now, with what has to be dropped for it.
bool FeatureModel::HasRoomFor(const LedgerQueue& queue, int64_t bytes, int depth) const {
  const QueueConfig& config = queue.row.config;
  if (config.max_bytes > 0 && queue.bytes_near) return false;  // it may count other bytes
  if ((config.max_length == 0 || queue.messages < config.max_length) &&
      (config.max_bytes == 0 || queue.bytes + bytes <= config.max_bytes)) {
    return true;
  }
  // Where bytes are wanted, or the limit was lowered, it may take more heads than one.
  if (config.overflow != Overflow::kDropHead || config.max_bytes > 0 || depth == 0 ||
      queue.messages > config.max_length) {
    return false;
  }
  const LedgerQueue* dead = ledger.Find(config.dead_letter_queue);
  for (Lane lane = kImmediateLanes; lane > 0; --lane) {
    for (const auto& [seq, message] : queue.lanes[lane - 1].unsettled) {
      if (message->leased || message->Dying()) continue;
      return !dead || HasRoomFor(*dead, message->bytes, depth - 1);
    }
  }
  return false;
}

std::set<const LedgerMessage*> FeatureModel::FindOverdue(int64_t lag_ms) const {
  constexpr int kDeadLetterQueuesInARowMax = 8;
  std::set<const LedgerMessage*> overdue;
  for (const LedgerQueue* queue : ledger.live()) {
    const LedgerQueue* dead = ledger.Find(queue->row.config.dead_letter_queue);
    for (const LedgerLane& lane : queue->lanes) {
      for (const auto& [seq, message] : lane.unsettled) {
        const int64_t expire_ms = message->info.expire_ms;
        const bool expired = expire_ms != 0 && expire_ms + lag_ms < now_ms && !message->leased;
        const bool due = message->at.lane == kDelayedLane &&
                         message->info.due_ms + lag_ms < now_ms;
        const bool leaves = message->at.lane != kDelayedLane && (expired || message->Dying());
        if (!due && !leaves) continue;
        const bool fits =
            !dead || HasRoomFor(*dead, message->bytes, kDeadLetterQueuesInARowMax);
        if (due || fits) overdue.insert(message);
      }
    }
  }
  return overdue;
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
            const bool named = other->id == *shown.blocked_by || other->at == *shown.blocked_by;
            if (named && other->info.group_hash == message->info.group_hash) blocker = other;
          }
        }
      }
      if (!blocker) {
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
