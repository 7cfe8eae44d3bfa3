// The engine's share of a message: the rules of queues alone, one thread, no disk and no network.
// Batches count as durable as soon as they are made.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "server/broker/shard.h"
#include "server/model/server_fields.h"
#include "server/storage/mem_log.h"

namespace sluice::broker {
namespace {

constexpr uint32_t kBodyBytes = 1024;
constexpr int kBatch = 100;  // messages of one publish, and acks of one call
constexpr unsigned kSeed = 1;

void Check(bool ok) {
  if (!ok) std::abort();
}

class World : public ShardPort {
 public:
  World() : shard_({}, this) {
    shard_.NameNewStore("bench", {}, {});
    shard_.Begin(now_);
  }

  void Append(storage::Batch batch) override { appended_ = batch.header().lsn; }
  // Only what a start looks for: nothing here outgrows its window.
  void StartRead(ReadRequest request) override { reads_.push_back(std::move(request)); }

  template <typename C>
  void Do(C command) {
    shard_.Apply(std::move(command), now_);
    Turn();
  }
  void Turn() {
    now_.mono_ns += 1000;
    do {
      for (ReadRequest& request : std::exchange(reads_, {})) {
        auto result = Read(store_, request);
        Check(result.ok() && shard_.OnRead(request.ticket, *std::move(result), now_).ok());
      }
      shard_.RunTurn(now_);
      shard_.OnDurable(appended_, now_);
    } while (shard_.HasWork());
  }
  void MakeQueue(const std::string& name) {
    CreateQueueCommand command;
    command.config.name = name;
    command.done = [](const absl::StatusOr<CreateQueueOutcome>& made) { Check(made.ok()); };
    Do(std::move(command));
  }
  void Publish(const std::string& queue, int priority = kPriorityDefault, uint64_t group = 0) {
    PublishCommand command;
    command.publish.queue = queue;
    for (int i = 0; i < kBatch; ++i) {
      NewMessage message{Payload::Allocate(kBodyBytes + kServerFieldsBytes), priority};
      if (group != 0) {
        message.options = std::make_unique<MessageOptions>();
        message.options->group_hash = group + i;
      }
      command.publish.messages.push_back(std::move(message));
    }
    command.done = [](const absl::StatusOr<std::vector<PublishedMessage>>& stored) {
      Check(stored.ok());
    };
    Do(std::move(command));
  }
  void Ack(const std::string& queue, const std::vector<Receipt>& receipts) {
    SettleCommand command;
    command.queue = queue;
    for (const Receipt& receipt : receipts) command.items.push_back({receipt});
    command.done = [&receipts](const absl::StatusOr<SettleOutcome>& outcome) {
      Check(outcome.ok() && outcome->settled == static_cast<int32_t>(receipts.size()));
    };
    Do(std::move(command));
  }

 private:
  Now now_{1'000'000'000, 1'700'000'000'000};
  Lsn appended_ = 0;
  storage::MemStore store_;  // stays empty
  std::vector<ReadRequest> reads_;
  Shard shard_;
};

class Sink : public SubscriptionSink {
 public:
  void OnStarted(const Started&) override {}
  void OnDeliveries(std::vector<OutgoingDelivery> deliveries) override {
    for (const OutgoingDelivery& delivery : deliveries) {
      receipts.push_back(delivery.receipt);
      bytes += delivery.payload.size();
    }
  }
  void OnLeaseLost(std::vector<Receipt>, ErrorReason) override { Check(false); }
  void OnDrained() override {}
  void OnEnd(absl::Status) override { Check(false); }

  std::vector<Receipt> receipts;
  uint64_t bytes = 0;
};

// Messages that nobody takes, over so many queues at random, one publish to each.
void BM_Publish(benchmark::State& state) {
  World world;
  std::vector<std::string> names;
  for (int i = 0; i < state.range(0); ++i) {
    names.push_back(absl::StrCat("queue-", i));
    world.MakeQueue(names.back());
  }
  std::mt19937 random(kSeed);
  for (auto _ : state) world.Publish(names[random() % names.size()]);
  state.SetItemsProcessed(state.iterations() * kBatch);
}
BENCHMARK(BM_Publish)->ArgName("queues")->Arg(1)->Arg(10'000)->Unit(benchmark::kMicrosecond);

// Published, delivered to one of several subscriptions, acked.
void Flow(benchmark::State& state, int consumers, bool priorities, bool groups) {
  World world;
  world.MakeQueue("q");
  std::vector<std::shared_ptr<Sink>> sinks;
  for (int i = 0; i < consumers; ++i) {
    sinks.push_back(std::make_shared<Sink>());
    SubscribeCommand command;
    command.queue = "q";
    command.max_in_flight = 10 * kBatch;
    command.max_bytes_in_flight = kMaxBytesInFlightCeiling;
    command.sink = sinks.back();
    world.Do(std::move(command));
  }
  uint64_t group = 1;
  int priority = 0;
  for (auto _ : state) {
    if (groups) group += kBatch;
    if (priorities) priority = (priority + 1) % (kPriorityMax + 1);
    world.Publish("q", priorities ? priority : kPriorityDefault, groups ? group : 0);
    int64_t acked = 0;
    for (const auto& sink : sinks) {
      if (sink->receipts.empty()) continue;
      const auto receipts = std::exchange(sink->receipts, {});
      acked += static_cast<int64_t>(receipts.size());
      world.Do(WrittenCommand{sink.get(), 0, std::exchange(sink->bytes, 0)});
      world.Ack("q", receipts);
    }
    Check(acked == kBatch);
  }
  state.SetItemsProcessed(state.iterations() * kBatch);
}
void BM_Flow(benchmark::State& state) {
  Flow(state, static_cast<int>(state.range(0)), /*priorities=*/false, /*groups=*/false);
}
BENCHMARK(BM_Flow)->ArgName("consumers")->Arg(1)->Arg(100)->Unit(benchmark::kMicrosecond);
void BM_FlowOfPriorities(benchmark::State& state) {
  Flow(state, 1, /*priorities=*/true, /*groups=*/false);
}
BENCHMARK(BM_FlowOfPriorities)->Unit(benchmark::kMicrosecond);
void BM_FlowOfGroups(benchmark::State& state) {
  Flow(state, 1, /*priorities=*/false, /*groups=*/true);
}
BENCHMARK(BM_FlowOfGroups)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace sluice::broker

BENCHMARK_MAIN();
