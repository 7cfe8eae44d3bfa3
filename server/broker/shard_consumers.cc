// Consumers: subscriptions and waiting Receive calls, from their start to their end.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/broker/shard.h"

namespace sluice::broker {
namespace {

constexpr int64_t kNsPerMs = 1'000'000;

}  // namespace

Consumer* Shard::FindConsumer(SubscriptionId id) {
  if (id == 0) return nullptr;
  const auto it = consumers_.find(id);
  return it == consumers_.end() ? nullptr : it->second.get();
}

Consumer* Shard::FindStream(SinkKey sink) {
  const auto it = by_sink_.find(sink);
  return it == by_sink_.end() ? nullptr : FindConsumer(it->second);
}

// API.md rule 13.
absl::Status Shard::CheckExclusive(const Queue& queue, bool exclusive) const {
  const bool taken =
      !queue.subscriptions.empty() && consumers_.at(*queue.subscriptions.begin())->exclusive;
  if (!taken && !(exclusive && queue.IsConsumed())) return absl::OkStatus();
  return MakeError(ErrorReason::kExclusive,
                   absl::StrCat("queue '", queue.row.config.name, "' ",
                                taken ? "has an exclusive consumer" : "has other consumers"));
}

Consumer& Shard::AddConsumer(std::unique_ptr<Consumer> consumer, Queue& queue, Now now) {
  Consumer& added = *consumer;
  added.id = next_consumer_id_++;
  added.queue = &queue;
  added.connect_ms = queue.last_used_ms = now.engine_ms;
  consumers_[added.id] = std::move(consumer);
  queue.attached.insert(added.id);
  if (added.IsReceive()) {
    ++queue.receivers;
    by_call_[added.call_id] = added.id;
  } else {
    queue.subscriptions.insert(added.id);
    by_sink_[added.sink.get()] = added.id;
    Activate(queue);
  }
  return added;
}

// The former one's leases come first: nobody else may work on what it still holds, and what it gave
// back comes before what it never had.
void Shard::Activate(Queue& queue) {
  if (!queue.row.config.single_active_consumer || queue.active != 0) return;
  if (queue.subscriptions.empty() || queue.Leased() > 0 || queue.Returning() > 0) return;
  Consumer* chosen = nullptr;
  for (const SubscriptionId id : queue.subscriptions) {
    Consumer* consumer = FindConsumer(id);
    if (!chosen || consumer->priority > chosen->priority) chosen = consumer;
  }
  queue.active = chosen->id;
  WakeConsumer(*chosen);
}

void Shard::ResetTakers(Queue& queue) {
  // The active one stays so as long as it is there.
  if (!queue.row.config.single_active_consumer) queue.active = 0;
  for (const SubscriptionId id : queue.attached) LeaveTakers(*FindConsumer(id));
  Activate(queue);
  for (const SubscriptionId id : queue.attached) WakeConsumer(*FindConsumer(id));
}

void Shard::SetConsumerTimer(Consumer& consumer, int64_t due_ns) {
  const TimerKind kind = consumer.IsReceive() ? TimerKind::kReceiveWait : TimerKind::kIdle;
  if (consumer.timer_due_ns != 0) {
    mono_timers_.Cancel({consumer.timer_due_ns, kind, 0, 0, consumer.id});
  }
  consumer.timer_due_ns = due_ns;
  if (due_ns != 0) mono_timers_.Add({due_ns, kind, 0, 0, consumer.id});
}

void Shard::Do(SubscribeCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  Queue* queue = nullptr;
  if (refused.ok() && command.temporary_queue) {
    const auto made = MakeTemporaryQueue(*command.temporary_queue, now);
    refused = made.status();
    if (made.ok()) queue = *made;
  } else if (refused.ok()) {
    const auto found = GetQueue(command.queue);
    refused = found.status();
    if (found.ok()) queue = *found;
    if (refused.ok()) refused = CheckExclusive(*queue, command.exclusive);
  }
  if (!refused.ok()) return command.sink->OnEnd(refused);

  auto consumer = std::make_unique<Consumer>();
  consumer->name = std::move(command.consumer);
  consumer->peer = std::move(command.peer);
  consumer->principal = std::move(command.principal);
  consumer->auto_ack = command.auto_ack;
  consumer->keep_leases_on_close = command.keep_leases_on_close;
  consumer->exclusive = command.exclusive;
  consumer->owns_queue = command.temporary_queue != nullptr;
  consumer->priority = command.consumer_priority;
  consumer->rate.Configure(command.delivery_rate, now.mono_ns);
  consumer->lease_ms = command.lease_ms > 0 ? command.lease_ms : queue->row.config.lease_ms;
  consumer->max_in_flight = command.max_in_flight;
  consumer->max_bytes_in_flight = command.max_bytes_in_flight;
  consumer->messages_left = command.max_messages > 0 ? command.max_messages : -1;
  consumer->idle_timeout_ms = command.idle_timeout_ms;
  consumer->sink = std::move(command.sink);
  Consumer& added = AddConsumer(std::move(consumer), *queue, now);
  if (added.idle_timeout_ms > 0) {
    SetConsumerTimer(added, now.mono_ns + added.idle_timeout_ms * kNsPerMs);
  }
  const SubscriptionSink::Started started{added.id, queue->row.config.name, added.lease_ms,
                                          added.max_in_flight, added.max_bytes_in_flight};
  if (!added.owns_queue) {
    added.sink->OnStarted(started);
    return WakeConsumer(added);
  }
  // Nobody may be told of the queue before it is there for good.
  ReplyWhenDurable([this, started](const absl::Status& status) {
    Consumer* consumer = FindConsumer(started.id);
    if (!status.ok() || !consumer || consumer->ended) return;
    consumer->sink->OnStarted(started);
    WakeConsumer(*consumer);
  });
}

void Shard::Do(SetCreditCommand& command, Now now) {
  Consumer* consumer = FindStream(command.sink);
  if (!consumer || consumer->ended) return;
  consumer->max_in_flight = command.max_in_flight;
  consumer->max_bytes_in_flight = command.max_bytes_in_flight;
  consumer->draining = false;
  WakeConsumer(*consumer);
}

void Shard::Do(DrainSubscriptionCommand& command, Now now) {
  Consumer* consumer = FindStream(command.sink);
  if (!consumer || consumer->ended) return;
  consumer->draining = true;
  consumer->drain_told = false;
  LeaveTakers(*consumer);
  if (consumer->outbox.empty() && consumer->held.empty()) TellDrained(*consumer);
}

void Shard::TellDrained(Consumer& consumer) {
  if (!consumer.draining || std::exchange(consumer.drain_told, true)) return;
  consumer.sink->OnDrained();
}

void Shard::Do(ListConsumersCommand& command, Now now) {
  ListConsumersCommand::Outcome outcome;
  if (!command.queue.empty()) {
    if (const auto queue = GetQueue(command.queue); !queue.ok()) {
      return command.done(queue.status());
    }
  }
  std::vector<SubscriptionId> ids;
  for (const auto& [id, consumer] : consumers_) {
    if (id <= command.after || consumer->IsReceive() || consumer->ended || !consumer->queue) {
      continue;
    }
    if (command.queue.empty() || consumer->queue->row.config.name == command.queue) {
      ids.push_back(id);
    }
  }
  const size_t limit = std::min(ids.size(), static_cast<size_t>(command.limit));
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(limit), ids.end());
  outcome.more = limit < ids.size();
  ids.resize(limit);
  for (const SubscriptionId id : ids) {
    const Consumer& consumer = *consumers_.at(id);
    const Queue& queue = *consumer.queue;
    ConsumerInfo& info = outcome.consumers.emplace_back();
    info.id = id;
    info.consumer = consumer.name;
    info.queue = queue.row.config.name;
    info.principal = consumer.principal;
    info.peer = consumer.peer;
    info.in_flight = consumer.in_flight;
    info.bytes_in_flight = consumer.bytes_in_flight;
    info.active = !queue.row.config.single_active_consumer || queue.active == id;
    info.connect_ms = consumer.connect_ms;
  }
  command.done(std::move(outcome));
}

void Shard::Do(CloseConsumerCommand& command, Now now) {
  Consumer* consumer = FindConsumer(command.id);
  if (!consumer || consumer->IsReceive() || consumer->ended) {
    return command.done(MakeError(
        ErrorReason::kConsumerNotFound,
        absl::StrCat("there is no consumer with the id '", command.id, "'")));
  }
  consumer->keep_leases_on_close = false;
  DropLeasesOf(*consumer, {}, now);
  EndSubscription(*consumer, MakeError(ErrorReason::kConsumerClosed,
                                       "the consumer was closed by an administrator"));
  ReplyWhenDurable([done = std::move(command.done)](const absl::Status& status) mutable {
    done(status);
  });
}

void Shard::Do(ReceiveCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  Queue* queue = nullptr;
  if (refused.ok()) {
    const auto found = GetQueue(command.queue);
    refused = found.status();
    if (found.ok()) queue = *found;
  }
  if (refused.ok()) refused = CheckExclusive(*queue, false);
  if (refused.ok() && queue->row.config.single_active_consumer) {
    refused = MakeError(ErrorReason::kExclusive,
                        absl::StrCat("queue '", command.queue,
                                     "' has a single active consumer: subscribe to it"));
  }
  if (!refused.ok()) return command.done(refused);

  auto consumer = std::make_unique<Consumer>();
  consumer->name = std::move(command.consumer);
  consumer->auto_ack = command.auto_ack;
  consumer->lease_ms = command.lease_ms > 0 ? command.lease_ms : queue->row.config.lease_ms;
  consumer->max_in_flight = command.max_messages;
  consumer->max_bytes_in_flight = command.max_bytes;
  consumer->messages_left = -1;
  consumer->receive_done = std::move(command.done);
  consumer->call_id = command.call_id;
  Consumer& added = AddConsumer(std::move(consumer), *queue, now);
  // 0 would mean no timer.
  SetConsumerTimer(added, std::max<int64_t>(1, now.mono_ns + command.wait_ms * kNsPerMs));
  WakeConsumer(added);
}

void Shard::AnswerReceive(Consumer& consumer) {
  consumer.receive_done(std::vector<OutgoingDelivery>());
  RemoveConsumer(consumer);
}

void Shard::Do(CancelReceiveCommand& command, Now now) {
  const auto it = by_call_.find(command.call_id);
  if (it == by_call_.end()) return;
  // Once it has messages the answer goes out, and its caller reports it as not written.
  Consumer& consumer = *FindConsumer(it->second);
  if (!consumer.answered) AnswerReceive(consumer);
}

// It takes no more from its queue.
void Shard::LeaveQueue(Consumer& consumer) {
  SetConsumerTimer(consumer, 0);
  if (consumer.rate_timer_ns != 0) {
    mono_timers_.Cancel({consumer.rate_timer_ns, TimerKind::kConsumerRate, 0, 0, consumer.id});
    consumer.rate_timer_ns = 0;
  }
  LeaveTakers(consumer);
  if (!consumer.queue) return;
  Queue& queue = *consumer.queue;
  if (queue.active == consumer.id) {
    queue.active = 0;
  }
  if (consumer.IsReceive()) {
    --queue.receivers;
  } else {
    queue.subscriptions.erase(consumer.id);
    Activate(queue);
  }
  queue.last_used_ms = std::max(queue.last_used_ms, last_turn_ms_);
}

void Shard::ForgetUnwritten(Consumer& consumer, uint64_t bytes) {
  bytes = std::min(bytes, consumer.unwritten_bytes);
  consumer.unwritten_bytes -= bytes;
  unwritten_bytes_ -= bytes;
}

void Shard::RemoveConsumer(Consumer& consumer) {
  ForgetUnwritten(consumer, consumer.unwritten_bytes);
  if (!consumer.ended) LeaveQueue(consumer);
  Queue* queue = consumer.queue;
  if (queue) {
    queue->attached.erase(consumer.id);
    std::shared_ptr<const std::string> receiver;
    if (consumer.IsReceive() && !consumer.name.empty()) {
      receiver = std::make_shared<const std::string>(std::move(consumer.name));
    }
    for (const auto& [lane, seq] : consumer.leases) {
      OpenMessage& message = queue->lanes[lane]->open.at(seq);
      message.holder = 0;
      message.receiver = receiver;
    }
  }
  if (consumer.IsReceive()) {
    by_call_.erase(consumer.call_id);
  } else {
    by_sink_.erase(consumer.sink.get());
  }
  const bool owned = consumer.owns_queue;
  consumers_.erase(consumer.id);
  if (queue && owned) RemoveQueue(*queue, QueueDeleted(queue->row.config.name));
}

// The stream is told its end; the consumer stays until the stream reports that it is over, since
// what it has been handed may still be written.
void Shard::EndSubscription(Consumer& consumer, absl::Status status) {
  if (consumer.ended) return;
  LeaveQueue(consumer);
  consumer.ended = true;
  consumer.sink->OnEnd(std::move(status));
}

// A hand-out that was never written is released uncounted: it is no failure. `handed_out`: the
// transport had it, and who can say that its client has not.
void Shard::ReleaseUnwritten(const Receipt& receipt, bool handed_out, Now now) {
  Queue* queue = FindQueue(receipt.position.qid);
  if (!queue) return;
  auto found = FindHonoured(*queue, receipt, now.mono_ns);
  if (!found.ok() || !found->message || found->message->state != OpenState::kLeased) return;
  LaneState& lane = *found->lane;
  const Seq seq = receipt.position.seq;
  OpenMessage& message = *found->message;
  if (IsExpired(message.expire_ms, now)) {
    return Die(*queue, lane, seq, message, DeathReason::kExpired, now);
  }
  // Two that hold the same receipt could not be told apart: only a number that nobody can have
  // seen is used again.
  if (!handed_out) --message.delivery_count;
  if (message.has_history || message.delivery_count > 0) {
    const bool maybe_redelivered = message.maybe_redelivered;
    ReturnMessage(*queue, lane, seq, message, /*failed=*/false, 0, now);
    message.maybe_redelivered = maybe_redelivered;
    return;
  }
  Unhook(*queue, lane, seq, message);
  message.state = OpenState::kReturned;
  lane.returned.insert(seq);
  Wake(*queue);
}

void Shard::SettleWritten(const Receipt& receipt) {
  Queue* queue = FindQueue(receipt.position.qid);
  if (!queue) return;
  const auto found = FindHonoured(*queue, receipt, 0);
  if (!found.ok() || !found->message) return;
  ++queue->counters.acked;
  Leave(*queue, *found->lane, receipt.position.seq, 0, 0);
}

void Shard::Do(WrittenCommand& command, Now now) {
  const auto it = by_sink_.find(command.sink);
  if (it == by_sink_.end()) return;
  Consumer& consumer = *FindConsumer(it->second);
  ForgetUnwritten(consumer, command.bytes);
  WakeConsumer(consumer);
  if (!consumer.auto_ack) return;
  for (uint32_t i = 0; i < command.deliveries && !consumer.unwritten_auto_acks.empty(); ++i) {
    const Receipt receipt = consumer.unwritten_auto_acks.front();
    consumer.unwritten_auto_acks.pop_front();
    SettleWritten(receipt);
  }
}

void Shard::Do(ReceiveWrittenCommand& command, Now now) {
  for (const Receipt& receipt : command.receipts) {
    if (!command.written) {
      ReleaseUnwritten(receipt, /*handed_out=*/true, now);
    } else if (command.auto_ack) {
      SettleWritten(receipt);
    }
  }
}

// Ends the leases of a stream that is over: what it never got is as if it had not been granted,
// what it got has failed.
void Shard::DropLeasesOf(Consumer& consumer, const std::vector<Receipt>& unwritten, Now now) {
  for (const Receipt& receipt : unwritten) ReleaseUnwritten(receipt, /*handed_out=*/true, now);
  for (const HeldDeliveries& held : consumer.held) {
    for (const OutgoingDelivery& delivery : held.deliveries) {
      ReleaseUnwritten(delivery.receipt, /*handed_out=*/false, now);
    }
  }
  consumer.held.clear();
  if (consumer.ended || consumer.keep_leases_on_close || !consumer.queue) return;
  const std::vector<std::pair<Lane, Seq>> leases(consumer.leases.begin(),
                                                         consumer.leases.end());
  for (const auto& [lane_id, seq] : leases) {
    LaneState& lane = *consumer.queue->lanes[lane_id];
    // Ending the lease of one message may have ended others.
    if (!consumer.leases.contains({lane_id, seq})) continue;
    ReturnMessage(*consumer.queue, lane, seq, lane.open.at(seq), /*failed=*/true, 0, now);
  }
}

void Shard::Do(CloseSubscriptionCommand& command, Now now) {
  const auto it = by_sink_.find(command.sink.get());
  if (it == by_sink_.end()) {
    for (const Receipt& receipt : command.unwritten) {
      ReleaseUnwritten(receipt, /*handed_out=*/true, now);
    }
    return;
  }
  Consumer& consumer = *FindConsumer(it->second);
  if (command.keep_leases) consumer.keep_leases_on_close = true;
  LeaveTakers(consumer);
  DropLeasesOf(consumer, command.unwritten, now);
  RemoveConsumer(consumer);
}

}  // namespace sluice::broker
