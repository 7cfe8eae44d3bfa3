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
  if (model_.producers.size() < kProducers) {
    ModelProducer made;
    const size_t number = model_.producers.size();
    std::string target;
    if (number % 2 == 0) {
      made.queue = absl::StrCat("q", number % 4);
      target = absl::StrCat("q\n", made.queue);
    } else {
      made.exchange = absl::StrCat("e", number % 4);
      target = absl::StrCat("e\n", made.exchange);
    }
    made.hash = KeyedHash(world_.shard->boot_row().hash_key)
                    .Wide(absl::StrCat(target, "\np", number));
    model_.producers.push_back(std::move(made));
  }
  const size_t number = Below(model_.producers.size());
  ModelProducer& producer = model_.producers[number];
  OpenProducerCommand command;
  command.queue = producer.queue;
  command.exchange = producer.exchange;
  command.producer_id = absl::StrCat("p", number);
  const bool target = producer.queue.empty()
                          ? model_.routing.exchanges.contains(producer.exchange)
                          : model_.ledger.Find(producer.queue) != nullptr;
  if (!target) {
    command.done = [this](auto result) {
      const ErrorReason reason = ReasonOf(result.status());
      Check(reason == ErrorReason::kQueueNotFound || reason == ErrorReason::kExchangeNotFound,
            "a producer of no target");
    };
    return world_.shard->Apply(std::move(command), now());
  }
  const uint64_t generation = ++producer.generation;
  producer.opened_after = model_.appended_lsn;
  const auto row = model_.ledger.producers.find(producer.hash);
  const int64_t last = row == model_.ledger.producers.end() ? 0 : row->second.last_sequence;
  command.done = [this, &producer, generation, last, call = NewCall()](auto result) {
    Answered(call);
    if (!result.ok()) return Fail("a producer was refused");
    Check(result->last_sequence == last,
          absl::StrCat("last sequence ", result->last_sequence, " instead of ", last));
    if (producer_streams_.size() >= kStreamsMax) producer_streams_.erase(producer_streams_.begin());
    producer_streams_.push_back(
        {&producer, generation, result->stream, last + 1, next_caller_++});
    ++model_.seen["producers opened"];
  };
  world_.shard->Apply(std::move(command), now());
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
