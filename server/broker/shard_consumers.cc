// Consumers: subscriptions and waiting Receive calls, from their start to their end.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/broker/shard.h"

namespace sluice::broker {
namespace {

constexpr int64_t kNsPerMs = 1'000'000;

absl::Status QueueNotFound(const std::string& name) {
  return MakeError(ErrorReason::kQueueNotFound,
                   absl::StrCat("queue '", name, "' does not exist"));
}

}  // namespace

Consumer* Shard::FindConsumer(SubscriptionId id) {
  if (id == 0) return nullptr;
  const auto it = consumers_.find(id);
  return it == consumers_.end() ? nullptr : it->second.get();
}

Consumer& Shard::AddConsumer(std::unique_ptr<Consumer> consumer, Queue& queue) {
  Consumer& added = *consumer;
  added.id = next_consumer_id_++;
  added.queue = &queue;
  if (added.IsReceive()) {
    ++queue.receivers;
    by_call_[added.call_id] = added.id;
  } else {
    ++queue.consumers;
    by_sink_[added.sink.get()] = added.id;
  }
  consumers_[added.id] = std::move(consumer);
  return added;
}

void Shard::SetConsumerTimer(Consumer& consumer, int64_t due_ns) {
  const TimerKind kind = consumer.IsReceive() ? TimerKind::kReceiveWait : TimerKind::kIdle;
  if (consumer.timer_due_ns != 0) {
    mono_timers_.Cancel({consumer.timer_due_ns, kind, 0, 0, consumer.id});
  }
  consumer.timer_due_ns = due_ns;
  if (due_ns != 0) mono_timers_.Add({due_ns, kind, 0, 0, consumer.id});
}

void Shard::LeaveTakers(Consumer& consumer) {
  if (!consumer.taking || !consumer.queue) return;
  consumer.taking = false;
  auto& takers = consumer.queue->takers;
  takers.erase(std::find(takers.begin(), takers.end(), consumer.id));
}

void Shard::Do(SubscribeCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  Queue* queue = FindQueue(command.queue);
  if (refused.ok() && !queue) refused = QueueNotFound(command.queue);
  if (!refused.ok()) return command.sink->OnEnd(refused);

  auto consumer = std::make_unique<Consumer>();
  consumer->name = std::move(command.consumer);
  consumer->peer = std::move(command.peer);
  consumer->auto_ack = command.auto_ack;
  consumer->keep_leases_on_close = command.keep_leases_on_close;
  consumer->lease_ms = command.lease_ms > 0 ? command.lease_ms : queue->row.config.lease_ms;
  consumer->max_in_flight = command.max_in_flight;
  consumer->max_bytes_in_flight = command.max_bytes_in_flight;
  consumer->messages_left = command.max_messages > 0 ? command.max_messages : -1;
  consumer->idle_timeout_ms = command.idle_timeout_ms;
  consumer->sink = std::move(command.sink);
  Consumer& added = AddConsumer(std::move(consumer), *queue);
  if (added.idle_timeout_ms > 0) {
    SetConsumerTimer(added, now.mono_ns + added.idle_timeout_ms * kNsPerMs);
  }
  added.sink->OnStarted({added.id, command.queue, added.lease_ms, added.max_in_flight,
                         added.max_bytes_in_flight});
  WakeConsumer(added);
}

void Shard::Do(ReceiveCommand& command, Now now) {
  absl::Status refused = RefuseWhenDraining();
  Queue* queue = FindQueue(command.queue);
  if (refused.ok() && !queue) refused = QueueNotFound(command.queue);
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
  Consumer& added = AddConsumer(std::move(consumer), *queue);
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

void Shard::ForgetUnwritten(Consumer& consumer, uint64_t bytes) {
  bytes = std::min(bytes, consumer.unwritten_bytes);
  consumer.unwritten_bytes -= bytes;
  unwritten_bytes_ -= bytes;
}

void Shard::RemoveConsumer(Consumer& consumer) {
  ForgetUnwritten(consumer, consumer.unwritten_bytes);
  SetConsumerTimer(consumer, 0);
  LeaveTakers(consumer);
  if (consumer.queue) {
    for (const auto& [lane, seq] : consumer.leases) {
      consumer.queue->lanes[lane]->open.at(seq).holder = 0;
    }
    if (consumer.IsReceive()) {
      --consumer.queue->receivers;
    } else if (!consumer.ended) {
      --consumer.queue->consumers;
    }
  }
  if (consumer.IsReceive()) {
    by_call_.erase(consumer.call_id);
  } else {
    by_sink_.erase(consumer.sink.get());
  }
  consumers_.erase(consumer.id);
}

// The stream is told its end; the consumer stays until the stream reports that it is over, since
// what it has been handed may still be written.
void Shard::EndSubscription(Consumer& consumer, absl::Status status) {
  if (consumer.ended) return;
  SetConsumerTimer(consumer, 0);
  LeaveTakers(consumer);
  consumer.ended = true;
  if (consumer.queue) --consumer.queue->consumers;
  consumer.sink->OnEnd(std::move(status));
}

void Shard::ReleaseUnwritten(const Receipt& receipt, Now now) {
  Queue* queue = FindQueue(receipt.position.qid);
  if (!queue) return;
  auto found = FindHonoured(*queue, receipt, now.mono_ns);
  if (!found.ok() || !found->message || found->message->state != OpenState::kLeased) return;
  LaneState& lane = *found->lane;
  const Seq seq = receipt.position.seq;
  OpenMessage& message = *found->message;
  // Nobody has seen this hand-out, so its number can be used again.
  --message.delivery_count;
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
  SettleMessage(*queue, *found->lane, receipt.position.seq, found->message);
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
      ReleaseUnwritten(receipt, now);
    } else if (command.auto_ack) {
      SettleWritten(receipt);
    }
  }
}

// Ends the leases of a stream that is over: what it never got is as if it had not been granted,
// what it got has failed.
void Shard::DropLeasesOf(Consumer& consumer, const std::vector<Receipt>& unwritten, Now now) {
  for (const Receipt& receipt : unwritten) ReleaseUnwritten(receipt, now);
  for (const HeldDeliveries& held : consumer.held) {
    for (const OutgoingDelivery& delivery : held.deliveries) {
      ReleaseUnwritten(delivery.receipt, now);
    }
  }
  consumer.held.clear();
  if (consumer.ended || consumer.keep_leases_on_close || !consumer.queue) return;
  const std::vector<std::pair<Lane, Seq>> leases(consumer.leases.begin(),
                                                         consumer.leases.end());
  for (const auto& [lane_id, seq] : leases) {
    LaneState& lane = *consumer.queue->lanes[lane_id];
    ReturnMessage(*consumer.queue, lane, seq, lane.open.at(seq), /*failed=*/true, 0, now);
  }
}

void Shard::Do(CloseSubscriptionCommand& command, Now now) {
  const auto it = by_sink_.find(command.sink.get());
  if (it == by_sink_.end()) {
    for (const Receipt& receipt : command.unwritten) ReleaseUnwritten(receipt, now);
    return;
  }
  Consumer& consumer = *FindConsumer(it->second);
  LeaveTakers(consumer);
  DropLeasesOf(consumer, command.unwritten, now);
  RemoveConsumer(consumer);
}

}  // namespace sluice::broker
