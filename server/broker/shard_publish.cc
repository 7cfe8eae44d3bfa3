// Publishing: routing, deduplication, room, and storing.
#include <algorithm>
#include <variant>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/broker/publish_plan.h"
#include "server/broker/shard.h"
#include "server/model/server_fields.h"
#include "server/storage/rows.h"

namespace sluice::broker {
namespace {

using storage::Family;

int64_t BytesOf(const Publish& publish) {
  int64_t bytes = 0;
  for (const NewMessage& message : publish.messages) bytes += message.payload.size();
  return bytes;
}

// How far ahead of its expiry a message is due, if it is to wait at all.
int64_t DueMs(const NewMessage& message, Now now) {
  if (!message.options) return 0;
  const int64_t due_ms = message.options->delay_ms > 0
                             ? now.engine_ms + message.options->delay_ms
                             : message.options->deliver_at_ms;
  return due_ms > now.engine_ms ? due_ms : 0;
}

}  // namespace

Lane Shard::LaneOfNew(const NewMessage& message, Now now) {
  return DueMs(message, now) > 0 ? kDelayedLane : LaneOfPriority(message.priority);
}

// ---- planning

absl::Status Shard::RouteMessage(const Publish& publish, const NewMessage& message, size_t index,
                                 int64_t* steps_left, PublishPlan::Message* planned) {
  if (publish.exchange.empty()) {
    Queue* queue = FindQueue(publish.queue);
    if (!queue) {
      return MakeError(ErrorReason::kQueueNotFound,
                       absl::StrCat("queue '", publish.queue, "' does not exist"));
    }
    planned->stored_in.push_back(queue);
  } else {
    static const MessageOptions kNone;
    const MessageOptions& options = message.options ? *message.options : kNone;
    routed_.clear();
    absl::Status status = router_.Route(publish.exchange, options.routing_key, options.attributes,
                                        &routed_, steps_left);
    if (!status.ok()) return status;
    for (const std::string* name : routed_) {
      // Bindings go with their queue.
      planned->stored_in.push_back(FindQueue(*name));
      SLUICE_CHECK(planned->stored_in.back() != nullptr);
    }
    if (planned->stored_in.empty() && publish.mandatory) {
      return MakeError(ErrorReason::kNoRoute,
                       absl::StrCat("messages[", index, "] has no route from exchange '",
                                    publish.exchange, "'"));
    }
  }
  planned->routed = static_cast<int32_t>(planned->stored_in.size());
  return absl::OkStatus();
}

// Takes the queues that have had the message out of `stored_in`.
void Shard::PlanDedup(const Hash128& dedup, const ParkedPublish* parked, Now now,
                      PublishPlan* plan, PublishPlan::Message* planned) {
  const auto has_had = [&](Queue* queue) {
    if (queue->row.config.dedup_window_ms == 0) return false;
    const RecentIds::Key key{queue->qid, dedup};
    if (const auto it = plan->planned_ids.find(key); it != plan->planned_ids.end()) {
      planned->first = it->second;
      return true;
    }
    const storage::DedupRow* row = recent_ids_.Find(key);
    if (!row) {
      if (!parked || !parked->looked_up.contains(key)) {
        plan->unknown.push_back(key);
        return false;
      }
      const auto& looked_up = parked->looked_up.at(key);
      row = looked_up ? &*looked_up : nullptr;
    }
    if (row && row->expire_ms > now.engine_ms) {
      planned->first = PublishPlan::First{row->id};
      return true;
    }
    plan->planned_ids[key] = {{}, plan->messages.size()};
    return false;
  };
  const auto had = std::stable_partition(planned->stored_in.begin(), planned->stored_in.end(),
                                         [&](Queue* queue) { return !has_had(queue); });
  planned->had_it.assign(had, planned->stored_in.end());
  planned->stored_in.erase(had, planned->stored_in.end());
}

absl::Status Shard::PlanPublish(Publish& publish, const ParkedPublish* parked, Now now,
                                PublishPlan* plan) {
  for (size_t i = 0; i < publish.messages.size(); ++i) {
    PublishPlan::Message planned;
    planned.message = &publish.messages[i];
    absl::Status status =
        RouteMessage(publish, *planned.message, i, &plan->routing_steps_left, &planned);
    if (!status.ok()) return status;
    if (planned.message->options && planned.message->options->dedup) {
      PlanDedup(*planned.message->options->dedup, parked, now, plan, &planned);
    }
    for (Queue* queue : planned.stored_in) {
      PublishPlan::Demand& demand = plan->demand[queue->qid];
      ++demand.messages;
      demand.bytes += planned.message->payload.size();
    }
    plan->messages.push_back(std::move(planned));
  }
  return absl::OkStatus();
}

// ---- storing

// The position at which a message is stored is its id unless it has one.
MessagePosition Shard::StorePublished(Queue& queue, NewMessage& message,
                                      const std::optional<MessagePosition>& id, bool pushed_out,
                                      Now now) {
  MessageInfo info;
  info.publish_ms = now.engine_ms;
  info.due_ms = DueMs(message, now);
  int64_t ttl_ms = queue.row.config.ttl_ms;
  if (message.options) {
    info.group_hash = message.options->group_hash;
    const int64_t own_ms = message.options->ttl_ms;
    if (own_ms > 0) ttl_ms = ttl_ms > 0 ? std::min(ttl_ms, own_ms) : own_ms;
  }
  if (ttl_ms > 0) info.expire_ms = std::max(info.due_ms, now.engine_ms) + ttl_ms;
  info.priority = message.priority;
  LaneState& lane = LaneOf(queue, LaneOfNew(message, now));
  const MessagePosition at = lane.At(lane.next_seq);
  if (id) {
    info.origin = std::make_shared<const Origin>(Origin{*id, {}});
  } else {
    WriteServerFields(at, now.engine_ms,
                      message.payload.mutable_data() + message.payload.size() - kServerFieldsBytes);
  }
  queue.counters.published += 1;
  queue.counters.published_bytes += message.payload.size();
  queue.last_used_ms = now.engine_ms;
  AddMessage(queue, lane, message.payload, info);
  if (pushed_out) {
    // Its dead-letter queue has been seen to have room.
    DieWithBody(queue, lane, {at.seq, std::move(info), message.payload}, DeathReason::kOverflow,
                "", now);
  }
  return id ? *id : at;
}

PublishedMessage Shard::ApplyPlanned(PublishPlan& plan, size_t index,
                                     const std::vector<MessagePosition>& ids, Now now) {
  PublishPlan::Message& planned = plan.messages[index];
  PublishedMessage published;
  published.routed_queues = planned.routed;
  published.duplicate = planned.routed > 0 && planned.stored_in.empty();
  for (Queue* queue : planned.had_it) ++queue->counters.duplicates;
  if (planned.routed == 0) ++unrouted_;
  std::optional<MessagePosition> id;
  if (planned.first) {
    id = planned.first->planned == PublishPlan::First::kNotPlanned ? planned.first->id
                                                                   : ids[planned.first->planned];
    if (!planned.stored_in.empty()) {
      NewMessage& message = *planned.message;
      WriteServerFields(*id, now.engine_ms, message.payload.mutable_data() +
                                                message.payload.size() - kServerFieldsBytes);
    }
  }
  for (Queue* queue : planned.stored_in) {
    const MessagePosition stored =
        StorePublished(*queue, *planned.message, id,
                       plan.pushed_out.contains({queue->qid, index}), now);
    if (!id) id = stored;
    const MessageOptions* options = planned.message->options.get();
    if (options && options->dedup && queue->row.config.dedup_window_ms > 0) {
      const storage::DedupRow row{*id, now.engine_ms + queue->row.config.dedup_window_ms};
      batch_.Put(Family::kIndex, storage::DedupKey(options_.shard, queue->qid, *options->dedup),
                 storage::EncodeDedup(row));
      recent_ids_.Add({queue->qid, *options->dedup}, row, last_lsn_ + 1);
    }
  }
  if (id) published.id = *id;
  return published;
}

std::vector<PublishedMessage> Shard::ApplyPlan(PublishPlan& plan, Now now) {
  std::vector<PublishedMessage> published;
  std::vector<MessagePosition> ids;
  published.reserve(plan.messages.size());
  ids.reserve(plan.messages.size());
  for (size_t i = 0; i < plan.messages.size(); ++i) {
    published.push_back(ApplyPlanned(plan, i, ids, now));
    ids.push_back(published.back().id);
  }
  return published;
}

// ---- the command

// Plain messages to one queue without limits: nothing can go wrong half way.
bool Shard::IsPlain(const PublishCommand& command, Queue* queue) const {
  if (!queue || command.producer_stream != 0 || !parked_lines_.empty()) return false;
  const QueueConfig& config = queue->row.config;
  if (config.max_length > 0 || config.max_bytes > 0) return false;
  return std::all_of(
      command.publish.messages.begin(), command.publish.messages.end(),
      [](const NewMessage& message) { return !message.options || !message.options->dedup; });
}

void Shard::Do(PublishCommand& command, Now now) {
  if (absl::Status refused = RefuseWhenDraining(); !refused.ok()) return command.done(refused);
  if (command.publish.exchange.empty()) {
    Queue* queue = FindQueue(command.publish.queue);
    if (IsPlain(command, queue)) {
      std::vector<PublishedMessage> published;
      published.reserve(command.publish.messages.size());
      for (NewMessage& message : command.publish.messages) {
        published.push_back({StorePublished(*queue, message, std::nullopt, false, now)});
      }
      return AnswerWhenDurable(std::move(command.done), std::move(published));
    }
  }
  ParkedPublish attempt;
  // Those to one queue take turns. What goes to an exchange may go anywhere, so each of its
  // publishers that may have to wait has a line of its own.
  attempt.line = command.publish.exchange.empty()
                     ? absl::StrCat("q", command.publish.queue)
                     : absl::StrCat("e", command.publish.exchange, "\n", command.caller);
  attempt.bytes = BytesOf(command.publish);
  attempt.command = std::move(command);
  PublishOrPark(std::move(attempt), now);
}

// ---- idempotent producers

void Shard::Do(OpenProducerCommand& command, Now now) {
  if (absl::Status refused = RefuseWhenDraining(); !refused.ok()) return command.done(refused);
  ProducerTarget target;
  if (command.exchange.empty()) {
    const auto queue = GetQueue(command.queue);
    if (!queue.ok()) return command.done(queue.status());
    target = {.is_exchange = false, .number = (*queue)->qid};
  } else {
    absl::Status status = router_.CheckExchange(command.exchange);
    if (!status.ok()) return command.done(status);
    target = {.is_exchange = true, .number = router_.FindExchange(command.exchange)->number};
  }
  const Hash128 producer =
      Producers::HashOf(KeyedHash(boot_row_.hash_key), target, command.producer_id);
  const uint64_t stream = next_producer_stream_++;
  std::vector<Hash128> forgotten;
  const uint64_t older = producers_.StreamOf(producer);
  const auto last = producers_.Open(producer, target, stream, now.engine_ms,
                                    std::move(command.ended), &forgotten);
  for (const Hash128& other : forgotten) {
    batch_.Delete(Family::kMeta, storage::ProducerKey(options_.shard, other));
  }
  if (!last.ok()) return command.done(last.status());
  if (older != 0) {
    // What of the older one waits for room would be refused when it has some.
    std::vector<uint64_t> fenced;
    for (const auto& [id, parked] : parked_) {
      const auto* publish = std::get_if<PublishCommand>(&parked->command);
      if (publish && publish->producer_stream == older) fenced.push_back(id);
    }
    EndParked(fenced, producers_.Check(older, 0, 0).status(), now);
  }
  AnswerWhenDurable(std::move(command.done), ProducerOpened{stream, *last});
}

// Its streams hear of it when it is true for good. What of them waits for room, maybe in another
// queue, is refused before the turn ends.
void Shard::RemoveProducersOf(const ProducerTarget& target) {
  absl::flat_hash_set<uint64_t> streams;
  for (Producers::Gone& gone : producers_.RemoveTarget(target)) {
    streams.insert(gone.stream);
    batch_.Delete(Family::kMeta, storage::ProducerKey(options_.shard, gone.producer));
    if (!gone.ended) continue;
    ReplyWhenDurable([ended = std::move(gone.ended),
                      why = std::move(gone.why)](const absl::Status& durable) mutable {
      ended(durable.ok() ? why : durable);
    });
  }
  if (streams.empty()) return;
  for (const auto& [id, parked] : parked_) {
    const auto* publish = std::get_if<PublishCommand>(&parked->command);
    if (!publish || !streams.contains(publish->producer_stream)) continue;
    orphaned_.insert(*parked_lines_.at(parked->line).ids.begin());
  }
}

void Shard::StoreProducer(uint64_t stream, int64_t last_sequence, Now now) {
  const Hash128 producer = producers_.ProducerOf(stream);
  batch_.Put(Family::kMeta, storage::ProducerKey(options_.shard, producer),
             storage::EncodeProducer(producers_.Stored(stream, last_sequence, now.engine_ms)));
}

}  // namespace sluice::broker
