// What a driver asks of its shard, and what the model expects of the answers.
#include <algorithm>
#include <limits>

#include "server/model/server_fields.h"
#include "tests/unit/broker/model_driver.h"

namespace sluice::broker {
namespace {

// A queue deeper than this is published to more rarely, so that runs stay quick.
constexpr int64_t kDepthWanted = 400;
constexpr size_t kConsumersMax = 8;

}  // namespace

// --- operations

void ModelDriver::Publish(const std::string& name, int count) {
  PublishCommand command;
  command.publish.queue = name;
  ModelQueue* queue = model_.Find(name);
  auto positions = std::make_shared<std::vector<MessagePosition>>();
  for (int i = 0; i < count; ++i) {
    const uint64_t id = next_body_++;
    const uint32_t bytes = static_cast<uint32_t>(
        sizeof(id) + kServerFieldsBytes + Below(Chance(5) ? 9000 : 200));
    Payload payload = Payload::Allocate(bytes);
    std::fill_n(payload.mutable_data(), bytes, 'x');
    std::copy_n(reinterpret_cast<const char*>(&id), sizeof(id), payload.mutable_data());
    const int priority = Chance(60) ? kPriorityDefault : static_cast<int>(Below(10));
    command.publish.messages.push_back({std::move(payload), priority});
    if (queue) positions->push_back(model_.Publish(*queue, priority, id, bytes).at);
  }
  if (!queue) {
    command.done = [this](auto result) {
      Check(ReasonOf(result.status()) == ErrorReason::kQueueNotFound, "publish to no queue");
    };
  } else {
    command.done = [this, positions, call = NewCall()](auto result) {
      Answered(call);
      if (!result.ok()) return Fail("publish refused");
      if (result->size() != positions->size()) return Fail("not all were published");
      for (size_t i = 0; i < positions->size(); ++i) {
        Check((*result)[i].id == (*positions)[i], "published elsewhere");
      }
    };
  }
  world_.shard->Apply(std::move(command), now());
}

void ModelDriver::DoPublish() {
  const std::string name = SomeName();
  ModelQueue* queue = model_.Find(name);
  if (queue && model_.Depth(*queue).total > kDepthWanted && Chance(90)) return;
  Publish(name, Chance(80) ? 1 + static_cast<int>(Below(4)) : 1 + static_cast<int>(Below(60)));
}

void ModelDriver::DoSubscribe() {
  if (sinks_.size() >= kConsumersMax) return DoClose();
  auto sink = std::make_shared<ModelSink>(this);
  SubscribeCommand command;
  command.queue = SomeName();
  ModelQueue* queue = model_.Find(command.queue);
  command.max_in_flight = OneOf({1, 2, 5, 20, 100});
  command.max_bytes_in_flight = OneOf<int64_t>({1, 500, 5000, kMaxBytesInFlightDefault});
  command.lease_ms = OneOf<int64_t>({0, kModelLeaseMsMin, 50, 500, 5000});
  command.auto_ack = Chance(20);
  command.max_messages = Chance(20) ? 1 + static_cast<int64_t>(Below(20)) : 0;
  command.keep_leases_on_close = Chance(30);
  command.sink = sink;
  ModelConsumer& model = sink->model;
  model.id = next_consumer_++;
  model.queue = queue;
  model.max_in_flight = command.max_in_flight;
  model.max_bytes_in_flight = command.max_bytes_in_flight;
  model.auto_ack = command.auto_ack;
  model.keep_leases_on_close = command.keep_leases_on_close;
  model.messages_left = command.max_messages > 0 ? command.max_messages : -1;
  if (queue) {
    model.lease_ms = command.lease_ms > 0 ? command.lease_ms : queue->lease_ms;
    sinks_.push_back(sink);
  } else {
    model.messages_left = 0;  // ended at once is right
    old_sinks_.push_back(sink);
  }
  world_.shard->Apply(std::move(command), now());
  Check(sink->started == (queue != nullptr) && model.ended == (queue == nullptr),
        "subscription started wrongly");
}

void ModelDriver::Close(size_t index, size_t unwritten) {
  std::shared_ptr<ModelSink> sink = sinks_[index];
  ModelConsumer& consumer = sink->model;
  CloseSubscriptionCommand command;
  command.sink = sink;
  unwritten = std::min(unwritten, consumer.shown.size() - consumer.written);
  command.unwritten.assign(consumer.shown.end() - static_cast<int64_t>(unwritten),
                           consumer.shown.end());
  // What was granted to it and is held back is released unseen.
  if (!model_.EverythingDurable()) model_.Disturb(*consumer.queue);
  for (const Receipt& receipt : command.unwritten) model_.ReleaseUnwritten(receipt);
  const std::set<uint64_t> leases = consumer.leases;
  for (const uint64_t id : leases) {
    ModelMessage& message = *model_.messages.at(id);
    if (consumer.ended || consumer.keep_leases_on_close) {
      model_.DropFromHolder(message);
    } else {
      model_.Return(message, /*failed=*/true, 0);
    }
  }
  world_.shard->Apply(std::move(command), now());
  consumer.gone = true;
  old_sinks_.push_back(sink);
  sinks_.erase(sinks_.begin() + static_cast<int64_t>(index));
}

void ModelDriver::DoClose() {
  if (sinks_.empty()) return;
  Close(Below(sinks_.size()), Chance(50) ? Below(5) : 0);
}

// Streams report what was handed to the transport; with auto_ack that settles it.
void ModelDriver::DoWritten() {
  if (sinks_.empty()) return;
  ModelSink& sink = *sinks_[Below(sinks_.size())];
  ModelConsumer& consumer = sink.model;
  const size_t count = std::min<size_t>(consumer.shown.size() - consumer.written, 1 + Below(10));
  for (size_t i = consumer.written; consumer.auto_ack && i < consumer.written + count; ++i) {
    // Nobody would say how an undecided one came out.
    ModelQueue* queue = model_.Find(consumer.queue->name);
    if (queue == consumer.queue &&
        model_.Judge(queue, consumer.shown[i]) == Verdict::kEither &&
        !model_.At(consumer.shown[i].position)->record.settled) {
      return;
    }
  }
  const size_t end = consumer.written + count;
  for (; consumer.written < end; ++consumer.written) {
    const Receipt& receipt = consumer.shown[consumer.written];
    if (!consumer.auto_ack || consumer.queue->deleted) continue;
    ModelMessage* message = model_.At(receipt.position);
    if (model_.Judge(consumer.queue, receipt) == Verdict::kOk && !message->record.settled) {
      model_.Settle(*message, /*removed=*/false);
    }
  }
  world_.shard->Apply(WrittenCommand{&sink, static_cast<uint32_t>(count)}, now());
}

void ModelDriver::DoReceive() {
  if (!receives_.empty() && Chance(20)) {
    const auto& [id, receive] = *receives_.begin();
    world_.shard->Apply(CancelReceiveCommand{receive->queue->name, id}, now());
    return;
  }
  ReceiveCommand command;
  command.queue = SomeName();
  ModelQueue* queue = model_.Find(command.queue);
  command.call_id = next_consumer_++;
  command.max_messages = OneOf({1, 3, 30});
  command.max_bytes = OneOf<int64_t>({100, 3000, kResponseBytesMax});
  command.wait_ms = OneOf<int64_t>({0, 0, 20, 300});
  command.lease_ms = OneOf<int64_t>({0, 20, 1000});
  if (!queue) {
    command.done = [this](auto result) {
      Check(ReasonOf(result.status()) == ErrorReason::kQueueNotFound, "receive from no queue");
    };
    return world_.shard->Apply(std::move(command), now());
  }
  auto consumer = std::make_shared<ModelConsumer>();
  consumer->id = command.call_id;
  consumer->queue = queue;
  consumer->is_receive = true;
  consumer->lease_ms = command.lease_ms > 0 ? command.lease_ms : queue->lease_ms;
  consumer->max_in_flight = command.max_messages;
  consumer->max_bytes_in_flight = command.max_bytes;
  receives_[consumer->id] = consumer;
  command.done = [this, consumer](auto result) {
    Check(!consumer->gone, "receive answered twice or after its boot");
    consumer->gone = true;
    if (!result.ok()) {
      Check(consumer->queue->deleted && ReasonOf(result.status()) == ErrorReason::kQueueDeleted,
            "receive failed");
      return;
    }
    for (const OutgoingDelivery& delivery : *result) {
      model_.Shown(*consumer, delivery);
      Remember(delivery);
      consumer->shown.push_back(delivery.receipt);
    }
    // A call holds nothing after its answer.
    const std::set<uint64_t> leases = consumer->leases;
    for (const uint64_t id : leases) model_.DropFromHolder(*model_.messages.at(id));
  };
  world_.shard->Apply(std::move(command), now());
}

Receipt ModelDriver::Garble(Receipt receipt) {
  switch (Below(5)) {
    case 0: receipt.position.qid += 1000; break;
    case 1: receipt.position.lane = static_cast<Lane>(kImmediateLanes + Below(200)); break;
    case 2: receipt.position.seq = 0; break;
    case 3: receipt.position.seq += 1'000'000'000; break;
    default: receipt.position.shard = 7; break;
  }
  return receipt;
}

Receipt ModelDriver::SomeReceipt(ModelQueue& queue) {
  if (!model_.leases().empty() && Chance(75)) {
    auto it = model_.leases().begin();
    std::advance(it, Below(std::min<size_t>(model_.leases().size(), 8)));
    return model_.messages.at(it->second)->receipts.back();
  }
  if (receipts_.empty()) return Garble({{0, queue.qid, 0, 1}, 1, 1});
  const Receipt receipt = Chance(50) ? receipts_[Below(receipts_.size())] : receipts_.back();
  if (Chance(5)) return Garble(receipt);
  // The message's own memory of its receipts reaches further back.
  const ModelMessage* message = model_.At(receipt.position);
  if (!message || message->receipts.empty()) return Garble(receipt);
  // One that was taken back (never written) is in nobody's hands.
  return message->receipts[message->receipts.size() - 1 -
                           Below(std::min<size_t>(message->receipts.size(), 3))];
}

void ModelDriver::Settle(ModelQueue& queue, std::vector<SettleItem> items) {
  SettleCommand command;
  command.queue = queue.name;
  auto verdicts = std::make_shared<std::vector<Verdict>>();
  auto limbo = std::make_shared<std::vector<ModelMessage*>>();
  for (SettleItem& item : items) {
    const Verdict verdict = model_.Judge(&queue, item.receipt);
    ModelMessage* message = model_.At(item.receipt.position);
    verdicts->push_back(verdict);
    limbo->push_back(nullptr);
    // Whether the end of an earlier boot cut its hand-out short is told by a row that this model does
    // not know, and of a first hand-out only by reading the message. (The other model knows.)
    if ((item.action == SettleAction::kDelay || item.action == SettleAction::kRetry) &&
        item.receipt.boot != model_.boot && !(message && message->leased)) {
      item.action = SettleAction::kRelease;
    }
    if (verdict == Verdict::kInvalid || verdict == Verdict::kExpired || message->record.settled) {
      continue;
    }
    if (verdict == Verdict::kEither) {
      if (item.action != SettleAction::kDiscard) item.action = SettleAction::kAck;
      ++message->in_limbo;
      message->granted_by_ms = std::numeric_limits<int64_t>::max();
      limbo->back() = message;
      continue;
    }
    const bool leased = message->leased;
    switch (item.action) {
      case SettleAction::kAck:
      case SettleAction::kDiscard:
        model_.Settle(*message, /*removed=*/false);
        break;
      case SettleAction::kRetry:
        if (leased) {
          model_.Return(*message, /*failed=*/true,
                        BackoffMs(queue.retry, message->record.attempt));
        }
        break;
      case SettleAction::kDelay:
        model_.Return(*message, /*failed=*/leased, item.delay_ms);
        break;
      case SettleAction::kRelease:
        if (leased) model_.Return(*message, /*failed=*/false, 0);
        break;
      case SettleAction::kDeadLetter:
        break;  // not among the actions that are tried yet
    }
  }
  command.items = std::move(items);
  command.done = [this, verdicts, limbo, call = NewCall()](auto result) {
    Answered(call);
    if (!result.ok()) return Fail("settle refused");
    std::map<int32_t, ErrorReason> failures;
    for (const SettleFailure& failure : result->failures) {
      failures[failure.index] = ReasonOf(failure.status);
    }
    Check(result->settled == static_cast<int32_t>(verdicts->size() - failures.size()),
          "settled is not the number of items that did not fail");
    for (size_t i = 0; i < verdicts->size(); ++i) {
      const auto it = failures.find(static_cast<int32_t>(i));
      const ErrorReason reason = it == failures.end() ? ErrorReason::kUnspecified : it->second;
      const Verdict verdict = (*verdicts)[i];
      const bool right =
          verdict == Verdict::kOk        ? reason == ErrorReason::kUnspecified
          : verdict == Verdict::kExpired ? reason == ErrorReason::kLeaseExpired
          : verdict == Verdict::kInvalid
              ? reason == ErrorReason::kReceiptInvalid
              : reason == ErrorReason::kUnspecified || reason == ErrorReason::kLeaseExpired;
      if (!right) {
        Fail(absl::StrCat("a receipt was judged ", std::string(ErrorReasonName(reason)),
                          " instead of verdict ",
                          static_cast<int>(verdict)));
      }
      ModelMessage* message = (*limbo)[i];
      if (!message) continue;
      --message->in_limbo;
      if (reason != ErrorReason::kUnspecified || message->record.settled) continue;
      Check(message->shown_after_turn < call->turn,
            "settled by an old receipt although it was granted again");
      model_.SettleIn(*message, call->turn, call->lsn);
    }
  };
  const bool of_earlier_boots =
      std::any_of(command.items.begin(), command.items.end(), [this](const SettleItem& item) {
        return item.receipt.boot != model_.boot;
      });
  world_.shard->Apply(std::move(command), now());
  // What only an earlier boot granted is looked up first: this model wants it done in the same turn.
  while (of_earlier_boots && !world_.reads.empty() && !failed_) Serve(world_.reads.size());
}

void ModelDriver::DoSettle() {
  const std::string name = SomeName();
  ModelQueue* queue = model_.Find(name);
  if (!queue) {
    SettleCommand command;
    command.queue = name;
    command.done = [this](auto result) {
      Check(ReasonOf(result.status()) == ErrorReason::kQueueNotFound, "settle in no queue");
    };
    return world_.shard->Apply(std::move(command), now());
  }
  std::vector<SettleItem> items;
  const size_t count = 1 + Below(Chance(80) ? 4 : 30);
  for (size_t i = 0; i < count; ++i) {
    SettleItem item;
    item.receipt = SomeReceipt(*queue);
    if (item.receipt.position.qid < 1000 && Chance(95)) {
      // Mostly in the right queue.
      const auto of = model_.queues.find(item.receipt.position.qid);
      if (of != model_.queues.end() && of->second.get() != queue) {
        if (items.empty() && !of->second->deleted) {
          queue = of->second.get();
        } else {
          continue;
        }
      }
    }
    const uint64_t dice = Below(100);
    item.action = dice < 60   ? SettleAction::kAck
                  : dice < 72 ? SettleAction::kRetry
                  : dice < 82 ? SettleAction::kDelay
                  : dice < 88 ? SettleAction::kDiscard
                              : SettleAction::kRelease;
    if (item.action == SettleAction::kDelay) item.delay_ms = OneOf<int64_t>({0, 1, 40, 700});
    items.push_back(item);
  }
  Settle(*queue, std::move(items));
}

void ModelDriver::DoExtend() {
  ModelQueue* queue = model_.Find(SomeName());
  if (!queue) return;
  const Receipt receipt = SomeReceipt(*queue);
  const auto of = model_.queues.find(receipt.position.qid);
  if (of != model_.queues.end() && !of->second->deleted && Chance(95)) queue = of->second.get();
  ExtendLeaseCommand command;
  command.queue = queue->name;
  command.receipts = {receipt};
  command.lease_ms = OneOf<int64_t>({0, 1, 200, 4000});
  const int64_t lease_ms = command.lease_ms > 0 ? command.lease_ms : queue->lease_ms;
  ModelMessage* message = model_.At(receipt.position);
  const Verdict verdict = model_.Judge(queue, receipt);
  ErrorReason expected = ErrorReason::kLeaseExpired;
  if (verdict == Verdict::kInvalid) {
    expected = ErrorReason::kReceiptInvalid;
  } else if (verdict == Verdict::kOk && message->leased) {
    expected = ErrorReason::kUnspecified;
    model_.Extend(*message, lease_ms);
  }
  bool answered = false;
  command.done = [this, expected, lease_ms, &answered](auto result) {
    answered = true;
    if (!result.ok()) return Fail("extend refused");
    const ErrorReason reason = result->failures.empty() ? ErrorReason::kUnspecified
                                                        : ReasonOf(result->failures[0].status);
    Check(reason == expected,
          absl::StrCat("extend says ", std::string(ErrorReasonName(reason))));
    const bool extended = expected == ErrorReason::kUnspecified;
    Check(result->lease_expires_at_ms == (extended ? model_.now_ms + lease_ms : 0),
          "wrong end of an extension");
  };
  world_.shard->Apply(std::move(command), now());
  Check(answered, "extend was not answered");
}

void ModelDriver::DoPurge() {
  if (applied_ > 1) return;  // undecided settles have to be answered first
  CommitAll();
  ModelQueue* queue = model_.Find(SomeName());
  if (!queue) return;
  PurgeQueueCommand command;
  command.queue = queue->name;
  // What may be leased unseen cannot be told from what is not.
  command.include_leased = Chance(30) || model_.IsDisturbed(*queue);
  command.dry_run = Chance(30);
  const ModelDepth depth = model_.Depth(*queue);
  const int64_t expected = command.dry_run
                               ? depth.total - (command.include_leased ? 0 : depth.leased)
                               : model_.Purge(*queue, command.include_leased);
  command.done = [this, expected, call = NewCall()](auto result) {
    Answered(call);
    Check(result.ok() && *result == expected, "wrong number purged");
  };
  world_.shard->Apply(std::move(command), now());
}

void ModelDriver::DoCreate() {
  CreateQueueCommand command;
  command.config.name = SomeName();
  ModelQueue* queue = model_.Find(command.config.name);
  const bool created = queue == nullptr;
  if (created) {
    RetryPolicy retry;
    retry.min_backoff_ms = OneOf<int64_t>({1, 20, 100});
    retry.max_backoff_ms = retry.min_backoff_ms * OneOf<int64_t>({1, 10});
    queue = &model_.Create(command.config.name, OneOf<int64_t>({30, 300, 3000}), retry);
  }
  command.config.lease_ms = queue->lease_ms;
  command.config.min_backoff_ms = queue->retry.min_backoff_ms;
  command.config.max_backoff_ms = queue->retry.max_backoff_ms;
  command.done = [this, created, call = NewCall()](auto result) {
    Answered(call);
    Check(result.ok() && result->created == created, "create");
  };
  world_.shard->Apply(std::move(command), now());
}

void ModelDriver::DoDelete() {
  ModelQueue* queue = model_.Find(SomeName());
  if (!queue) return;
  DeleteQueueCommand command;
  command.queue = queue->name;
  command.if_empty = Chance(30);
  const bool refused = command.if_empty && model_.Depth(*queue).total > 0;
  if (command.if_empty && model_.Depth(*queue).in_limbo) return;
  if (!refused) model_.Delete(*queue);
  command.done = [this, refused, call = refused ? nullptr : NewCall()](absl::Status status) {
    if (refused) {
      Check(ReasonOf(status) == ErrorReason::kNotEmpty, "deleted though not empty");
    } else {
      Answered(call);
      Check(status.ok(), "delete refused");
    }
  };
  world_.shard->Apply(std::move(command), now());
  if (refused) return;
  for (size_t i = sinks_.size(); i > 0; --i) {
    if (sinks_[i - 1]->model.queue != queue) continue;
    // It is told when the deletion is durable, unless it is over before.
    Close(i - 1, 0);
  }
}

void ModelDriver::DoGet() {
  const std::string name = SomeName();
  ModelQueue* queue = model_.Find(name);
  GetQueueCommand command;
  command.queue = name;
  if (!queue) {
    command.done = [this](auto result) {
      Check(ReasonOf(result.status()) == ErrorReason::kQueueNotFound, "get of no queue");
    };
    return world_.shard->Apply(std::move(command), now());
  }
  const ModelDepth depth = model_.Depth(*queue);
  int32_t consumers = 0;
  for (const auto& sink : sinks_) consumers += sink->model.queue == queue && !sink->model.ended;
  const bool exact = model_.EverythingDurable();
  command.done = [this, depth, consumers, exact, call = NewCall()](auto result) {
    Answered(call);
    if (!result.ok()) return Fail("get refused");
    const QueueStats& stats = result->stats;
    // Waiting Receive calls count too; which of them still wait is the shard's to know.
    Check(stats.consumers >= consumers, "too few consumers");
    if (depth.in_limbo) return;
    Check(stats.ready + stats.leased + stats.delayed == depth.total,
          absl::StrCat("depth ", stats.ready, " + ", stats.leased, " + ", stats.delayed,
                       " instead of ", depth.total));
    if (!depth.bytes_near) {
      Check(stats.bytes == depth.bytes,
            absl::StrCat("bytes ", stats.bytes, " instead of ", depth.bytes));
    }
    if (!exact) return;
    Check(stats.leased >= depth.leased && stats.leased <= depth.leased + depth.leased_unseen_max,
          absl::StrCat("leased ", stats.leased, " instead of ", depth.leased));
    Check(stats.delayed <= depth.delayed && stats.delayed >= depth.delayed - depth.just_due,
          absl::StrCat("delayed ", stats.delayed, " instead of ", depth.delayed));
  };
  world_.shard->Apply(std::move(command), now());
}

}  // namespace sluice::broker
