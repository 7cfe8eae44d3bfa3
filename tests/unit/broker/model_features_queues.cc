// Consumers and queues.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/unit/broker/model_features.h"

namespace sluice::broker {
namespace {

constexpr size_t kConsumersMax = 8;
constexpr uint64_t kQueues = 4;
// Another one that is seldom used, so that it is idle at times.
constexpr const char* kIdleQueue = "q4";
constexpr int64_t kIdleExpiryMs = 1'000;

}  // namespace

std::string FeatureDriver::SomeName() {
  const uint64_t dice = Below(100);
  if (dice < 2) return kIdleQueue;
  if (dice < 12) {
    const auto& live = model_.ledger.live();
    const LedgerQueue* queue = live.empty() ? nullptr : live[Below(live.size())];
    if (queue && queue->row.temporary) return queue->name();
  }
  return absl::StrCat("q", Below(kQueues));
}

// ---- consumers

void FeatureDriver::Subscribe(SubscribeCommand command) {
  auto sink = std::make_shared<FeatureSink>(this);
  LedgerQueue* queue = model_.ledger.Find(command.queue);
  command.sink = sink;
  FeatureConsumer& consumer = sink->consumer;
  consumer.queue = command.queue;
  consumer.since_ms = model_.now_ms;
  consumer.max_in_flight = command.max_in_flight;
  consumer.max_bytes_in_flight = command.max_bytes_in_flight;
  consumer.auto_ack = command.auto_ack;
  consumer.keep_leases_on_close = command.keep_leases_on_close;
  consumer.messages_left = command.max_messages > 0 ? command.max_messages : -1;
  consumer.exclusive = command.exclusive;
  consumer.priority = command.consumer_priority;
  consumer.rate = command.delivery_rate;
  consumer.lease_ms = command.lease_ms;
  consumer.idle_timeout_ms = command.idle_timeout_ms;
  if (queue) consumer.qid = queue->qid;
  bool taken = false;
  size_t others = 0;
  for (const auto& other : sinks_) {
    if (other->consumer.queue != consumer.queue || other->consumer.ended || !queue) continue;
    ++others;
    taken |= other->consumer.exclusive;
  }
  for (const auto& [id, receive] : receives_) others += receive->qid == consumer.qid;
  if (!queue) consumer.messages_left = 0;
  world_.shard->Apply(std::move(command), now());
  if (consumer.ended) {
    // A call that waits may have been answered meanwhile.
    Check(!queue || taken || (consumer.exclusive && others > 0), "a subscription was refused");
    old_sinks_.push_back(sink);
    return;
  }
  Check(queue && consumer.started, "subscribed to no queue");
  Check(!taken, "subscribed beside an exclusive consumer");
  model_.Used(*queue);
  sinks_.push_back(sink);
}

// A stream with a queue of its own: nobody hears of it before it is durable.
void FeatureDriver::DoSubscribeTemporary() {
  if (!first_of_turn_ || sinks_.size() >= kConsumersMax) return;
  auto sink = std::make_shared<FeatureSink>(this);
  SubscribeCommand command;
  command.sink = sink;
  command.temporary_queue = std::make_unique<TemporaryQueueSpec>();
  TemporaryQueueSpec& spec = *command.temporary_queue;
  const std::string name = absl::StrCat("sluice.tmp.", next_temporary_++);
  spec.config.name = name;
  spec.config.lease_ms = OneOf<int64_t>({30, 300});
  if (Chance(30)) spec.config.ttl_ms = 200;
  if (Chance(30)) spec.config.max_length = 5;
  if (Chance(30)) spec.config.idle_expiry_ms = kIdleExpiryMs;
  for (uint64_t i = Below(3); i > 0; --i) spec.bindings.push_back(SomeBinding(name));
  ErrorReason expected = ErrorReason::kUnspecified;
  for (const Binding& binding : spec.bindings) {
    if (!model_.routing.exchanges.contains(binding.exchange)) {
      expected = ErrorReason::kExchangeNotFound;
    } else if (expected == ErrorReason::kUnspecified) {
      expected = RefusalOf(binding);
    }
  }
  command.lease_ms = OneOf<int64_t>({3, 50, 5000});
  command.idle_timeout_ms = Chance(20) ? OneOf<int64_t>({20, 400}) : 0;
  command.auto_ack = Chance(30);
  FeatureConsumer& consumer = sink->consumer;
  consumer.owns_queue = true;
  consumer.queue = name;
  consumer.since_ms = model_.now_ms;
  consumer.max_in_flight = command.max_in_flight;
  consumer.max_bytes_in_flight = command.max_bytes_in_flight;
  consumer.auto_ack = command.auto_ack;
  consumer.lease_ms = command.lease_ms;
  consumer.idle_timeout_ms = command.idle_timeout_ms;
  if (expected == ErrorReason::kUnspecified) {
    model_.AskRow(name);
    for (const Binding& binding : spec.bindings) model_.routing.bindings.insert(binding);
  } else {
    consumer.messages_left = 0;
    model_.AskRow(name);
    model_.AskGone(name);
  }
  world_.shard->Apply(std::move(command), now());
  Check(consumer.ended == (expected != ErrorReason::kUnspecified),
        "a temporary queue was made or refused wrongly");
  (consumer.ended ? old_sinks_ : sinks_).push_back(sink);
  if (!consumer.ended) ++model_.seen["temporary queues"];
}

void FeatureDriver::DoSubscribe() {
  if (sinks_.size() >= kConsumersMax) return DoClose();
  SubscribeCommand command;
  command.queue = SomeName();
  // A queue made or removed in this very turn is not in the log yet.
  if (!first_of_turn_) return;
  command.max_in_flight = OneOf({1, 2, 5, 20, 100});
  command.max_bytes_in_flight = OneOf<int64_t>({1, 500, 5000, kMaxBytesInFlightDefault});
  command.lease_ms = OneOf<int64_t>({3, 50, 500, 5000});
  command.auto_ack = Chance(20);
  command.max_messages = Chance(20) ? 1 + static_cast<int64_t>(Below(20)) : 0;
  command.keep_leases_on_close = Chance(30);
  command.exclusive = Chance(8);
  command.consumer_priority = Chance(60) ? static_cast<int32_t>(Below(3)) : 0;
  if (Chance(10)) command.delivery_rate = {OneOf({5.0, 200.0}), OneOf({1, 3})};
  if (Chance(20)) command.idle_timeout_ms = OneOf<int64_t>({5, 50, 400});
  Subscribe(std::move(command));
}

void FeatureDriver::Close(size_t index, size_t unwritten) {
  const std::shared_ptr<FeatureSink> sink = sinks_[index];
  FeatureConsumer& consumer = sink->consumer;
  CloseSubscriptionCommand command;
  command.sink = sink;
  unwritten = std::min(unwritten, consumer.shown.size() - consumer.written);
  command.unwritten.assign(consumer.shown.end() - static_cast<int64_t>(unwritten),
                           consumer.shown.end());
  for (const Receipt& receipt : command.unwritten) model_.TakeBack(receipt);
  const std::set<LedgerMessage*> leases = consumer.leases;
  for (LedgerMessage* message : leases) {
    if (!consumer.ended && !consumer.keep_leases_on_close) {
      model_.Ask(*message, {.why = Why::kClosed,
                            .certain = message->until_ms > model_.now_ms &&
                                       message->intents.empty()});
    } else {
      model_.DropFromHolder(*message);
    }
  }
  // What is held back for it is released unseen.
  model_.NoteReleasedUnseen(consumer.qid);
  if (!model_.EverythingKnown() || !first_of_turn_) model_.Blur();
  if (consumer.owns_queue) {
    model_.AskRow(consumer.queue);  // it may not even be in the log yet
    model_.AskGone(consumer.queue);
    must_be_gone_.push_back(consumer.queue);
    deleted_now_ = true;
  }
  world_.shard->Apply(std::move(command), now());
  consumer.gone = true;
  old_sinks_.push_back(sink);
  sinks_.erase(sinks_.begin() + static_cast<int64_t>(index));
}

void FeatureDriver::DoClose() {
  if (!sinks_.empty()) Close(Below(sinks_.size()), Chance(50) ? Below(5) : 0);
}

void FeatureDriver::DoWritten() {
  if (sinks_.empty()) return;
  FeatureSink& sink = *sinks_[Below(sinks_.size())];
  FeatureConsumer& consumer = sink.consumer;
  const size_t count = std::min<size_t>(consumer.shown.size() - consumer.written, 1 + Below(10));
  const auto queue = model_.ledger.queues.find(consumer.qid);
  uint64_t bytes = 0;
  for (size_t i = 0; i < count; ++i) {
    const Receipt& receipt = consumer.shown[consumer.written + i];
    LedgerMessage* message = model_.ledger.At(receipt.position);
    bytes += message ? message->bytes : 0;
    if (!consumer.auto_ack || !message || message->state.settled) continue;
    const Honour honour = model_.Judge(queue->second, receipt);
    if (honour == Honour::kExpired) continue;
    model_.Ask(*message, {.why = Why::kAck,
                          .certain = honour == Honour::kOk && message->leased &&
                                     message->until_ms > model_.now_ms});
  }
  consumer.written += count;
  consumer.unwritten_bytes -= static_cast<int64_t>(bytes);
  world_.shard->Apply(WrittenCommand{&sink, static_cast<uint32_t>(count), bytes}, now());
}

void FeatureDriver::DoReceive() {
  if (!receives_.empty() && Chance(20)) {
    const auto& [id, receive] = *receives_.begin();
    world_.shard->Apply(CancelReceiveCommand{receive->queue, id}, now());
    return;
  }
  ReceiveCommand command;
  command.queue = SomeName();
  LedgerQueue* queue = model_.ledger.Find(command.queue);
  if (!queue && !first_of_turn_) return;  // it may have been made in this turn
  if (queue && !queue->row.config.single_active_consumer) queue->may_be_used_ms = model_.now_ms;
  command.call_id = next_call_++;
  command.max_messages = OneOf({1, 3, 30});
  command.max_bytes = OneOf<int64_t>({100, 3000, kResponseBytesMax});
  command.wait_ms = OneOf<int64_t>({0, 0, 20, 300});
  command.lease_ms = OneOf<int64_t>({20, 1000});
  auto consumer = std::make_shared<FeatureConsumer>();
  consumer->queue = command.queue;
  consumer->since_ms = model_.now_ms;
  consumer->qid = queue ? queue->qid : 0;
  consumer->lease_ms = command.lease_ms;
  consumer->max_in_flight = command.max_messages;
  consumer->max_bytes_in_flight = command.max_bytes;
  receives_[command.call_id] = consumer;
  command.auto_ack = consumer->auto_ack = Chance(20);
  command.done = [this, consumer](auto result) {
    Check(!consumer->gone, "receive answered twice or after its boot");
    consumer->gone = true;
    if (!result.ok()) {
      const ErrorReason reason = ReasonOf(result.status());
      return Check(reason == ErrorReason::kQueueDeleted || reason == ErrorReason::kQueueNotFound ||
                       reason == ErrorReason::kExclusive,
                   "receive failed");
    }
    Received received;
    received.auto_ack = consumer->auto_ack;
    for (const OutgoingDelivery& delivery : *result) {
      model_.Shown(*consumer, delivery);
      Remember(delivery);
      received.receipts.push_back(delivery.receipt);
    }
    if (!received.receipts.empty() && (received.auto_ack || Chance(20))) {
      received_.push_back(std::move(received));
    }
    // A call holds nothing after its answer.
    const std::set<LedgerMessage*> leases = consumer->leases;
    for (LedgerMessage* message : leases) model_.DropFromHolder(*message);
  };
  world_.shard->Apply(std::move(command), now());
}

// What became of a call's answer.
void FeatureDriver::DoReceiveWritten() {
  if (received_.empty()) return;
  Received received = std::move(received_.front());
  received_.pop_front();
  ReceiveWrittenCommand command;
  command.receipts = received.receipts;
  command.auto_ack = received.auto_ack;
  command.written = received.auto_ack && Chance(80);
  for (const Receipt& receipt : command.receipts) {
    LedgerMessage* message = model_.ledger.At(receipt.position);
    if (!message || message->state.settled) continue;
    if (!command.written) {
      model_.TakeBack(receipt);
      continue;
    }
    const Honour honour = model_.Judge(*message->queue, receipt);
    if (honour == Honour::kExpired) continue;
    ++model_.seen["received with auto_ack"];
    model_.Ask(*message, {.why = Why::kAck,
                          .certain = honour == Honour::kOk && message->leased &&
                                     message->until_ms > model_.now_ms});
  }
  ++model_.seen[command.written ? "calls written" : "calls not written"];
  world_.shard->Apply(std::move(command), now());
}

void FeatureDriver::DoCredit() {
  if (sinks_.empty()) return;
  FeatureSink& sink = *sinks_[Below(sinks_.size())];
  FeatureConsumer& consumer = sink.consumer;
  if (consumer.ended) return;
  consumer.max_in_flight = OneOf({0, 1, 10, 100});
  consumer.max_bytes_in_flight = OneOf<int64_t>({0, 600, kMaxBytesInFlightDefault});
  consumer.credit_was_cut = true;
  consumer.draining = consumer.drained = false;
  world_.shard->Apply(
      SetCreditCommand{&sink, consumer.max_in_flight, consumer.max_bytes_in_flight}, now());
}

void FeatureDriver::DoDrain() {
  if (sinks_.empty()) return;
  FeatureSink& sink = *sinks_[Below(sinks_.size())];
  if (sink.consumer.ended || sink.consumer.draining) return;
  sink.consumer.draining = true;
  world_.shard->Apply(DrainSubscriptionCommand{&sink}, now());
}

void FeatureDriver::DoCloseConsumer() {
  if (sinks_.empty()) return;
  FeatureConsumer& consumer = sinks_[Below(sinks_.size())]->consumer;
  if (consumer.ended || !consumer.started) return;
  // One whose queue has gone is told so when that is durable.
  const auto queue = model_.ledger.queues.find(consumer.qid);
  if (queue == model_.ledger.queues.end() || !queue->second.exists) return;
  for (LedgerMessage* message : consumer.leases) {
    model_.Ask(*message, {.why = Why::kClosed,
                          .certain = message->until_ms > model_.now_ms &&
                                     message->intents.empty()});
  }
  model_.NoteReleasedUnseen(consumer.qid);
  model_.Blur();
  CloseConsumerCommand command;
  command.id = consumer.id;
  command.done = [this, call = NewCall()](absl::Status status) {
    Answered(call);
    Check(status.ok(), "close consumer");
  };
  world_.shard->Apply(std::move(command), now());
  Check(consumer.ended, "a closed consumer was not told");
}

void FeatureDriver::DoListConsumers() {
  // A stream whose queue goes, or has just been made, is there or not.
  if (!first_of_turn_ || !model_.Exact()) return;
  ListConsumersCommand command;
  if (Chance(60)) command.queue = SomeName();
  command.limit = OneOf({1, 3, 1000});
  if (!sinks_.empty() && Chance(30)) command.after = sinks_[Below(sinks_.size())]->consumer.id;
  if (!command.queue.empty() && !model_.ledger.Find(command.queue)) {
    command.done = [this](auto result) {
      Check(ReasonOf(result.status()) == ErrorReason::kQueueNotFound, "consumers of no queue");
    };
    return world_.shard->Apply(std::move(command), now());
  }
  std::map<SubscriptionId, const FeatureConsumer*> expected;
  for (const auto& sink : sinks_) {
    const FeatureConsumer& consumer = sink->consumer;
    if (!consumer.started && !consumer.ended) return;  // its queue is not durable yet
    const bool asked_for = command.queue.empty() || consumer.queue == command.queue;
    if (consumer.started && !consumer.ended && asked_for && consumer.id > command.after) {
      expected[consumer.id] = &consumer;
    }
  }
  ++model_.seen["consumers listed"];
  command.done = [&, limit = static_cast<size_t>(command.limit)](auto result) {
    if (!result.ok()) return Fail("consumers are not listed");
    if (result->more != (expected.size() > limit)) return Fail("wrong about more consumers");
    if (result->consumers.size() != std::min(limit, expected.size())) {
      return Fail(absl::StrCat("listed ", result->consumers.size(), " consumers of ",
                               expected.size()));
    }
    auto it = expected.begin();
    for (const ConsumerInfo& info : result->consumers) {
      const FeatureConsumer& consumer = *(it++)->second;
      Check(info.id == consumer.id && info.queue == consumer.queue &&
                info.connect_ms == consumer.since_ms,
            "another consumer is listed");
      // What is held back for the disk it holds too, but nobody has seen.
      Check(info.in_flight >= 0 && info.bytes_in_flight >= 0 &&
                (consumer.credit_was_cut || info.in_flight <= consumer.max_in_flight),
            "a consumer is listed that holds more than its credit");
    }
  };
  world_.shard->Apply(std::move(command), now());
}

// At rest it holds what it was shown, and one of each queue that has a single active one is that.
void FeatureDriver::CheckHeldByConsumers() {
  std::map<SubscriptionId, const FeatureConsumer*> by_id;
  for (const auto& sink : sinks_) by_id[sink->consumer.id] = &sink->consumer;
  ListConsumersCommand command;
  command.limit = 1000;
  command.done = [&](auto result) {
    if (!result.ok()) return Fail("consumers are not listed");
    std::map<QueueId, std::pair<int, int>> active_of;  // active ones, all
    for (const ConsumerInfo& info : result->consumers) {
      const auto it = by_id.find(info.id);
      if (it == by_id.end()) return Fail("a consumer is listed that is not there");
      const FeatureConsumer& consumer = *it->second;
      if (static_cast<size_t>(info.in_flight) != consumer.leases.size() ||
          info.bytes_in_flight != consumer.bytes_in_flight) {
        return Fail(absl::StrCat("consumer ", info.id, " is said to hold ", info.in_flight, " (",
                                 info.bytes_in_flight, " bytes) instead of ",
                                 consumer.leases.size(), " (", consumer.bytes_in_flight, ")"));
      }
      ++active_of[consumer.qid].second;
      active_of[consumer.qid].first += info.active;
    }
    for (const auto& [qid, counts] : active_of) {
      const LedgerQueue& queue = model_.ledger.queues.at(qid);
      const auto [active, all] = counts;
      if (!queue.row.config.single_active_consumer) {
        Check(active == all, "a consumer is called waiting");
        continue;
      }
      Check(active <= 1, "two single active consumers");
      int64_t leased = 0;
      for (const LedgerLane& lane : queue.lanes) {
        for (const auto& [seq, message] : lane.unsettled) leased += message->leased;
      }
      Check(active == 1 || leased > 0, "no consumer is active, and nothing is leased");
    }
  };
  world_.shard->Apply(std::move(command), now());
}

// ---- queues

// The age of the oldest ready message of each queue, at rest.
void FeatureDriver::CheckOldestAges() {
  const auto ask = [this](const std::string& name) {
    auto age_ms = std::make_shared<std::optional<int64_t>>();
    GetQueueCommand command;
    command.queue = name;
    command.done = [age_ms](auto result) {
      if (result.ok()) *age_ms = result->stats.oldest_ready_age_ms;
    };
    model_.BeginTurn();
    world_.shard->Apply(std::move(command), now());
    Turn();
    Commit(world_.batches.size());
    if (!*age_ms) Fail("the stats of a queue were not told at rest");
    return age_ms->value_or(0);
  };
  for (const LedgerQueue* queue : model_.ledger.live()) {
    // The first time it may have to be looked up.
    ask(queue->name());
    Serve(world_.reads.size());
    if (failed_) return;
    const int64_t age_ms = ask(queue->name());
    int64_t oldest_ms = 0;    // of any that waits
    int64_t expected_ms = 0;  // of the first ones of each lane
    bool plain = model_.windows_are_large && queue->messages > 0;
    for (Lane lane = 0; lane < kImmediateLanes; ++lane) {
      bool first = true;
      for (const auto& [seq, message] : queue->lanes[lane].unsettled) {
        if (message->leased) continue;
        const int64_t waits_ms = model_.now_ms - message->info.ReadySinceMs();
        oldest_ms = std::max(oldest_ms, waits_ms);
        plain = plain && !message->state.has_row && !message->last && model_.IsReady(*message) &&
                message->info.group_hash == 0 && message->stored_boot == model_.boot;
        if (std::exchange(first, false)) expected_ms = std::max(expected_ms, waits_ms);
      }
    }
    if (age_ms < 0 || age_ms > oldest_ms) {
      return Fail(absl::StrCat("the oldest of ", queue->name(), " is said to wait for ", age_ms,
                               " ms, but none has for more than ", oldest_ms));
    }
    if (!plain) continue;
    ++model_.seen["ages told exactly"];
    if (age_ms != expected_ms) {
      return Fail(absl::StrCat("the oldest of ", queue->name(), " is said to wait for ", age_ms,
                               " ms instead of ", expected_ms));
    }
  }
}

// A queue's dead letters go to the next one: no circles.
QueueConfigChange FeatureDriver::SomeConfig(const std::string& name) {
  QueueConfigChange config;
  config.name = name;
  const bool last = name == absl::StrCat("q", kQueues - 1);
  const std::string next = name == kIdleQueue ? "q0" : absl::StrCat("q", name.back() - '0' + 1);
  const bool dead_letters = !last && model_.ledger.Find(next) && Chance(70);
  config.dead_letter_queue = dead_letters ? next : "";
  config.lease_ms = OneOf<int64_t>({30, 300, 3000});
  config.min_backoff_ms = OneOf<int64_t>({1, 20, 100});
  config.max_backoff_ms = *config.min_backoff_ms * OneOf<int64_t>({1, 10});
  config.max_attempts = OneOf({0, 1, 2, 4});
  config.discard_when_exhausted = !dead_letters || Chance(25);
  config.ttl_ms = OneOf<int64_t>({0, 0, 50, 2000});
  config.max_length = OneOf<int64_t>({0, 0, 5, 40});
  // No message is larger than that: it could never die into such a queue.
  config.max_bytes = OneOf<int64_t>({0, 0, 10'000});
  config.overflow = OneOf({Overflow::kReject, Overflow::kDropHead});
  config.dedup_window_ms = OneOf<int64_t>({0, 20, 500, 60'000});
  config.priority_aging_ms = OneOf<int64_t>({0, 100});
  config.single_active_consumer = Chance(15);
  if (Chance(10)) config.delivery_rate = RateLimit{OneOf({50.0, 1000.0}), OneOf({1, 10})};
  if (name == kIdleQueue || Chance(10)) config.idle_expiry_ms = kIdleExpiryMs;
  return config;
}

void FeatureDriver::DoCreate() {
  if (!first_of_turn_) return;
  CreateQueueCommand command;
  command.config.name = SomeName();
  if (model_.ledger.Find(command.config.name)) return;
  command.config = SomeConfig(command.config.name);
  model_.AskRow(command.config.name);
  command.done = [this, call = NewCall()](auto result) {
    Answered(call);
    Check(result.ok() && result->created, "create");
  };
  world_.shard->Apply(std::move(command), now());
}

void FeatureDriver::DoUpdate() {
  const LedgerQueue* queue = model_.ledger.Find(SomeName());
  if (!queue || !first_of_turn_ || queue->row.temporary) return;
  UpdateQueueCommand command;
  model_.AskRow(queue->name());
  command.config = SomeConfig(queue->name());
  command.replace = Chance(30);
  const bool stale = Chance(10);
  command.if_revision = stale ? queue->row.revision + 7 : Chance(50) ? 0 : queue->row.revision;
  model_.NoteConfig(queue->qid, queue->row.config);
  command.done = [this, stale, call = stale ? nullptr : NewCall()](auto result) {
    if (stale) {
      return Check(ReasonOf(result.status()) == ErrorReason::kEtagMismatch, "a stale etag");
    }
    Answered(call);
    Check(result.ok(), absl::StrCat("update: ", result.status().ToString()));
  };
  world_.shard->Apply(std::move(command), now());
}

void FeatureDriver::DoPause() {
  const LedgerQueue* queue = model_.ledger.Find(SomeName());
  if (!queue || !first_of_turn_) return;
  PauseQueueCommand command;
  command.queue = queue->name();
  model_.AskRow(queue->name());
  command.paused = !queue->row.paused && Chance(50);
  command.done = [this, call = NewCall()](auto result) {
    Answered(call);
    Check(result.ok() || ReasonOf(result.status()) == ErrorReason::kQueueNotFound, "pause");
  };
  model_.NoteConfig(queue->qid, queue->row.config);
  world_.shard->Apply(std::move(command), now());
}

void FeatureDriver::DoDelete() {
  const LedgerQueue* queue = model_.ledger.Find(SomeName());
  if (!queue || !first_of_turn_) return;
  bool referenced = false;
  for (const LedgerQueue* other : model_.ledger.live()) {
    referenced |= other->row.config.dead_letter_queue == queue->name();
  }
  DeleteQueueCommand command;
  command.queue = queue->name();
  command.if_empty = Chance(30);
  command.if_unused = Chance(30);
  bool consumed = false;
  ForEachConsumer([&](const FeatureConsumer& consumer) {
    consumed |= consumer.queue == queue->name() && !consumer.ended && !consumer.gone;
  });
  const ErrorReason expected = command.if_empty && queue->messages > 0 ? ErrorReason::kNotEmpty
                               : referenced || (command.if_unused && consumed)
                                   ? ErrorReason::kInUse
                                   : ErrorReason::kUnspecified;
  command.done = [this, expected](absl::Status status) {
    Check(status.ok() ? expected == ErrorReason::kUnspecified : ReasonOf(status) == expected,
          absl::StrCat("delete: ", status.ToString()));
  };
  const QueueId qid = queue->qid;
  const std::string name = queue->name();
  if (expected == ErrorReason::kUnspecified) model_.AskGone(name);
  world_.shard->Apply(std::move(command), now());
  if (expected != ErrorReason::kUnspecified) return;
  must_be_gone_.push_back(name);
  deleted_now_ = true;
  model_.Muddle();
  for (size_t i = sinks_.size(); i > 0; --i) {
    const FeatureConsumer& consumer = sinks_[i - 1]->consumer;
    if (consumer.qid == qid || consumer.queue == name) Close(i - 1, 0);
  }
}

void FeatureDriver::DoPurge() {
  LedgerQueue* queue = model_.ledger.Find(SomeName());
  if (!queue || !first_of_turn_ || !model_.EverythingKnown()) return;
  PurgeQueueCommand command;
  command.queue = queue->name();
  command.include_leased = Chance(30);
  int64_t expected = 0;
  for (LedgerLane& lane : queue->lanes) {
    for (auto& [seq, message] : lane.unsettled) {
      // Of those whose lease an earlier boot has saved the sizes may be estimates.
      if (message->leased && !message->ShownNow(model_.boot)) queue->bytes_near = true;
      if (message->leased && !command.include_leased) continue;
      model_.Ask(*message, {.why = Why::kPurge, .certain = message->at.lane != kDelayedLane});
      ++expected;
    }
  }
  command.done = [this, expected, call = NewCall()](auto result) {
    Answered(call);
    Check(result.ok() && *result == expected, "wrong number purged");
  };
  world_.shard->Apply(std::move(command), now());
}

void FeatureDriver::DoGet() {
  const std::string name = SomeName();
  const LedgerQueue* queue = model_.ledger.Find(name);
  if (!queue || !first_of_turn_) return;
  GetQueueCommand command;
  command.queue = name;
  command.done = [this, queue, messages = queue->messages, config = queue->row.config,
                  call = NewCall()](auto result) {
    Answered(call);
    if (!result.ok()) return Fail("get refused");
    const QueueStats& stats = result->stats;
    Check(stats.ready + stats.leased + stats.delayed + stats.blocked == messages,
          absl::StrCat("depth ", stats.ready, " + ", stats.leased, " + ", stats.delayed, " + ",
                       stats.blocked, " instead of ", messages));
    Check(result->config == config, "another config");
    Check(stats.ready >= 0 && stats.blocked >= 0 && stats.bytes >= 0, "a negative depth");
  };
  world_.shard->Apply(std::move(command), now());
}

}  // namespace sluice::broker
