#include "tests/unit/broker/model_driver.h"

#include <algorithm>
#include <utility>

namespace sluice::broker {
namespace {

constexpr size_t kReceiptsRemembered = 500;
// Leases of a few milliseconds may keep a shard busy for ever.
constexpr int kQuietRoundsMax = 200;
constexpr int kDrainRoundsMax = 50'000;

}  // namespace

// --- the streams

void ModelSink::OnStarted(const Started& info) {
  if (started || model.gone) driver_->Fail("OnStarted out of place");
  started = true;
}
void ModelSink::OnDeliveries(std::vector<OutgoingDelivery> deliveries) {
  if (!started || model.ended || model.gone) driver_->Fail("delivery to a stream that is over");
  if (deliveries.empty()) driver_->Fail("empty delivery");
  for (const OutgoingDelivery& delivery : deliveries) {
    driver_->model().Shown(model, delivery);
    driver_->Remember(delivery);
    unreported_bytes += delivery.payload.size();
    model.shown.push_back(delivery.receipt);
    if (model.messages_left == 0) driver_->Fail("more than max_messages");
    if (model.messages_left > 0) --model.messages_left;
  }
}
void ModelSink::OnLeaseLost(std::vector<Receipt> receipts, ErrorReason reason) {
  if (!started || model.ended || model.gone) driver_->Fail("lease lost on a stream that is over");
  for (const Receipt& receipt : receipts) {
    const ModelMessage* message = driver_->model().At(receipt.position);
    if (!message) {
      driver_->Fail("an unknown lease is lost");
    } else if (message->leased && message->receipts.back() == receipt) {
      driver_->Fail("a lease is lost that has not ended");
    }
  }
}
void ModelSink::OnEnd(absl::Status status) {
  if (model.ended || model.gone) driver_->Fail("OnEnd twice");
  if (status.ok() && model.messages_left != 0) driver_->Fail("ended for no reason");
  model.ended = true;
}

void ModelDriver::Remember(const OutgoingDelivery& delivery) {
  receipts_.push_back(delivery.receipt);
  if (receipts_.size() > kReceiptsRemembered) receipts_.pop_front();
}

// --- time, turns, ends

void ModelDriver::Boot() {
  // The monotonic clock starts anew with the machine.
  mono_origin_ms_ = model_.now_ms - 1 - static_cast<int64_t>(Below(1'000'000));
  const absl::Status status = world_.Start(OneOf<uint64_t>({0, 300, 4000, 100'000, 64 * kMiB}));
  if (!status.ok()) return Fail(absl::StrCat("load: ", status.ToString()));
  model_.StartBoot();
  if (model_.boot > 1) {
    Check(world_.shard->durable_lsn() <= model_.durable_lsn, "loaded a later lsn");
  }
  // The crash may have been before anything was durable.
  model_.boot = world_.shard->boot_row().boot + 1;
  model_.BeginTurn();
  world_.shard->Begin(now());
  model_.EndTurn(world_.shard->last_lsn());
}

void ModelDriver::Turn() {
  for (const auto& sink : sinks_) {
    if (sink->unreported_bytes == 0) continue;
    world_.shard->Apply(WrittenCommand{sink.get(), 0, std::exchange(sink->unreported_bytes, 0)},
                        now());
  }
  model_.BeginTurn();
  world_.shard->RunTurn(now());
  const Lsn lsn = world_.shard->last_lsn();
  model_.EndTurn(lsn);
  applied_ = 0;
  for (const CallRef& call : calls_) {
    if (call->lsn == 0) call->lsn = std::max<Lsn>(lsn, 1);
  }
  std::erase_if(calls_, [](const CallRef& call) { return call->answered; });
  std::erase_if(receives_, [this](const auto& entry) {
    if (!entry.second->gone) return false;
    old_receives_.push_back(entry.second);
    return true;
  });
}

void ModelDriver::Commit(size_t batches) {
  for (; batches > 0 && !world_.batches.empty(); --batches) {
    Lsn lsn = world_.Persist();
    // Now and then the shard hears of several at once.
    while (batches > 1 && !world_.batches.empty() && Chance(30)) {
      lsn = world_.Persist();
      --batches;
    }
    model_.Durable(lsn);
    world_.shard->OnDurable(lsn, now());
  }
  if (!model_.EverythingDurable()) return;
  for (const CallRef& call : calls_) {
    if (call->lsn != 0 && !call->answered) Fail("durable, but not answered");
  }
}

void ModelDriver::Serve(size_t reads) {
  for (; reads > 0 && !world_.reads.empty(); --reads) {
    const absl::Status status = world_.ServeRead(now());
    if (!status.ok()) return Fail(absl::StrCat("page: ", status.ToString()));
  }
}

void ModelDriver::Step() {
  model_.now_ms += 1 + static_cast<int64_t>(Chance(90) ? Below(4) : Below(600));
  const int commands = 1 + static_cast<int>(Below(4));
  for (int i = 0; i < commands; ++i) {
    ++ops_;
    ++applied_;
    const uint64_t dice = Below(1000);
    if (dice < 230) DoPublish();
    else if (dice < 560) DoSettle();
    else if (dice < 620) DoReceive();
    else if (dice < 650) DoSubscribe();
    else if (dice < 675) DoClose();
    else if (dice < 760) DoWritten();
    else if (dice < 830) DoExtend();
    else if (dice < 930) DoGet();
    else if (dice < 933) DoPurge();
    else if (dice < 965) DoCreate();
    else if (dice < 967) DoDelete();
  }
  Turn();
  if (Chance(60)) Serve(Chance(50) ? 1 : world_.reads.size());
  if (Chance(60)) Commit(Chance(50) ? 1 : world_.batches.size());
  if (Chance(3)) RunUntilQuiet();
  const uint64_t dice = Below(1000);
  // What a stop saved is at risk only for a while: some crashes follow soon.
  if (steps_since_stop_ < kStepsAtRisk) ++steps_since_stop_;
  const uint64_t crashes = steps_since_stop_ < kStepsAtRisk ? 30 : 4;
  if (dice < crashes) Crash();
  else if (dice < crashes + 3) CleanStop();
}

void ModelDriver::RunUntilQuiet() {
  for (int round = 0; round < kQuietRoundsMax && !failed_; ++round) {
    CommitAll();
    Serve(world_.reads.size());
    model_.now_ms += 1;
    Turn();
    if (world_.batches.empty() && world_.reads.empty() && !world_.shard->HasWork()) {
      return CheckNobodyStarves();
    }
  }
}

// A ready message and a consumer with nothing in its hands never wait for each other.
void ModelDriver::CheckNobodyStarves() {
  for (const auto& sink : sinks_) {
    const ModelConsumer& consumer = sink->model;
    if (consumer.ended || !consumer.leases.empty() || consumer.messages_left == 0) continue;
    for (auto& [lane, of_lane] : consumer.queue->unsettled) {
      for (auto& [seq, message] : of_lane) {
        if (model_.MayBeGranted(*message, model_.now_ms) && !message->disturbed) {
          return Fail(absl::StrCat("a ready message waits although a consumer is idle: seq ", seq));
        }
      }
    }
  }
}

void ModelDriver::ForgetConsumers() {
  for (const auto& sink : sinks_) {
    sink->model.gone = true;
    old_sinks_.push_back(sink);
  }
  sinks_.clear();
  for (auto& [id, receive] : receives_) {
    receive->gone = true;
    old_receives_.push_back(receive);
  }
  receives_.clear();
  calls_.clear();
  applied_ = 0;
}

void ModelDriver::Crash() {
  // Batches may have reached the disk without anybody hearing of it. Not while a settle is
  // undecided: then nobody could say what is true.
  bool in_limbo = false;
  for (const auto& [id, message] : model_.messages) in_limbo |= message->in_limbo > 0;
  bool unseen = false;
  while (!in_limbo && !world_.batches.empty() && Chance(40)) {
    model_.Durable(world_.Persist());
    unseen = true;
  }
  ForgetConsumers();
  world_.Die();
  model_.Crash(unseen);
  model_.now_ms += 1 + static_cast<int64_t>(Below(300));
  Boot();
}

void ModelDriver::CleanStop() {
  model_.now_ms += 1;
  if (Chance(50)) {
    if (!model_.EverythingDurable()) {
      for (auto& [qid, queue] : model_.queues) model_.Disturb(*queue);
    }
    CallRef call = NewCall();
    world_.shard->Apply(DrainCommand{[this, call] { Answered(call); }}, now());
    for (const auto& sink : sinks_) Check(sink->model.ended, "not ended by the drain");
    Turn();
    Commit(Below(3));
    model_.now_ms += 1 + Below(50);
  }
  CallRef call = NewCall();
  world_.shard->Apply(StopCommand{[this, call] { Answered(call); }}, now());
  Turn();
  CommitAll();
  Check(world_.shard->stopped(), "stop was not answered");
  ForgetConsumers();
  world_.Die();
  model_.CleanStop();
  steps_since_stop_ = 0;
  model_.now_ms += 1 + static_cast<int64_t>(Below(600));
  Boot();
}

// --- the end

void ModelDriver::DrainAll() {
  while (!sinks_.empty()) Close(0, 0);
  for (auto& [id, receive] : receives_) {
    world_.shard->Apply(CancelReceiveCommand{receive->queue->name, id}, now());
  }
  RunUntilQuiet();
  for (int i = 0; i < 3; ++i) {
    const std::string name = absl::StrCat("q", i);
    if (!model_.Find(name)) continue;
    auto sink = std::make_shared<ModelSink>(this);
    SubscribeCommand command;
    command.queue = name;
    command.max_in_flight = 1000;
    command.lease_ms = kLeaseMsDefault;
    command.sink = sink;
    sink->model.queue = model_.Find(name);
    sink->model.max_in_flight = command.max_in_flight;
    sink->model.max_bytes_in_flight = command.max_bytes_in_flight;
    sink->model.lease_ms = command.lease_ms;
    sinks_.push_back(sink);
    world_.shard->Apply(std::move(command), now());
  }
  for (int round = 0; round < kDrainRoundsMax && !failed_; ++round) {
    RunUntilQuiet();
    model_.now_ms += 1;
    bool anything = false;
    for (const auto& sink : sinks_) {
      std::vector<SettleItem> items;
      for (const uint64_t id : sink->model.leases) {
        items.push_back({model_.messages.at(id)->receipts.back(), SettleAction::kAck, 0});
      }
      anything |= !items.empty();
      if (!items.empty()) Settle(*sink->model.queue, std::move(items));
    }
    if (anything) continue;
    int64_t left = 0;
    for (const auto& sink : sinks_) left += model_.Depth(*sink->model.queue).total;
    if (left == 0) return CheckEmpty();
    // What is left waits for a time: the shard has to know which.
    const auto due_ns = world_.shard->NextDueNs(now());
    if (!due_ns) return Fail(absl::StrCat(left, " messages are left and wait for nothing"));
    model_.now_ms =
        std::max(model_.now_ms, mono_origin_ms_ + (*due_ns + kNsPerMs - 1) / kNsPerMs);
  }
  if (!failed_) Fail("not drained");
}

void ModelDriver::CheckEmpty() {
  while (!sinks_.empty()) Close(0, 0);
  RunUntilQuiet();
  bool answered = false;
  InspectCommand command;
  command.done = [this, &answered](ShardInfo info) {
    answered = true;
    Check(info.totals.open_messages == 0, "open messages are left");
    Check(info.totals.window_bytes == 0, "window bytes are left");
    Check(info.totals.subscriptions == 0, "subscriptions are left");
    for (const QueueInfo& queue : info.queues) {
      const QueueStats& stats = queue.stats;
      Check(stats.ready == 0 && stats.leased == 0 && stats.delayed == 0 && stats.bytes == 0,
            "a drained queue is not empty");
    }
  };
  world_.shard->Apply(std::move(command), now());
  Check(answered, "inspect was not answered");
}

}  // namespace sluice::broker
