// What publishes may store: where, when, and how often.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/unit/broker/model_rules.h"

namespace sluice::broker {

// ---- routes

std::optional<std::set<std::string>> FeatureModel::RouteOf(const PlannedPublish& publish,
                                                           const PlannedMessage& message,
                                                           const ModelRouting& routing) {
  if (!publish.queue.empty()) return std::set<std::string>{publish.queue};
  return routing.Route(message.route);
}

// The batch's exchanges and bindings may have changed before or after it was decided, or both.
std::vector<const ModelRouting*> FeatureModel::RoutingsOf(const PlannedPublish& publish) const {
  std::vector<const ModelRouting*> routings = {&routing_before_, &ledger.routing};
  if (publish.asked_after + 1 == appended_lsn) routings.push_back(&publish.routing);
  return routings;
}

bool FeatureModel::MayGoTo(const PlannedPublish& publish, const PlannedMessage& message,
                           const std::string& queue) const {
  for (const ModelRouting* routing : RoutingsOf(publish)) {
    const auto route = RouteOf(publish, message, *routing);
    if (route && route->contains(queue)) return true;
  }
  return false;
}

// Stored by the publish itself under the id that it has elsewhere, not moved from there.
bool FeatureModel::IsFanOutCopy(const LedgerMessage& message) const {
  if (!message.info.origin->deaths.empty()) return false;
  const auto it = planned_.find(message.body);
  if (it == planned_.end()) return false;
  const PlannedPublish& publish = *it->second.first;
  const PlannedMessage& planned = publish.messages[it->second.second];
  return !publish.answered && (publish.stored_lsn == 0 || publish.stored_lsn == appended_lsn) &&
         !planned.stored_in.contains(message.at.qid);
}

// Every queue of its route has it, or had a message of its deduplication id.
bool FeatureModel::IsFanOutBy(const PlannedPublish& publish, const ModelRouting& routing,
                              int64_t time_ms) {
  for (size_t i = 0; i < publish.messages.size(); ++i) {
    const PlannedMessage& message = publish.messages[i];
    // Those before it were known to be repeats.
    if (publish.producer && message.stored_in.empty()) continue;
    const auto route = RouteOf(publish, message, routing);
    if (!route) return false;
    std::set<std::string> stored;
    for (const QueueId qid : message.stored_in) stored.insert(ledger.queues.at(qid).name());
    for (const std::string& queue : stored) {
      if (!route->contains(queue)) return false;
    }
    for (const std::string& name : *route) {
      if (stored.contains(name)) continue;
      const LedgerQueue* queue = ledger.Find(name);
      if (!queue) continue;  // it has gone since
      const storage::DedupRow* row =
          message.dedup ? ledger.Dedup(queue->qid, *message.dedup) : nullptr;
      if (!row || row->expire_ms <= time_ms) return false;
    }
  }
  return true;
}

void FeatureModel::CheckFanOuts(int64_t time_ms) {
  for (PlannedPublish* publish : std::exchange(stored_now_, {})) {
    if (!publish->queue.empty()) continue;
    bool found = false;
    for (const ModelRouting* routing : RoutingsOf(*publish)) {
      if (!IsFanOutBy(*publish, *routing, time_ms)) continue;
      found = true;
      for (PlannedMessage& message : publish->messages) {
        message.routed.insert(RouteOf(*publish, message, *routing)->size());
      }
    }
    if (!found) {
      return Fail(absl::StrCat("a publish to exchange ", publish->messages.front().route.exchange,
                               " is not in every queue that it goes to, or not only there"));
    }
    for (const PlannedMessage& message : publish->messages) {
      ++seen[message.stored_in.size() > 1 ? "fanned out" : "routed"];
    }
  }
}

// ---- lines

// Who waits is not overtaken by who came later.
void FeatureModel::CheckLines(const LedgerBatch& batch) {
  std::map<std::pair<QueueId, Lane>, std::map<Seq, const PlannedPublish*>> in_order;
  for (const LedgerMessage* added : batch.added) {
    if (added->info.origin) continue;  // what was pushed out at once, and all but the first of a fan-out
    const auto planned = planned_.find(added->body);
    if (planned == planned_.end() || !stored_now_.contains(planned->second.first.get())) continue;
    in_order[{added->at.qid, added->at.lane}][added->at.seq] = planned->second.first.get();
  }
  for (const auto& [lane, publishes] : in_order) {
    std::map<std::string, uint64_t> last = last_in_line_;
    for (const auto& [seq, publish] : publishes) {
      if (publish->line.empty()) continue;
      uint64_t& number = last[publish->line];
      if (publish->number < number) {
        return Fail(absl::StrCat("publish ", number, " of ", publish->line, " overtook publish ",
                                 publish->number));
      }
      number = publish->number;
    }
  }
  for (const PlannedPublish* publish : stored_now_) {
    if (publish->line.empty()) continue;
    uint64_t& number = last_in_line_[publish->line];
    number = std::max(number, publish->number);
    ++seen["stored in line"];
  }
}

// ---- idempotent producers

void FeatureModel::CheckSequence(const LedgerMessage& message, PlannedPublish& publish,
                                 size_t index) {
  ModelProducer& producer = *publish.producer;
  const int64_t sequence = publish.first_sequence + static_cast<int64_t>(index);
  const bool again = publish.messages[index].stored_in.size() > 1;
  const uint64_t target = producer.queue.empty() ? ledger.ExchangeNumber(producer.exchange)
                                                 : message.at.qid;
  if (target != producer.number) {
    // Within a turn the exchange may have gone after it.
    const bool gone_since = producer.queue.empty() && target == 0;
    if (!gone_since) Fail(message, "stored by a producer of what had its target's name before");
  }
  const auto kept = ledger.producers.find(producer.hash);
  if (kept == ledger.producers.end() || kept->second.last_sequence < sequence) {
    Fail(message, "stored without its sequence");
  }
  if (const auto [it, is_new] = producer.stored.try_emplace(sequence, appended_lsn);
      !is_new && !again) {
    Fail(message, absl::StrCat("sequence ", sequence, " is stored twice"));
  }
  const auto before = producers_before_.find(producer.hash);
  if (before == producers_before_.end() || before->second.last_sequence >= sequence) {
    Fail(message, absl::StrCat("sequence ", sequence, " is stored, but was known"));
  }
  if (sequence < producer.last_in_batch + (again ? 0 : 1)) {
    Fail(message, "stored after a later sequence");
  }
  producer.last_in_batch = sequence;
  if (publish.generation != producer.generation &&
      (exact_ || producer.opened_after + 1 != appended_lsn)) {
    Fail(message, "stored by a stream that a newer one has fenced");
  }
  const auto refused = producer.refused.find(publish.generation);
  if (refused != producer.refused.end() && refused->second < publish.number) {
    Fail(message, "stored behind a sequence that was refused");
  }
  ++seen["stored by producers"];
}

// Two of one id in a queue: by its id the last one is found.
void FeatureModel::NoteTwins(LedgerMessage& message) {
  for (const LedgerLane& lane : message.queue->lanes) {
    for (const auto& [seq, other] : lane.unsettled) {
      if (other == &message || other->id != message.id) continue;
      message.has_twin = other->has_twin = true;
    }
  }
}

// ---- stored

void FeatureModel::CheckPublished(LedgerMessage& message, int64_t time_ms) {
  const auto it = planned_.find(message.body);
  if (it == planned_.end()) return Fail(message, "stored, but nobody published it");
  PlannedPublish& publish = *it->second.first;
  PlannedMessage& planned = publish.messages[it->second.second];
  const LedgerQueue& queue = *message.queue;
  if (publish.refused) Fail(message, "stored though it was refused");
  if (publish.answered) Fail(message, "stored after its publish was answered");
  if (!MayGoTo(publish, planned, queue.name())) {
    Fail(message, "stored in a queue it was not sent to");
  }
  if (!planned.stored_in.insert(queue.qid).second) Fail(message, "stored twice");
  if (publish.stored_lsn == 0) publish.stored_lsn = appended_lsn;
  if (publish.stored_lsn != appended_lsn) Fail(message, "its publish was split over two batches");
  if (!planned.id) planned.id = message.id;
  if (*planned.id != message.id) Fail(message, "has two ids");
  if (message.info.publish_ms != time_ms) Fail(message, "its publish time is not its turn's");
  if (message.priority != planned.priority) Fail(message, "stored with another priority");
  if (message.info.group_hash != planned.group_hash) Fail(message, "stored with another group");
  int64_t due_ms = planned.delay_ms > 0 ? time_ms + planned.delay_ms : planned.deliver_at_ms;
  if (due_ms <= time_ms) due_ms = 0;
  if (message.info.due_ms != due_ms || (message.at.lane == kDelayedLane) != (due_ms != 0)) {
    Fail(message, absl::StrCat("is due at ", message.info.due_ms, " instead of ", due_ms));
  }
  if (!Allows(queue.qid, [&](const QueueConfig& config) {
        int64_t ttl_ms = config.ttl_ms;
        if (planned.ttl_ms > 0 && (ttl_ms == 0 || planned.ttl_ms < ttl_ms)) ttl_ms = planned.ttl_ms;
        const int64_t expire_ms = ttl_ms > 0 ? std::max(due_ms, time_ms) + ttl_ms : 0;
        return message.info.expire_ms == expire_ms;
      })) {
    Fail(message, absl::StrCat("expires at ", message.info.expire_ms));
  }
  ++seen["stored"];
  NoteTwins(message);
  message.queue->used_ms = std::max(message.queue->used_ms, time_ms);
  message.queue->may_be_used_ms = std::max(message.queue->may_be_used_ms, time_ms);
  stored_now_.insert(&publish);
  if (publish.producer) CheckSequence(message, publish, it->second.second);
  if (planned.dedup) CheckDedup(message, planned, time_ms);
}

void FeatureModel::CheckDedup(const LedgerMessage& message, const PlannedMessage& planned,
                              int64_t time_ms) {
  const QueueConfig& config = message.queue->row.config;
  if (config.dedup_window_ms == 0 || recent_configs_.contains(message.at.qid)) return;
  Hash128 at = *planned.dedup;
  at[0] ^= static_cast<uint8_t>(message.at.qid);
  const auto first = first_ids_.find(at);
  if (first != first_ids_.end() && first->second.expire_ms > time_ms) {
    // After a crash another message may have its place.
    const LedgerMessage* other = ledger.At(first->second.at);
    if (other && other != &message && other->body == first->second.body) {
      Fail(message, "a second message of its deduplication id");
    }
  }
  const storage::DedupRow* row = ledger.Dedup(message.at.qid, *planned.dedup);
  if (!row || row->id != message.id || row->expire_ms != time_ms + config.dedup_window_ms) {
    Fail(message, "its deduplication id is not remembered");
  }
  first_ids_[at] = {message.at, message.body, time_ms + config.dedup_window_ms};
}

void FeatureModel::CheckRoom(const LedgerBatch& batch) {
  for (const auto& [qid, before] : batch.sizes_before) {
    const LedgerQueue& queue = ledger.queues.at(qid);
    if (!queue.exists) continue;
    const bool fits = Allows(qid, [&](const QueueConfig& config) {
      return (config.max_length == 0 ||
              queue.messages <= std::max(before.first, config.max_length)) &&
             (config.max_bytes == 0 || queue.bytes_near ||
              queue.bytes <= std::max(before.second, config.max_bytes));
    });
    if (fits) continue;
    Fail(absl::StrCat("queue ", queue.name(), " holds ", queue.messages, " messages of ",
                      queue.bytes, " bytes, more than it may"));
  }
}

}  // namespace sluice::broker
