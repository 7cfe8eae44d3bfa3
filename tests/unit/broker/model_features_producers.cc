// Idempotent producers of PublishStream.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/unit/broker/model_features.h"

namespace sluice::broker {
namespace {

constexpr size_t kProducers = 5;
constexpr size_t kStreamsMax = 6;

}  // namespace

void FeatureDriver::DoOpenProducer() {
  if (!first_of_turn_) return;
  const size_t id = Below(kProducers);
  const std::string name = absl::StrCat(id % 2 == 0 ? "q" : "e", id % 4);
  ModelProducer target;
  (id % 2 == 0 ? target.queue : target.exchange) = name;
  OpenProducerCommand command;
  command.queue = target.queue;
  command.exchange = target.exchange;
  command.producer_id = absl::StrCat("p", id);
  const LedgerQueue* queue = model_.ledger.Find(target.queue);
  target.number = queue ? queue->qid : model_.ledger.ExchangeNumber(target.exchange);
  if (target.number == 0) {
    command.done = [this](auto result) {
      const ErrorReason reason = ReasonOf(result.status());
      Check(reason == ErrorReason::kQueueNotFound || reason == ErrorReason::kExchangeNotFound,
            "a producer of no target");
    };
    return world_.shard->Apply(std::move(command), now());
  }
  // As docs/storage_format.md has it.
  target.hash = KeyedHash(world_.shard->boot_row().hash_key)
                    .Wide(absl::StrCat(queue ? "queue" : "exchange", "\n", target.number, "\n",
                                       command.producer_id));
  auto known = std::find_if(model_.producers.begin(), model_.producers.end(),
                            [&](const auto& other) { return other.hash == target.hash; });
  if (known == model_.producers.end()) {
    known = model_.producers.insert(model_.producers.end(), std::move(target));
  }
  ModelProducer& producer = *known;
  const uint64_t generation = ++producer.generation;
  producer.opened_after = model_.appended_lsn;
  const auto row = model_.ledger.producers.find(producer.hash);
  const int64_t last = row == model_.ledger.producers.end() ? 0 : row->second.last_sequence;
  const auto ended = ExpectEnd(command, producer);
  command.done = [this, &producer, generation, last, ended, call = NewCall()](auto result) {
    Answered(call);
    if (!result.ok()) return Fail("a producer was refused");
    Check(result->last_sequence == last,
          absl::StrCat("last sequence ", result->last_sequence, " instead of ", last));
    if (producer_streams_.size() >= kStreamsMax) producer_streams_.erase(producer_streams_.begin());
    producer_streams_.push_back(
        {&producer, generation, result->stream, last + 1, next_caller_++, ended});
    ++model_.seen["producers opened"];
  };
  world_.shard->Apply(std::move(command), now());
}

// Of the generation that begins.
std::shared_ptr<const bool> FeatureDriver::ExpectEnd(OpenProducerCommand& command,
                                                     ModelProducer& producer) {
  const auto ended = std::make_shared<bool>(false);
  command.ended = [this, ended, &producer,
                   generation = producer.generation](const absl::Status& why) {
    Check(!std::exchange(*ended, true), "a producer's stream ended twice");
    const ErrorReason reason = ReasonOf(why);
    if (reason == ErrorReason::kProducerFenced) {
      return Check(producer.generation != generation, "fenced by nobody");
    }
    Check(reason == (producer.queue.empty() ? ErrorReason::kExchangeNotFound
                                            : ErrorReason::kQueueDeleted),
          absl::StrCat("a producer's stream ended: ", why.ToString()));
    Check(!model_.HasTarget(producer), "a producer's stream ended though its target is there");
    ++model_.seen["producers of what is gone"];
  };
  return ended;
}

// At rest a stream is over if a newer one has come or its target has gone.
void FeatureDriver::CheckStreamsOfProducers() {
  for (const ProducerStream& stream : producer_streams_) {
    const bool over = stream.generation != stream.producer->generation ||
                      !model_.HasTarget(*stream.producer);
    Check(*stream.ended == over, over ? "a producer's stream is not told its end"
                                      : "a producer's stream ended for no reason");
  }
}

void FeatureDriver::DoProduce() {
  if (producer_streams_.empty()) return DoOpenProducer();
  const size_t index = Below(producer_streams_.size());
  ProducerStream& stream = producer_streams_[index];
  PublishCommand command;
  PlannedPublish plan;
  command.publish.queue = plan.queue = stream.producer->queue;
  command.publish.exchange = stream.producer->exchange;
  command.producer_stream = stream.stream;
  command.caller = stream.caller;
  plan.line = LineOf(command.publish, stream.caller);
  const int64_t back = Chance(35) ? static_cast<int64_t>(Below(5)) : 0;
  const int64_t ahead = Chance(5) ? 2 : 0;
  command.first_sequence = std::max<int64_t>(1, stream.next_sequence - back + ahead);
  plan.producer = stream.producer;
  plan.generation = stream.generation;
  plan.first_sequence = command.first_sequence;
  plan.messages.resize(1 + Below(5));
  for (PlannedMessage& message : plan.messages) {
    command.publish.messages.push_back(MakeMessage(&message));
    if (!command.publish.exchange.empty()) {
      MakeRoute(command.publish.messages.back(), command.publish.exchange, &message);
    }
  }
  if (Chance(20)) command.publish.wait_when_full_ms = 20;
  stream.next_sequence =
      std::max(stream.next_sequence,
               command.first_sequence + static_cast<int64_t>(plan.messages.size()));
  const auto planned = model_.Plan(std::move(plan));
  command.done = [this, planned, call = NewCall(/*may_wait=*/true)](auto result) {
    Answered(call);
    CheckPublishResult(*planned, result);
    if (result.ok()) return;
    // A stream that was refused ends; some go on all the same.
    std::erase_if(producer_streams_, [&](const ProducerStream& other) {
      return other.producer == planned->producer && other.generation == planned->generation &&
             Chance(60);
    });
  };
  world_.shard->Apply(std::move(command), now());
}

}  // namespace sluice::broker
