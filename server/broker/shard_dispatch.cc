// Handing ready messages to consumers with credit.
#include <algorithm>
#include <numeric>
#include <tuple>

#include "server/base/check.h"
#include "server/broker/shard.h"

namespace sluice::broker {
namespace {

// Bound of one turn, so that one queue cannot hold up everything else.
constexpr int kStepsPerQueueAndTurnMax = 4096;
constexpr int64_t kNsPerMs = 1'000'000;

}  // namespace

void Shard::Wake(Queue& queue) {
  if (queue.dispatch_pending) return;
  queue.dispatch_pending = true;
  dispatch_.push_back(queue.qid);
}

void Shard::WakeConsumer(Consumer& consumer) {
  if (consumer.ended || consumer.answered || !consumer.queue) return;
  Queue& queue = *consumer.queue;
  if (consumer.taking) return Wake(queue);
  if (!CanTake(consumer, 0) || consumer.rate_timer_ns != 0) return;
  if (queue.row.config.single_active_consumer && queue.active != consumer.id) return;
  consumer.taking = true;
  queue.takers.Add(consumer.priority, consumer.id);
  Wake(queue);
}

void Shard::LeaveTakers(Consumer& consumer) {
  if (!consumer.taking || !consumer.queue) return;
  consumer.taking = false;
  consumer.queue->takers.Remove(consumer.priority, consumer.id);
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
  for (int steps = 0; steps < kStepsPerQueueAndTurnMax; ++steps) {
    if (!MayDispatch(queue, now)) return;
    const Step step = StepQueue(queue, now);
    if (step == Step::kNothing || step == Step::kBlocked) return;
  }
  Wake(queue);
}

bool Shard::MayDispatch(Queue& queue, Now now) {
  if (stopping_ || queue.row.paused || queue.takers.empty()) return false;
  if (queue.rate.HasToken(now.mono_ns)) return true;
  if (queue.rate_timer_ns == 0) {
    queue.rate_timer_ns = queue.rate.NextTokenNs();
    mono_timers_.Add({queue.rate_timer_ns, TimerKind::kQueueRate, 0, queue.qid, 0});
  }
  return false;
}

// Higher priorities first. With aging a lane counts as one priority more for each period that its
// first message has waited; only heads are compared.
std::array<Lane, kImmediateLanes> Shard::LaneOrder(Queue& queue, Now now) {
  std::array<Lane, kImmediateLanes> order;
  std::iota(order.begin(), order.end(), 0);
  const int64_t aging_ms = queue.row.config.priority_aging_ms;
  if (aging_ms == 0) return order;
  std::array<int64_t, kImmediateLanes> priority;
  std::array<int64_t, kImmediateLanes> heads_ms;
  heads_ms.fill(now.engine_ms);
  for (Lane id = 0; id < kImmediateLanes; ++id) {
    priority[id] = PriorityOfLane(id);
    LaneState* lane = queue.lanes[id].get();
    if (!lane) continue;
    int64_t head_ms = now.engine_ms;
    if (!lane->returned.empty()) {
      const OpenMessage& message = lane->open.at(*lane->returned.begin());
      if (message.ready_since_ms > 0) head_ms = message.ready_since_ms;
    } else if (queue.groups && queue.groups->Candidate(id)) {
      const int64_t since_ms = queue.groups->CandidateMessage(id).info.ReadySinceMs();
      if (since_ms > 0) {
        head_ms = since_ms;
      } else {
        FetchParked(queue, *lane);  // as below
      }
    } else if (const storage::StoredMessage* front = lane->Front(&window_bytes_)) {
      head_ms = front->info.ReadySinceMs();
    } else if (lane->HasMoreOnDisk()) {
      // While higher lanes have work nobody else would ever ask for it.
      PageIn(queue, *lane);
    }
    heads_ms[id] = head_ms;
    priority[id] =
        std::min<int64_t>(kPriorityMax, priority[id] + (now.engine_ms - head_ms) / aging_ms);
  }
  // Of equals the one that has waited longer: a stream of the highest priority must not starve what
  // has aged up to it.
  std::stable_sort(order.begin(), order.end(), [&](Lane a, Lane b) {
    return std::tie(priority[b], heads_ms[a]) < std::tie(priority[a], heads_ms[b]);
  });
  return order;
}

Shard::Step Shard::StepQueue(Queue& queue, Now now) {
  if (queue.row.config.priority_aging_ms == 0) {
    for (auto& lane : queue.ImmediateLanes()) {
      if (!lane) continue;
      const Step step = StepLane(queue, *lane, now);
      if (step != Step::kNothing) return step;
    }
    return Step::kNothing;
  }
  for (const Lane id : LaneOrder(queue, now)) {
    if (!queue.lanes[id]) continue;
    const Step step = StepLane(queue, *queue.lanes[id], now);
    if (step != Step::kNothing) return step;
  }
  return Step::kNothing;
}

// kBlocked: the lane has a ready message that has to wait, so that lower ones must not go before it.
Shard::Step Shard::StepLane(Queue& queue, LaneState& lane, Now now) {
  if (!lane.returned.empty()) return StepReturned(queue, lane, now);
  // Retries whose time has come are being read: they go before what follows.
  if (lane.joining) return Step::kBlocked;
  const Lane id = lane.position.lane;
  if (queue.groups && queue.groups->Candidate(id)) {
    // Candidates come before everything that dispatch has not passed yet.
    if (!queue.groups->CandidateMessage(id).payload) {
      FetchParked(queue, lane);
    } else {
      storage::StoredMessage message = queue.groups->CandidateMessage(id);
      return StepFresh(queue, lane, message, /*candidate=*/true, now);
    }
  }
  storage::StoredMessage* front = lane.Front(&window_bytes_);
  if (!front) {
    if (lane.HasMoreOnDisk() && PageIn(queue, lane)) return Step::kBlocked;
    return lane.parked_reads > 0 ? Step::kBlocked : Step::kNothing;
  }
  const uint64_t group_hash = front->info.group_hash;
  if (group_hash != 0) {
    if (!queue.groups) queue.groups = std::make_unique<GroupTable>();
    if (!front->payload || !queue.groups->MayGrant(group_hash, id)) {
      storage::StoredMessage message = lane.PopFront(&window_bytes_);
      // What waits for its group may wait long: no more of it than a lane may have in its window, or
      // it would leave all others pages of a few messages.
      if (MemoryIsShort() || queue.groups->payload_bytes() >= kWindowBytesMax) {
        message.payload = Payload();
      }
      window_bytes_ += queue.groups->Park(id, std::move(message));
      RefillGroups(queue);
      return Step::kChanged;
    }
  }
  return StepFresh(queue, lane, *front, /*candidate=*/false, now);
}

Shard::Step Shard::StepReturned(Queue& queue, LaneState& lane, Now now) {
  const Seq seq = *lane.returned.begin();
  OpenMessage& message = lane.open.at(seq);
  if (IsExpired(message.expire_ms, now)) {
    Die(queue, lane, seq, message, DeathReason::kExpired, now);
    return Step::kChanged;
  }
  if (!message.payload) {
    // It keeps its place: what comes after it waits for the read.
    FetchReturned(queue, lane);
    return Step::kBlocked;
  }
  Consumer* consumer = NextTaker(queue, message.payload.size(), now);
  if (!consumer) return Step::kBlocked;
  lane.returned.erase(seq);
  Payload payload = lane.TakeFetched(seq, message, &window_bytes_);
  ScheduleDue(queue, lane);
  const bool seen_before = message.has_history || message.delivery_count > 0;
  Grant(queue, lane, *consumer, seq, message, std::move(payload), seen_before, now);
  return Step::kGranted;
}

// The limits on open messages: what is open already is not held up by them.
bool Shard::AtOpenLimit(Queue& queue) {
  if (queue.open_messages >= options_.open_messages_per_queue_max) return true;
  if (open_messages_ < options_.open_messages_max ||
      queue.open_messages < options_.open_messages_reserved) {
    return false;
  }
  if (!std::exchange(queue.waits_for_open_messages, true)) {
    waiting_for_open_messages_.push_back(queue.qid);
  }
  return true;
}

// `message` is the lane's front, or a copy of its first candidate.
Shard::Step Shard::StepFresh(Queue& queue, LaneState& lane, storage::StoredMessage& message,
                             bool candidate, Now now) {
  if (AtOpenLimit(queue)) return Step::kNothing;
  const bool expired = IsExpired(message.info.expire_ms, now);
  Consumer* consumer = nullptr;
  if (!expired) {
    consumer = NextTaker(queue, message.payload.size(), now);
    if (!consumer) return Step::kBlocked;
  }
  // A candidate that dies leaves from its place in the group, like any that is parked.
  if (expired && candidate &&
      DieWithBody(queue, lane, message, DeathReason::kExpired, "", now)) {
    return Step::kChanged;
  }
  storage::StoredMessage taken;
  if (candidate) {
    message = {};  // the copy holds on to the payload
    taken = queue.groups->TakeCandidate(lane.position.lane);
    window_bytes_ -= taken.payload.size();
  } else {
    taken = lane.PopFront(&window_bytes_);
  }
  const Seq seq = taken.seq;
  if (expired) {
    if (candidate || !DieWithBody(queue, lane, taken, DeathReason::kExpired, "", now)) {
      HoldExpired(queue, lane, std::move(taken));
    }
    return Step::kChanged;
  }
  OpenMessage& open = OpenFresh(queue, lane, taken);
  Grant(queue, lane, *consumer, seq, open, std::move(taken.payload), open.maybe_redelivered, now);
  if (lane.window.size() < kWindowMessagesMax / 4 && lane.window_bytes < kWindowBytesMax / 4 &&
      lane.HasMoreOnDisk()) {
    PageIn(queue, lane);
  }
  return Step::kGranted;
}

// A message that was never open in this boot is open from now on.
OpenMessage& Shard::OpenFresh(Queue& queue, LaneState& lane,
                              const storage::StoredMessage& message) {
  OpenMessage& open = lane.open[message.seq];
  open.size_bytes = message.payload.size();
  open.ready_since_ms = message.info.ReadySinceMs();
  open.group_hash = message.info.group_hash;
  open.expire_ms = message.info.expire_ms;
  open.origin = message.info.origin;
  open.maybe_redelivered = message.seq < lane.crash_bound;
  if (open.group_hash != 0) {
    queue.groups->Open(open.group_hash, lane.position.lane, message.seq);
  }
  ++queue.open_messages;
  ++open_messages_;
  return open;
}

// The next consumer whose turn it is and whose credit takes so many bytes. Those who have no credit
// left at all leave; one whose bytes do not suffice stays for a smaller message.
Consumer* Shard::NextTaker(Queue& queue, uint32_t bytes, Now now) {
  const auto reject = [&](SubscriptionId id) {
    Consumer& consumer = *FindConsumer(id);
    if (!CanTake(consumer, 0)) {
      consumer.taking = false;
      return Takers::Verdict::kLeaves;
    }
    if (!consumer.rate.HasToken(now.mono_ns)) {
      consumer.taking = false;
      consumer.rate_timer_ns = consumer.rate.NextTokenNs();
      mono_timers_.Add({consumer.rate_timer_ns, TimerKind::kConsumerRate, 0, 0, consumer.id});
      return Takers::Verdict::kLeaves;
    }
    return CanTake(consumer, bytes) ? Takers::Verdict::kTakes : Takers::Verdict::kStays;
  };
  return FindConsumer(queue.takers.Next(reject));
}

void Shard::Grant(Queue& queue, LaneState& lane, Consumer& consumer, Seq seq, OpenMessage& message,
                  Payload payload, bool write_history, Now now) {
  const MessagePosition at = lane.At(seq);
  message.state = OpenState::kLeased;
  message.cut_short = false;
  message.boot = boot_row_.boot;
  ++message.delivery_count;
  message.holder = consumer.id;
  message.lease_until_ns = now.mono_ns + consumer.lease_ms * kNsPerMs;
  ++lane.leased;
  mono_timers_.Add({message.lease_until_ns, TimerKind::kLease, at.lane, at.qid, at.seq});
  queue.rate.Take(now.mono_ns);
  consumer.rate.Take(now.mono_ns);

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
    consumer.outbox_lsn = std::max(consumer.outbox_lsn, lane.gap_lsn);
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
  if (message.origin && !message.origin->deaths.empty()) {
    delivery.deaths = {message.origin, &message.origin->deaths};
  }
}

// The limits on open messages may have been what held this queue, or others, up.
void Shard::ForgetOpen(Queue& queue, size_t count) {
  if (queue.open_messages >= options_.open_messages_per_queue_max) Wake(queue);
  queue.open_messages -= count;
  open_messages_ -= count;
  if (open_messages_ >= options_.open_messages_max &&
      queue.open_messages >= options_.open_messages_reserved) {
    return;
  }
  if (queue.waits_for_open_messages) Wake(queue);
  if (open_messages_ >= options_.open_messages_max) return;
  for (const QueueId qid : std::exchange(waiting_for_open_messages_, {})) {
    Queue* waiting = FindQueue(qid);
    if (!waiting) continue;
    waiting->waits_for_open_messages = false;
    Wake(*waiting);
  }
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
  if (!consumer.held.empty() || !consumer.outbox.empty()) return;
  if (consumer.messages_left == 0) {
    EndSubscription(consumer, absl::OkStatus());
  } else {
    TellDrained(consumer);
  }
}

}  // namespace sluice::broker
