#include "tests/unit/broker/model_features.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace sluice::broker {
namespace {

constexpr size_t kReceiptsRemembered = 500;
constexpr int kQuietRoundsMax = 200;
constexpr int kDrainRoundsMax = 20'000;
// Longer than the pause between two sweeps of what has expired, and than that of a sweep which
// found a dead-letter queue full.
constexpr int64_t kSweepLagMs = 150;
constexpr int64_t kSweepAgainLagMs = 5'200;

}  // namespace

// --- the streams

void FeatureSink::OnStarted(const Started& info) {
  if (consumer.started || consumer.gone) driver_->Fail("OnStarted out of place");
  consumer.started = true;
  consumer.id = info.id;
  if (!consumer.owns_queue) return;
  const LedgerQueue* queue = driver_->model().ledger.Find(info.queue);
  if (!queue || info.queue != consumer.queue) return driver_->Fail("no such temporary queue");
  consumer.qid = queue->qid;
}
void FeatureSink::OnDeliveries(std::vector<OutgoingDelivery> deliveries) {
  if (!consumer.started || consumer.ended || consumer.gone) {
    driver_->Fail("delivery to a stream that is over");
  }
  if (consumer.drained) driver_->Fail("delivery after the drain");
  if (deliveries.empty()) driver_->Fail("empty delivery");
  for (const OutgoingDelivery& delivery : deliveries) {
    driver_->model().Shown(consumer, delivery);
    driver_->Remember(delivery);
    if (consumer.messages_left == 0) driver_->Fail("more than max_messages");
    if (consumer.messages_left > 0) --consumer.messages_left;
  }
}
void FeatureSink::OnLeaseLost(std::vector<Receipt> receipts, ErrorReason reason) {
  if (!consumer.started || consumer.ended || consumer.gone) {
    driver_->Fail("lease lost on a stream that is over");
  }
  for (const Receipt& receipt : receipts) {
    const LedgerMessage* message = driver_->model().ledger.At(receipt.position);
    if (!message) {
      driver_->Fail("an unknown lease is lost");
    } else if (message->leased && *message->last == receipt) {
      driver_->model().Fail(*message, "a lease is lost that has not ended");
    }
  }
}
void FeatureSink::OnDrained() {
  if (!consumer.draining || consumer.drained) driver_->Fail("OnDrained out of place");
  consumer.drained = true;
}
void FeatureSink::OnEnd(absl::Status status) {
  if (consumer.ended || consumer.gone) driver_->Fail("OnEnd twice");
  if (status.ok() && consumer.messages_left != 0) {
    if (consumer.idle_timeout_ms == 0) driver_->Fail("ended for no reason");
    consumer.ended_idle = true;
  }
  consumer.ended = true;
}

void FeatureDriver::Remember(const OutgoingDelivery& delivery) {
  receipts_.push_back(delivery.receipt);
  if (receipts_.size() > kReceiptsRemembered) receipts_.pop_front();
}

void FeatureDriver::ForEachConsumer(const std::function<void(FeatureConsumer&)>& visit) {
  for (const auto& sink : sinks_) visit(sink->consumer);
  for (const auto& [id, receive] : receives_) visit(*receive);
}

void FeatureDriver::Fail(const std::string& what) {
  if (!failed_) {
    ADD_FAILURE() << what << " [operation " << ops_ << " of SLUICE_MODEL_SEED=" << seed_ << "]";
  }
  failed_ = true;
}

// --- time, turns, ends

void FeatureDriver::Boot() {
  mono_origin_ms_ = model_.now_ms - 1 - static_cast<int64_t>(Below(1'000'000));
  const auto window_bytes = OneOf<uint64_t>({0, 300, 4000, 100'000, 64 * kMiB, 64 * kMiB});
  model_.windows_are_large = window_bytes == 64 * kMiB;
  // With few in memory, most of those that wait do so on disk.
  const auto retries_in_memory = OneOf<uint64_t>({0, 2, kRetriesInMemoryMax});
  const absl::Status status = world_.Start(window_bytes, retries_in_memory);
  if (!status.ok()) return Fail(absl::StrCat("load: ", status.ToString()));
  ++boots_;
  model_.boot = world_.shard->boot_row().boot + 1;
  model_.StartBoot();
  model_.BeginTurn();
  producer_streams_.clear();
  received_.clear();
  world_.shard->Begin(now());
  model_.EndTurn();
  for (const LedgerQueue* queue : model_.ledger.live()) {
    Check(!queue->row.temporary, "a temporary queue outlives its boot");
  }
}

void FeatureDriver::Turn() {
  world_.shard->RunTurn(now());
  model_.EndTurn();
  const Lsn lsn = world_.shard->last_lsn();
  Check(lsn == model_.appended_lsn, "the shard counts other batches");
  for (const std::string& name : std::exchange(must_be_gone_, {})) {
    Check(!model_.ledger.Find(name), "a queue that should have gone is there");
  }
  for (const CallRef& call : calls_) {
    if (call->lsn == 0) call->lsn = std::max<Lsn>(lsn, 1);
  }
  for (const auto& [at, body] : std::exchange(not_found_, {})) {
    const LedgerMessage* message = model_.ledger.At(at);
    if (!message || message->body != body || message->state.settled) continue;
    if (!message->intents.empty() || !message->queue->exists) continue;
    model_.Fail(*message, "not found by its id");
  }
  std::erase_if(calls_, [](const CallRef& call) { return call->answered; });
  std::erase_if(receives_, [this](const auto& entry) {
    if (!entry.second->gone) return false;
    old_receives_.push_back(entry.second);
    return true;
  });
}

FeatureDriver::CallRef FeatureDriver::NewCall(bool may_wait) {
  auto call = std::make_shared<Call>();
  call->may_wait = may_wait;
  calls_.push_back(call);
  return call;
}

void FeatureDriver::Answered(const CallRef& call) {
  if (call->answered) Fail("answered twice");
  call->answered = true;
  const Lsn lsn = call->lsn != 0 ? call->lsn : world_.shard->last_lsn();
  if (!call->may_wait && lsn > model_.durable_lsn) Fail("answered before its batch was durable");
}

void FeatureDriver::Commit(size_t batches) {
  for (; batches > 0 && !world_.batches.empty(); --batches) {
    Lsn lsn = world_.Persist();
    while (batches > 1 && !world_.batches.empty() && Chance(30)) {
      lsn = world_.Persist();
      --batches;
    }
    model_.Durable(lsn);
    world_.shard->OnDurable(lsn, now());
  }
  if (model_.durable_lsn != model_.appended_lsn) return;
  for (const CallRef& call : calls_) {
    if (call->lsn != 0 && !call->answered && !call->may_wait) Fail("durable, but not answered");
  }
}

void FeatureDriver::Serve(size_t reads) {
  for (; reads > 0 && !world_.reads.empty(); --reads) {
    const absl::Status status = world_.ServeRead(now());
    if (!status.ok()) return Fail(absl::StrCat("read: ", status.ToString()));
  }
}

// Reads and commits come before the commands, and all of it at one time: what a batch holds was
// decided at its log time.
void FeatureDriver::Step() {
  const uint64_t pace = Below(100);
  model_.now_ms += static_cast<int64_t>(pace < 15 ? 0 : pace < 90 ? 1 + Below(4) : Below(600));
  model_.BeginTurn();
  if (world_.reads.empty()) model_.NothingIsBeingRead();
  bool exact = world_.reads.empty() && world_.batches.empty();
  if (Chance(60)) Commit(Chance(50) ? 1 : world_.batches.size());
  if (Chance(60)) Serve(Chance(50) ? 1 : world_.reads.size());
  // Mostly the commands find a log that shows all that was decided.
  if (Chance(70)) {
    Turn();
    exact = true;
  }
  model_.BeginTurn();
  if (!exact) model_.Blur();
  if (world_.reads.empty()) model_.NothingIsBeingRead();
  first_of_turn_ = exact;
  deleted_now_ = false;
  const int commands = 1 + static_cast<int>(Below(4));
  for (int i = 0; i < commands && !failed_ && !deleted_now_; ++i) {
    ++ops_;
    Operate();
    first_of_turn_ = false;
  }
  Turn();
  if (Chance(2) && RunUntilQuiet()) CheckAtRest();
  const uint64_t dice = Below(1000);
  if (dice < 4) Crash();
  else if (dice < 7) CleanStop();
}

void FeatureDriver::Operate() {
  const uint64_t dice = Below(1000);
  if (dice < 210) DoPublish();
  else if (dice < 455) DoSettle();
  else if (dice < 510) DoReceive();
  else if (dice < 545) DoSubscribe();
  else if (dice < 557) DoSubscribeTemporary();
  else if (dice < 583) DoClose();
  else if (dice < 640) DoWritten();
  else if (dice < 660) DoReceiveWritten();
  else if (dice < 700) DoExtend();
  else if (dice < 730) DoGet();
  else if (dice < 733) DoPurge();
  else if (dice < 750) DoCreate();
  else if (dice < 753) DoDelete();
  else if (dice < 763) DoUpdate();
  else if (dice < 773) DoPause();
  else if (dice < 790) DoCredit();
  else if (dice < 798) DoDrain();
  else if (dice < 803) DoCloseConsumer();
  else if (dice < 808) DoListConsumers();
  else if (dice < 812) DoAbandon();
  else if (dice < 836) DoEdit();
  else if (dice < 854) DoList();
  else if (dice < 876) DoGetMessage();
  else if (dice < 908) DoTransact();
  else if (dice < 920) DoExchange();
  else if (dice < 945) DoBinding();
  else if (dice < 948) DoListRoutes();
  else if (dice < 950) DoExport();
  else if (dice < 956) DoDefinitions();
  else if (dice < 966) DoOpenProducer();
  else DoProduce();
}

bool FeatureDriver::RunUntilQuiet() {
  for (int round = 0; round < kQuietRoundsMax && !failed_; ++round) {
    model_.now_ms += 1;
    model_.BeginTurn();
    if (world_.reads.empty()) model_.NothingIsBeingRead();
    Commit(world_.batches.size());
    Serve(world_.reads.size());
    model_.BeginTurn();
    Turn();
    if (world_.batches.empty() && world_.reads.empty() && !world_.shard->HasWork()) return true;
  }
  return false;
}

void FeatureDriver::CheckAtRest() {
  std::vector<FeatureConsumer*> consumers;
  for (const auto& sink : sinks_) {
    const FeatureConsumer& consumer = sink->consumer;
    Check(consumer.ended || consumer.drained || !consumer.draining,
          "a stream that drains is not told its end");
    consumers.push_back(&sink->consumer);
  }
  model_.CheckIdleConsumers(consumers);
  for (LedgerQueue* queue : model_.ledger.live()) {
    if (!failed_) model_.CheckListed(*queue, ListAll(queue->name()));
  }
  for (const auto& publish : std::exchange(abandoned_, {})) {
    Check(publish->answered, "an abandoned publish waits on");
  }
  if (!failed_) CheckHeldByConsumers();
  if (!failed_) CheckStreamsOfProducers();
  if (!failed_) CheckOldestAges();
  if (!failed_) CheckLag();
  if (!failed_ && Chance(20)) CheckStreamsEndIdle();
}

// Streams that wait at empty queues, and queues that nobody uses, end in time.
void FeatureDriver::CheckStreamsEndIdle() {
  constexpr int64_t kIdleMsMax = 1'100;
  const auto waits_in_vain = [this](const FeatureConsumer& consumer) {
    const auto queue = model_.ledger.queues.find(consumer.qid);
    return consumer.started && !consumer.ended && !consumer.draining &&
           consumer.idle_timeout_ms > 0 && consumer.max_in_flight > 0 &&
           consumer.max_bytes_in_flight > 0 && consumer.leases.empty() &&
           queue != model_.ledger.queues.end() && queue->second.messages == 0;
  };
  std::vector<const FeatureSink*> waiting;
  for (int i = 0; i < 3; ++i) {
    waiting.clear();
    for (const auto& sink : sinks_) {
      if (waits_in_vain(sink->consumer)) waiting.push_back(sink.get());
    }
    model_.now_ms += kIdleMsMax;
    if (!RunUntilQuiet() || failed_) return;
  }
  model_.CheckIdleQueues();
  for (const FeatureSink* sink : waiting) {
    const FeatureConsumer& consumer = sink->consumer;
    if (!waits_in_vain(consumer) || consumer.last_grant_ms + kIdleMsMax > model_.now_ms) continue;
    Fail(absl::StrCat("a stream of ", consumer.queue, " is idle and not ended, last given at ",
                      consumer.last_grant_ms, ", since ", consumer.since_ms, ", now ",
                      model_.now_ms));
  }
}

// What has expired, is due or has died goes within a bounded time, whoever consumes.
void FeatureDriver::CheckLag() {
  std::set<const LedgerMessage*> before = model_.FindOverdue(/*lag_ms=*/1);
  // They go one after the other where room has to be made for each, and others may be first.
  const auto gone = [this] {
    uint64_t count = 0;
    for (const auto& [what, times] : model_.seen) {
      if (what.starts_with("died") || what.ends_with("away")) count += times;
    }
    return count;
  };
  constexpr int kInVainMax = 6;
  int in_vain = 0;
  for (int step = 0; step < 16; ++step) {
    if (before.empty() || in_vain == kInVainMax) break;
    const int64_t lag_ms = step % 4 == 3 ? kSweepAgainLagMs : kSweepLagMs;
    const uint64_t gone_before = gone();
    model_.now_ms += lag_ms;
    if (!RunUntilQuiet() || failed_) return;
    std::set<const LedgerMessage*> left = model_.FindOverdue(lag_ms);
    const bool some_went = !std::includes(left.begin(), left.end(), before.begin(), before.end());
    in_vain = some_went || gone() != gone_before ? 0 : in_vain + 1;
    before = std::move(left);
  }
  if (in_vain < kInVainMax || before.empty()) return;
  const LedgerMessage& overdue = **before.begin();
  const LedgerQueue* dead = model_.ledger.Find(overdue.queue->row.config.dead_letter_queue);
  const char* what =
      overdue.Dying() ? "is dead and should have gone long ago" : "should have gone long ago";
  model_.Fail(overdue, dead ? absl::StrCat(what, " to ", dead->name(), ", which holds ",
                                           dead->messages, " of ", dead->row.config.max_length)
                            : what);
}

std::vector<ListedMessage> FeatureDriver::ListAll(const std::string& name) {
  std::vector<ListedMessage> listed;
  std::optional<ListCursor> cursor = ListCursor();
  while (cursor && !failed_) {
    ListMessagesCommand command;
    command.queue = name;
    command.cursor = *cursor;
    command.scan_max = OneOf({1, 7, 1000});
    bool answered = false;
    command.done = [&](auto result) {
      answered = true;
      cursor.reset();
      if (!result.ok()) return Fail("list refused");
      cursor = result->next;
      for (auto& message : result->messages) listed.push_back(std::move(message));
    };
    world_.shard->Apply(std::move(command), now());
    while (!answered && !world_.reads.empty() && !failed_) Serve(1);
    Check(answered, "a listing was not answered");
  }
  return listed;
}

void FeatureDriver::ForgetConsumers() {
  for (const auto& sink : sinks_) {
    sink->consumer.gone = true;
    sink->consumer.leases.clear();
    old_sinks_.push_back(sink);
  }
  sinks_.clear();
  for (auto& [id, receive] : receives_) {
    receive->gone = true;
    receive->leases.clear();
    old_receives_.push_back(receive);
  }
  receives_.clear();
  calls_.clear();
  callers_.clear();
  abandoned_.clear();
  not_found_.clear();
}

void FeatureDriver::Crash() {
  // Batches may have reached the disk without anybody hearing of it.
  while (!world_.batches.empty() && Chance(40)) model_.Durable(world_.Persist());
  ForgetConsumers();
  world_.Die();
  model_.Crash();
  model_.now_ms += 1 + static_cast<int64_t>(Below(300));
  Boot();
}

void FeatureDriver::CleanStop() {
  model_.now_ms += 1;
  model_.BeginTurn();
  const CallRef call = NewCall();
  world_.shard->Apply(StopCommand{[this, call] { Answered(call); }}, now());
  Turn();
  Commit(world_.batches.size());
  Check(world_.shard->stopped(), "stop was not answered");
  ForgetConsumers();
  world_.Die();
  model_.CleanStop();
  model_.now_ms += 1 + static_cast<int64_t>(Below(600));
  Boot();
}

// --- a run

void FeatureDriver::Run(uint64_t ops) {
  Boot();
  while (ops_ < ops && !failed_) Step();
  if (!failed_) DrainAll();
}

void FeatureDriver::FailLeft() {
  for (auto& [qid, queue] : model_.ledger.queues) {
    for (const LedgerLane& lane : queue.lanes) {
      if (failed_ || !queue.exists || lane.unsettled.empty()) continue;
      const QueueConfig& config = queue.row.config;
      size_t consumers = 0;
      for (const auto& sink : sinks_) consumers += sink->consumer.qid == qid;
      model_.Fail(*lane.unsettled.begin()->second,
                  absl::StrCat("not drained: ", lane.unsettled.size(), " of ", queue.messages,
                               ", consumers ", consumers, ", to '", config.dead_letter_queue,
                               "', rate ", config.delivery_rate.per_second, ", paused ",
                               queue.row.paused, ", single ", config.single_active_consumer));
    }
  }
}

// Everything that is left can be delivered and acked, or goes by itself.
void FeatureDriver::DrainAll() {
  model_.BeginTurn();
  first_of_turn_ = true;
  while (!sinks_.empty()) Close(0, 0);
  for (const LedgerQueue* queue : model_.ledger.live()) {
    PauseQueueCommand resume;
    resume.queue = queue->name();
    resume.paused = false;
    model_.AskRow(resume.queue);
    model_.NoteConfig(queue->qid, queue->row.config);
    resume.done = [](auto) {};
    world_.shard->Apply(std::move(resume), now());
  }
  Turn();
  RunUntilQuiet();
  for (const LedgerQueue* queue : model_.ledger.live()) {
    SubscribeCommand command;
    command.queue = queue->name();
    command.max_in_flight = 1000;
    command.lease_ms = kLeaseMsDefault;
    Subscribe(std::move(command));
  }
  for (int round = 0; round < kDrainRoundsMax && !failed_; ++round) {
    RunUntilQuiet();
    int64_t left = 0;
    for (const LedgerQueue* queue : model_.ledger.live()) left += queue->messages;
    if (left == 0) return CheckAtRest();
    bool anything = false;
    model_.now_ms += 1;
    model_.BeginTurn();
    for (const auto& sink : sinks_) {
      uint64_t bytes = 0;
      for (; sink->consumer.written < sink->consumer.shown.size(); ++sink->consumer.written) {
        bytes += model_.ledger.At(sink->consumer.shown[sink->consumer.written].position)->bytes;
      }
      world_.shard->Apply(WrittenCommand{sink.get(), 0, bytes}, now());
      std::vector<SettleItem> items;
      for (const LedgerMessage* message : sink->consumer.leases) {
        items.push_back({*message->last, SettleAction::kAck});
      }
      if (items.empty()) continue;
      anything = true;
      Settle(model_.ledger.queues.at(sink->consumer.qid), std::move(items));
    }
    Turn();
    if (anything || !world_.reads.empty() || !world_.batches.empty()) continue;
    const auto due_ns = world_.shard->NextDueNs(now());
    if (!due_ns) {
      FailLeft();
      return Fail(absl::StrCat(left, " messages are left and wait for nothing"));
    }
    model_.now_ms = std::max(model_.now_ms, mono_origin_ms_ + (*due_ns + kNsPerMs - 1) / kNsPerMs);
  }
  FailLeft();
  if (!failed_) Fail("not drained");
}

}  // namespace sluice::broker
