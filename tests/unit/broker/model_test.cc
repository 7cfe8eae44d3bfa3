// Random operations on a shard, checked step by step against a naive model (model_state.h).
//
// Repeat a run with SLUICE_MODEL_SEED=n (or --seed=n); SLUICE_MODEL_OPS sets its length.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/model/server_fields.h"
#include "tests/unit/broker/model_state.h"
#include "tests/unit/broker/model_world.h"

namespace sluice::broker {
namespace {

constexpr uint64_t kOpsPerSeedDefault = 60'000;
constexpr int64_t kNsPerMs = 1'000'000;
// A queue deeper than this is published to more rarely, so that runs stay quick.
constexpr int64_t kDepthWanted = 400;
constexpr size_t kReceiptsRemembered = 500;
constexpr size_t kConsumersMax = 8;
// Leases of a few milliseconds may keep a shard busy for ever.
constexpr int kQuietRoundsMax = 200;
constexpr int kStepsAtRisk = 40;
constexpr int kDrainRoundsMax = 50'000;

uint64_t g_seed = 0;  // of --seed; 0: none

class Driver;

class ModelSink : public SubscriptionSink {
 public:
  explicit ModelSink(Driver* driver) : driver_(driver) {}
  void OnStarted(const Started& started) override;
  void OnDeliveries(std::vector<OutgoingDelivery> deliveries) override;
  void OnLeaseLost(std::vector<Receipt> receipts, ErrorReason reason) override;
  void OnEnd(absl::Status status) override;

  ModelConsumer model;
  bool started = false;

 private:
  Driver* const driver_;
};

class Driver {
 public:
  explicit Driver(uint64_t seed)
      : seed_(seed), random_(seed), model_([this](const std::string& what) { Fail(what); }) {}

  void Run(uint64_t ops) {
    Boot();
    while (ops_ < ops && !failed_) Step();
    if (!failed_) DrainAll();
    std::printf("model: seed %llu, %llu operations, %llu deliveries (%llu again), %u boots\n",
                static_cast<unsigned long long>(seed_), static_cast<unsigned long long>(ops_),
                static_cast<unsigned long long>(model_.deliveries),
                static_cast<unsigned long long>(model_.redeliveries), model_.boot);
    if (!failed_) {
      EXPECT_GT(model_.redeliveries, 0u);
    }
  }

  void Fail(const std::string& what) {
    if (!failed_) {
      ADD_FAILURE() << what << " [operation " << ops_ << " of SLUICE_MODEL_SEED=" << seed_ << "]";
    }
    failed_ = true;
  }
  NaiveModel& model() { return model_; }

 private:
  // Something asked of the shard whose answer has to wait for its turn's batch.
  struct Call {
    bool answered = false;
    uint64_t turn = 0;
    Lsn lsn = 0;  // 0: its turn is not over
  };
  using CallRef = std::shared_ptr<Call>;

  // --- chance
  uint64_t Below(uint64_t n) { return random_() % n; }
  bool Chance(int percent) { return Below(100) < static_cast<uint64_t>(percent); }
  template <typename T>
  T OneOf(std::initializer_list<T> values) {
    return values.begin()[Below(values.size())];
  }
  std::string SomeName() { return absl::StrCat("q", Below(3)); }

  // --- time and turns
  Now now() const {
    return {(model_.now_ms - mono_origin_ms_) * kNsPerMs, model_.now_ms};
  }
  void Boot();
  void Step();
  void Turn();
  void Commit(size_t batches);
  void CommitAll() { Commit(world_.batches.size()); }
  void Serve(size_t reads);
  void RunUntilQuiet();
  void CheckNobodyStarves();
  void Crash();
  void CleanStop();
  void ForgetConsumers();
  void DrainAll();
  void CheckEmpty();

  CallRef NewCall() {
    auto call = std::make_shared<Call>();
    call->turn = model_.next_turn();
    calls_.push_back(call);
    return call;
  }
  void Answered(const CallRef& call) {
    if (call->answered) Fail("answered twice");
    call->answered = true;
    const Lsn lsn = call->lsn != 0 ? call->lsn : world_.shard->last_lsn();
    if (lsn > model_.durable_lsn) Fail("answered before its batch was durable");
  }

  // --- operations
  void DoPublish();
  void DoSubscribe();
  void DoClose();
  void DoReceive();
  void DoWritten();
  void DoSettle();
  void DoExtend();
  void DoPurge();
  void DoCreate();
  void DoDelete();
  void DoGet();
  void Publish(const std::string& name, int count);
  void Settle(ModelQueue& queue, std::vector<SettleItem> items);
  void Close(size_t index, size_t unwritten);
  Receipt SomeReceipt(ModelQueue& queue);
  Receipt Garble(Receipt receipt);
  void Remember(const OutgoingDelivery& delivery);
  void Check(bool ok, const std::string& what) {
    if (!ok) Fail(what);
  }

  friend class ModelSink;

  const uint64_t seed_;
  std::mt19937_64 random_;
  NaiveModel model_;
  ModelWorld world_;
  int64_t mono_origin_ms_ = 0;
  uint64_t ops_ = 0;
  bool failed_ = false;
  uint64_t next_body_ = 1;
  uint64_t next_consumer_ = 1;
  int applied_ = 0;  // commands of this step
  int steps_since_stop_ = kStepsAtRisk;
  std::vector<CallRef> calls_;
  std::vector<std::shared_ptr<ModelSink>> sinks_;
  std::vector<std::shared_ptr<ModelSink>> old_sinks_;  // kept so that late calls are noticed
  std::map<uint64_t, std::shared_ptr<ModelConsumer>> receives_;  // by call id
  std::vector<std::shared_ptr<ModelConsumer>> old_receives_;
  std::deque<Receipt> receipts_;  // shown lately, any message
};

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

void Driver::Remember(const OutgoingDelivery& delivery) {
  receipts_.push_back(delivery.receipt);
  if (receipts_.size() > kReceiptsRemembered) receipts_.pop_front();
}

// --- time, turns, ends

void Driver::Boot() {
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

void Driver::Turn() {
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

void Driver::Commit(size_t batches) {
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

void Driver::Serve(size_t reads) {
  for (; reads > 0 && !world_.reads.empty(); --reads) {
    const absl::Status status = world_.ServeRead(now());
    if (!status.ok()) return Fail(absl::StrCat("page: ", status.ToString()));
  }
}

void Driver::Step() {
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

void Driver::RunUntilQuiet() {
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
void Driver::CheckNobodyStarves() {
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

void Driver::ForgetConsumers() {
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

void Driver::Crash() {
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

void Driver::CleanStop() {
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

// --- operations

void Driver::Publish(const std::string& name, int count) {
  PublishCommand command;
  command.queue = name;
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
    command.messages.push_back({std::move(payload), priority});
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
        Check((*result)[i].position == (*positions)[i], "published elsewhere");
      }
    };
  }
  world_.shard->Apply(std::move(command), now());
}

void Driver::DoPublish() {
  const std::string name = SomeName();
  ModelQueue* queue = model_.Find(name);
  if (queue && model_.Depth(*queue).total > kDepthWanted && Chance(90)) return;
  Publish(name, Chance(80) ? 1 + static_cast<int>(Below(4)) : 1 + static_cast<int>(Below(60)));
}

void Driver::DoSubscribe() {
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

void Driver::Close(size_t index, size_t unwritten) {
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

void Driver::DoClose() {
  if (sinks_.empty()) return;
  Close(Below(sinks_.size()), Chance(50) ? Below(5) : 0);
}

// Streams report what was handed to the transport; with auto_ack that settles it.
void Driver::DoWritten() {
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

void Driver::DoReceive() {
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

Receipt Driver::Garble(Receipt receipt) {
  switch (Below(5)) {
    case 0: receipt.position.qid += 1000; break;
    case 1: receipt.position.lane = static_cast<Lane>(kImmediateLanes + Below(200)); break;
    case 2: receipt.position.seq = 0; break;
    case 3: receipt.position.seq += 1'000'000'000; break;
    default: receipt.position.shard = 7; break;
  }
  return receipt;
}

Receipt Driver::SomeReceipt(ModelQueue& queue) {
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

void Driver::Settle(ModelQueue& queue, std::vector<SettleItem> items) {
  SettleCommand command;
  command.queue = queue.name;
  auto verdicts = std::make_shared<std::vector<Verdict>>();
  auto limbo = std::make_shared<std::vector<ModelMessage*>>();
  for (SettleItem& item : items) {
    const Verdict verdict = model_.Judge(&queue, item.receipt);
    ModelMessage* message = model_.At(item.receipt.position);
    verdicts->push_back(verdict);
    limbo->push_back(nullptr);
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
        Fail(absl::StrCat("a receipt was judged ", std::string(ErrorReasonName(reason)), " instead of verdict ",
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
  world_.shard->Apply(std::move(command), now());
}

void Driver::DoSettle() {
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

void Driver::DoExtend() {
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
    Check(reason == expected, absl::StrCat("extend says ", std::string(ErrorReasonName(reason))));
    Check(result->lease_expires_at_ms == model_.now_ms + lease_ms, "wrong end of an extension");
  };
  world_.shard->Apply(std::move(command), now());
  Check(answered, "extend was not answered");
}

void Driver::DoPurge() {
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
  const int64_t expected = command.dry_run ? depth.total - (command.include_leased ? 0 : depth.leased)
                                           : model_.Purge(*queue, command.include_leased);
  command.done = [this, expected, call = NewCall()](auto result) {
    Answered(call);
    Check(result.ok() && *result == expected, "wrong number purged");
  };
  world_.shard->Apply(std::move(command), now());
}

void Driver::DoCreate() {
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

void Driver::DoDelete() {
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
    Check(sinks_[i - 1]->model.ended, "stream of a deleted queue goes on");
    Close(i - 1, 0);
  }
}

void Driver::DoGet() {
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
    Check(stats.consumers == consumers, "wrong number of consumers");
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
    Check(stats.delayed == depth.delayed,
          absl::StrCat("delayed ", stats.delayed, " instead of ", depth.delayed));
  };
  world_.shard->Apply(std::move(command), now());
}

// --- the end

void Driver::DrainAll() {
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

void Driver::CheckEmpty() {
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

// --- the tests

uint64_t Ops() {
  uint64_t ops = kOpsPerSeedDefault;
  if (const char* text = std::getenv("SLUICE_MODEL_OPS")) {
    if (!absl::SimpleAtoi(text, &ops)) ops = kOpsPerSeedDefault;
  }
  return ops;
}

// A seed asked for replaces all others.
uint64_t SeedAskedFor() {
  uint64_t seed = g_seed;
  const char* text = std::getenv("SLUICE_MODEL_SEED");
  if (seed == 0 && text && !absl::SimpleAtoi(text, &seed)) seed = 0;
  return seed;
}

class ShardModelTest : public testing::TestWithParam<uint64_t> {};

TEST_P(ShardModelTest, AgreesWithTheNaiveModel) {
  if (SeedAskedFor() != 0) GTEST_SKIP() << "another seed was asked for";
  Driver(GetParam()).Run(Ops());
}
INSTANTIATE_TEST_SUITE_P(FixedSeeds, ShardModelTest, testing::Values(1, 2, 3));

TEST(ShardModelFreshSeedTest, AgreesWithTheNaiveModel) {
  uint64_t seed = SeedAskedFor();
  if (seed == 0) seed = 1 + std::random_device()();
  std::printf("model: SLUICE_MODEL_SEED=%llu repeats this run\n",
              static_cast<unsigned long long>(seed));
  Driver(seed).Run(Ops());
}

}  // namespace

void SetModelSeed(uint64_t seed) { g_seed = seed; }

}  // namespace sluice::broker

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    uint64_t seed = 0;
    const std::string argument = argv[i];
    if (absl::StartsWith(argument, "--seed=") && absl::SimpleAtoi(argument.substr(7), &seed)) {
      sluice::broker::SetModelSeed(seed);
    }
  }
  return RUN_ALL_TESTS();
}
