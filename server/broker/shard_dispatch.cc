// Due work, and handing ready messages to consumers with credit.
#include <algorithm>

#include "server/base/check.h"
#include "server/broker/shard.h"

namespace sluice::broker {
namespace {

// Bounds of one turn, so that one queue or one moment cannot hold up everything else.
constexpr int kDueItemsPerTurnMax = 10'000;
constexpr int kGrantsPerQueueAndTurnMax = 4096;
// How often a Receive that is out of time looks again while its messages are being read.
constexpr int64_t kReceiveGraceNs = 2'000'000;
// Queues looked at per turn when windows are over their limit.
constexpr int kEvictionsPerTurnMax = 256;
constexpr int64_t kNsPerMs = 1'000'000;

}  // namespace

void Shard::Wake(Queue& queue) {
  if (queue.dispatch_pending) return;
  queue.dispatch_pending = true;
  dispatch_.push_back(queue.qid);
}

void Shard::WakeConsumer(Consumer& consumer) {
  if (consumer.taking || consumer.ended || consumer.answered || !consumer.queue) return;
  if (!consumer.CanTake(0, UnwrittenMax())) return;
  consumer.taking = true;
  consumer.queue->takers.push_back(consumer.id);
  Wake(*consumer.queue);
}

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
}

void Shard::RunTimer(const Timer& timer, Now now) {
  switch (timer.kind) {
    case TimerKind::kLease: {
      Queue* queue = FindQueue(timer.qid);
      if (!queue) return;
      LaneState& lane = *queue->lanes[timer.lane];
      OpenMessage& message = lane.open.at(timer.id);
      ++queue->counters.leases_expired;
      Consumer* holder = FindConsumer(message.holder);
      if (holder && !holder->ended && !holder->IsReceive()) {
        const Receipt receipt{lane.At(timer.id), message.boot, message.delivery_count};
        holder->sink->OnLeaseLost({receipt}, ErrorReason::kLeaseExpired);
      }
      // Back at once: the lease itself was the time to wait.
      ReturnMessage(*queue, lane, timer.id, message, /*failed=*/true, 0, now);
      return;
    }
    case TimerKind::kRetry: {
      Queue* queue = FindQueue(timer.qid);
      if (!queue) return;
      LaneState& lane = *queue->lanes[timer.lane];
      OpenMessage& message = lane.open.at(timer.id);
      --lane.waiting;
      message.not_before_ms = 0;
      message.state = OpenState::kReturned;
      lane.returned.insert(timer.id);
      Wake(*queue);
      return;
    }
    case TimerKind::kIdle: {
      Consumer* consumer = FindConsumer(timer.id);
      if (!consumer) return;
      consumer->timer_due_ns = 0;
      if (consumer->outbox.empty() && consumer->held.empty()) {
        EndSubscription(*consumer, absl::OkStatus());
      } else {
        SetConsumerTimer(*consumer, now.mono_ns + consumer->idle_timeout_ms * kNsPerMs);
      }
      return;
    }
    case TimerKind::kReceiveWait: {
      Consumer* consumer = FindConsumer(timer.id);
      if (!consumer) return;
      consumer->timer_due_ns = 0;
      // A call that does not wait still gets what is there.
      Dispatch(*consumer->queue, now);
      if (!consumer->outbox.empty()) return;
      for (const auto& lane : consumer->queue->lanes) {
        if (!lane || !lane->reading) continue;
        SetConsumerTimer(*consumer, now.mono_ns + kReceiveGraceNs);
        return;
      }
      AnswerReceive(*consumer);
      return;
    }
  }
}

void Shard::DispatchAll(Now now) {
  // Leases made after the stop has saved them would be lost.
  if (stopping_) dispatch_.clear();
  for (size_t left = dispatch_.size(); left > 0; --left) {
    const QueueId qid = dispatch_.front();
    dispatch_.pop_front();
    Queue* queue = FindQueue(qid);
    if (!queue) continue;
    queue->dispatch_pending = false;
    Dispatch(*queue, now);
  }
}

void Shard::Dispatch(Queue& queue, Now now) {
  if (stopping_) return;
  for (int grants = 0; grants < kGrantsPerQueueAndTurnMax; ++grants) {
    if (queue.takers.empty()) return;
    bool granted = false;
    for (auto& lane : queue.lanes) {
      if (!lane) continue;
      bool blocked = false;
      granted = GrantNext(queue, *lane, &blocked, now);
      // A higher priority that is ready goes first, also when it still has to be read.
      if (granted || blocked) break;
    }
    if (!granted) return;
  }
  Wake(queue);
}

// Grants the next message of the lane. False: none could be; `blocked` then says that there is
// one, so that lower lanes must wait.
bool Shard::GrantNext(Queue& queue, LaneState& lane, bool* blocked, Now now) {
  if (!lane.returned.empty()) {
    const Seq seq = *lane.returned.begin();
    OpenMessage& message = lane.open.at(seq);
    if (message.payload) {
      Consumer* consumer = NextTaker(queue, message.payload.size());
      *blocked = consumer == nullptr;
      if (!consumer) return false;
      lane.returned.erase(seq);
      window_bytes_ -= message.payload.size();
      const bool seen_before = message.has_history || message.delivery_count > 0;
      Grant(queue, lane, *consumer, seq, message, std::move(message.payload), seen_before, now);
      return true;
    }
    FetchReturned(queue, lane);
    // It keeps its place: what comes after it waits for the read.
    *blocked = true;
    return false;
  }
  ReadyMessage* front = lane.Front(&window_bytes_);
  if (!front) {
    if (lane.HasMoreOnDisk() && PageIn(queue, lane)) *blocked = true;
    return false;
  }
  *blocked = true;
  if (queue.open_messages >= options_.open_messages_per_queue_max) return false;
  if (open_messages_ >= options_.open_messages_max) {
    if (!std::exchange(queue.waits_for_open_messages, true)) {
      waiting_for_open_messages_.push_back(queue.qid);
    }
    return false;
  }
  Consumer* consumer = NextTaker(queue, front->payload.size());
  if (!consumer) return false;
  ReadyMessage ready = lane.PopFront(&window_bytes_);
  OpenMessage& message = lane.open[ready.seq];
  message.size_bytes = ready.payload.size();
  message.publish_ms = ready.publish_ms;
  message.maybe_redelivered = ready.seq < lane.crash_bound;
  ++queue.open_messages;
  ++open_messages_;
  Grant(queue, lane, *consumer, ready.seq, message, std::move(ready.payload),
        message.maybe_redelivered, now);
  if (lane.window.size() < kWindowMessagesMax / 4 && lane.window_bytes < kWindowBytesMax / 4 &&
      lane.HasMoreOnDisk()) {
    PageIn(queue, lane);
  }
  return true;
}

Consumer* Shard::NextTaker(Queue& queue, uint32_t bytes) {
  while (!queue.takers.empty()) {
    const SubscriptionId id = queue.takers.front();
    queue.takers.pop_front();
    Consumer& consumer = *FindConsumer(id);
    if (consumer.CanTake(bytes, UnwrittenMax())) {
      queue.takers.push_back(id);
      return &consumer;
    }
    consumer.taking = false;
  }
  return nullptr;
}

void Shard::Grant(Queue& queue, LaneState& lane, Consumer& consumer, Seq seq, OpenMessage& message,
                  Payload payload, bool write_history, Now now) {
  const MessagePosition at = lane.At(seq);
  message.state = OpenState::kLeased;
  message.boot = boot_row_.boot;
  ++message.delivery_count;
  message.holder = consumer.id;
  message.lease_until_ns = now.mono_ns + consumer.lease_ms * kNsPerMs;
  ++lane.leased;
  mono_timers_.Add({message.lease_until_ns, TimerKind::kLease, at.lane, at.qid, at.seq});

  if (write_history) {
    lane.WriteHistory(seq, message, 0, batch_);
    consumer.outbox_lsn = last_lsn_ + 1;
    ++queue.counters.redelivered;
  } else {
    // Ahead of need where possible, so that nobody waits for it.
    if (seq + kGrantBoundChunk / 2 >= lane.grant_bound && lane.grant_bound < lane.next_seq) {
      lane.RaiseGrantBound(std::min(lane.next_seq, seq + kGrantBoundChunk), last_lsn_ + 1);
      MarkDirty(queue, lane);
    }
    if (seq >= lane.durable_grant_bound) {
      consumer.outbox_lsn = std::max(consumer.outbox_lsn, lane.grant_bound_lsn);
    }
  }
  ++queue.counters.delivered;
  ++consumer.in_flight;
  consumer.bytes_in_flight += message.size_bytes;
  if (!consumer.IsReceive()) {
    consumer.unwritten_bytes += message.size_bytes;
    unwritten_bytes_ += message.size_bytes;
  }
  if (consumer.messages_left > 0) --consumer.messages_left;
  consumer.leases.insert({at.lane, seq});

  if (consumer.outbox.empty()) outboxes_.push_back(consumer.id);
  OutgoingDelivery& delivery = consumer.outbox.emplace_back();
  delivery.receipt = {at, message.boot, message.delivery_count};
  delivery.attempt = message.attempt;
  delivery.lease_expires_at_ms = now.engine_ms + consumer.lease_ms;
  delivery.maybe_redelivered = message.maybe_redelivered;
  delivery.payload = std::move(payload);
}

void Shard::StartRead(LaneState& lane, PageRequest request) {
  lane.reading = true;
  reading_bytes_ += request.range.bytes_max;
  port_->StartRead(std::move(request));
}

bool Shard::PageIn(Queue& queue, LaneState& lane) {
  if (lane.reading) return true;
  const bool small = MemoryIsShort();
  PageRequest request;
  request.range.qid = queue.qid;
  request.range.lane = lane.position.lane;
  request.range.begin = lane.settled.NextUnsettled(lane.fetch_cursor);
  request.range.end = lane.visible_end;
  request.range.messages_max = small ? kSmallPageMessagesMax : kPageMessagesMax;
  request.range.bytes_max = small ? kSmallPageBytesMax : kPageBytesMax;
  if (request.range.begin >= request.range.end) {
    lane.fetch_cursor = request.range.end;
    return false;
  }
  StartRead(lane, std::move(request));
  return true;
}

void Shard::FetchReturned(Queue& queue, LaneState& lane) {
  if (lane.reading) return;
  PageRequest request;
  request.range.qid = queue.qid;
  request.range.lane = lane.position.lane;
  const bool small = MemoryIsShort();
  const uint64_t bytes_max = small ? kSmallPageBytesMax : kPageBytesMax;
  const size_t messages_max = small ? kSmallPageMessagesMax : kPageMessagesMax;
  uint64_t bytes = 0;
  for (const Seq seq : lane.returned) {
    OpenMessage& message = lane.open.at(seq);
    if (message.payload) continue;
    request.seqs.push_back(seq);
    bytes += message.size_bytes;
    if (bytes >= bytes_max || request.seqs.size() >= messages_max) break;
  }
  request.range.bytes_max = bytes;
  StartRead(lane, std::move(request));
}

absl::Status Shard::OnPage(const PageRequest& request,
                           std::vector<storage::StoredMessage> messages, Now now) {
  reading_bytes_ -= request.range.bytes_max;
  Queue* queue = FindQueue(request.range.qid);
  if (!queue) return absl::OkStatus();
  LaneState& lane = *queue->lanes[request.range.lane];
  lane.reading = false;
  Wake(*queue);
  if (request.peek) {
    if (!messages.empty()) lane.peeked_publish_ms = messages.front().publish_ms;
    return absl::OkStatus();
  }
  if (request.seqs.empty()) return lane.AddPage(request.range, std::move(messages), &window_bytes_);

  auto found = messages.begin();
  for (const Seq seq : request.seqs) {
    const auto it = lane.open.find(seq);
    const bool present = found != messages.end() && found->seq == seq;
    if (it != lane.open.end() && !present) {
      return MakeError(ErrorReason::kDataDamaged,
                       "message " + FormatMessageId(lane.At(seq)) +
                           " is neither settled nor in the store");
    }
    if (present && it != lane.open.end() && it->second.state == OpenState::kReturned) {
      it->second.publish_ms = found->publish_ms;
      it->second.size_bytes = found->payload.size();
      window_bytes_ += found->payload.size() - it->second.payload.size();
      it->second.payload = std::move(found->payload);
    }
    if (present) ++found;
  }
  return absl::OkStatus();
}

void Shard::FlushOutboxes(Now now) {
  for (const SubscriptionId id : outboxes_) {
    Consumer* consumer = FindConsumer(id);
    if (!consumer || consumer->outbox.empty()) continue;
    std::vector<OutgoingDelivery> deliveries = std::move(consumer->outbox);
    consumer->outbox.clear();
    const Lsn outbox_lsn = std::exchange(consumer->outbox_lsn, 0);
    if (consumer->IsReceive()) {
      consumer->answered = true;
      LeaveTakers(*consumer);
      SetConsumerTimer(*consumer, 0);
    } else if (consumer->idle_timeout_ms > 0) {
      SetConsumerTimer(*consumer, now.mono_ns + consumer->idle_timeout_ms * kNsPerMs);
    }
    if (outbox_lsn <= durable_lsn_ && consumer->held.empty()) {
      Deliver(*consumer, std::move(deliveries));
      continue;
    }
    // What needs no row waits as well when something before it does: order is kept.
    const Lsn lsn =
        consumer->held.empty() ? outbox_lsn : std::max(outbox_lsn, consumer->held.back().lsn);
    consumer->held.push_back({lsn, std::move(deliveries)});
    effects_.holders.push_back(id);
  }
  outboxes_.clear();
}

void Shard::Deliver(Consumer& consumer, std::vector<OutgoingDelivery> deliveries) {
  if (consumer.IsReceive()) {
    ReceiveCommand::Done done = std::move(consumer.receive_done);
    RemoveConsumer(consumer);
    done(std::move(deliveries));
    return;
  }
  if (consumer.auto_ack) {
    for (const OutgoingDelivery& delivery : deliveries) {
      consumer.unwritten_auto_acks.push_back(delivery.receipt);
    }
  }
  consumer.sink->OnDeliveries(std::move(deliveries));
  if (consumer.messages_left == 0 && consumer.held.empty() && consumer.outbox.empty()) {
    EndSubscription(consumer, absl::OkStatus());
  }
}

// Gives back windows of queues that nobody consumes when memory runs short; they are on disk.
void Shard::EvictIdleWindows() {
  if (window_bytes_ <= options_.window_bytes_max / 8 * 7 || queues_.empty()) return;
  auto it = queues_.upper_bound(evict_cursor_);
  for (int i = 0; i < kEvictionsPerTurnMax; ++i) {
    if (it == queues_.end()) it = queues_.begin();
    Queue& queue = *it->second;
    evict_cursor_ = it->first;
    ++it;
    if (queue.IsConsumed()) continue;
    for (auto& lane : queue.lanes) {
      if (!lane) continue;
      // What is not durable yet cannot be read back before it is: HasMoreOnDisk sees to that.
      lane->TrimWindow(0, 0, &window_bytes_);
      // At most a page of them was fetched.
      size_t left = kPageMessagesMax;
      for (const Seq seq : lane->returned) {
        if (left-- == 0) break;
        Payload& payload = lane->open.at(seq).payload;
        window_bytes_ -= payload.size();
        payload = Payload();
      }
    }
  }
}

}  // namespace sluice::broker
