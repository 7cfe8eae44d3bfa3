#include "tests/support/shard_harness.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "server/base/check.h"
#include "server/model/server_fields.h"

namespace sluice::testing {
namespace {

// A shard that does not come to rest in this many steps never will.
constexpr int kStepsMax = 1'000'000;
// One that wakes more often than this in one stretch of time wakes for nothing.
constexpr int kWakesMax = 100'000;
constexpr int64_t kNsPerMs = 1'000'000;

}  // namespace

void RecordingSink::CheckOpen(bool starting) const {
  EXPECT_FALSE(end.has_value()) << "a sink was called after OnEnd";
  EXPECT_NE(started.has_value(), starting) << "OnStarted comes once and first";
}

void RecordingSink::OnStarted(const Started& value) {
  CheckOpen(/*starting=*/true);
  started = value;
}

void RecordingSink::OnDeliveries(std::vector<broker::OutgoingDelivery> deliveries) {
  CheckOpen();
  EXPECT_FALSE(deliveries.empty());
  for (auto& delivery : deliveries) deliveries_.push_back(std::move(delivery));
}

void RecordingSink::OnLeaseLost(std::vector<Receipt> receipts, ErrorReason reason) {
  CheckOpen();
  for (const Receipt& receipt : receipts) lost.push_back({receipt, reason});
}

void RecordingSink::OnEnd(absl::Status status) {
  EXPECT_FALSE(end.has_value()) << "OnEnd came twice";
  end = std::move(status);
}

void RecordingSink::OnDrained() {
  CheckOpen();
  ++drained;
}

std::string BodyOf(const Payload& payload) {
  const std::string_view wire = payload.view();
  SLUICE_CHECK(wire.size() >= kServerFieldsBytes);
  return std::string(wire.substr(0, wire.size() - kServerFieldsBytes));
}

std::string BodyOf(const broker::OutgoingDelivery& delivery) { return BodyOf(delivery.payload); }

std::vector<std::string> BodiesOf(const std::vector<broker::OutgoingDelivery>& deliveries) {
  std::vector<std::string> bodies;
  for (const auto& delivery : deliveries) bodies.push_back(BodyOf(delivery));
  return bodies;
}

Payload MakePayload(std::string_view body) {
  Payload payload = Payload::Allocate(static_cast<uint32_t>(body.size() + kServerFieldsBytes));
  body.copy(payload.mutable_data(), body.size());
  return payload;
}

uint64_t GroupHash(std::string_view group) { return KeyedHash({}).Group(group); }

broker::NewMessage MakeMessage(const TestMessage& message) {
  broker::NewMessage made{MakePayload(message.body), message.priority};
  made.options = std::make_unique<broker::MessageOptions>();
  if (!message.group.empty()) made.options->group_hash = GroupHash(message.group);
  made.options->delay_ms = message.delay_ms;
  made.options->deliver_at_ms = message.deliver_at_ms;
  made.options->ttl_ms = message.ttl_ms;
  if (!message.dedup.empty()) made.options->dedup = KeyedHash({}).Wide(message.dedup);
  return made;
}

broker::Publish MakePublish(const std::string& queue, const std::vector<TestMessage>& messages) {
  broker::Publish publish;
  publish.queue = queue;
  for (const TestMessage& message : messages) publish.messages.push_back(MakeMessage(message));
  return publish;
}

ShardHarness::ShardHarness(const broker::ShardOptions& options) : options_(options) {
  StartBoot();
}

ShardHarness::~ShardHarness() = default;

void ShardHarness::StartBoot() {
  reads_.clear();
  shard_ = std::make_unique<broker::Shard>(options_, this);
  const absl::Status loaded = shard_->Load(store_);
  ASSERT_TRUE(loaded.ok()) << loaded.ToString();
  if (shard_->boot_row().boot == 0) shard_->NameNewStore("test", {}, {});
  shard_->Begin(now_);
  // As in the engine, nothing is served before the boot row is durable.
  CommitAll();
}

void ShardHarness::Append(storage::Batch batch) {
  const Lsn lsn = batch.header().lsn;
  log_.Append(std::move(batch), [this, lsn](const absl::Status& status) {
    ASSERT_TRUE(status.ok()) << status.ToString();
    shard_->OnDurable(lsn, now_);
  });
}

void ShardHarness::StartRead(broker::ReadRequest request) { reads_.push_back(std::move(request)); }

void ShardHarness::Advance(int64_t ms) {
  now_.mono_ns += ms * kNsPerMs;
  now_.engine_ms += ms;
  Turn();
}

void ShardHarness::Pass(int64_t ms) {
  const int64_t end_ms = now_.engine_ms + ms;
  RunUntilQuiet();
  for (int wakes = 0; now_.engine_ms < end_ms; ++wakes) {
    ASSERT_LT(wakes, kWakesMax) << "the shard wakes again and again";
    int64_t step_ms = end_ms - now_.engine_ms;
    if (const auto due_ns = shard_->NextDueNs(now_)) {
      const int64_t due_ms = (*due_ns - now_.mono_ns + kNsPerMs - 1) / kNsPerMs;
      step_ms = std::clamp<int64_t>(due_ms, 1, step_ms);
    }
    Advance(step_ms);
    RunUntilQuiet();
  }
}

void ShardHarness::Turn() { shard_->RunTurn(now_); }

bool ShardHarness::Commit() {
  if (!log_.CommitOne()) return false;
  Turn();
  return true;
}

void ShardHarness::CommitAll() {
  while (Commit()) {
  }
}

bool ShardHarness::ServeReads() {
  if (reads_.empty() || !page_error_.ok()) return false;
  for (std::deque<broker::ReadRequest> reads = std::exchange(reads_, {}); !reads.empty();
       reads.pop_front()) {
    const broker::ReadRequest& request = reads.front();
    auto result = broker::Read(store_, request);
    page_error_ = result.status();
    if (page_error_.ok()) page_error_ = shard_->OnRead(request.ticket, *std::move(result), now_);
    if (!page_error_.ok()) return true;
  }
  Turn();
  return true;
}

void ShardHarness::RunUntilQuiet() {
  for (int step = 0; step < kStepsMax; ++step) {
    if (!page_error_.ok()) return;
    if (Commit() || ServeReads()) continue;
    if (!shard_->HasWork()) return;
    Turn();
  }
  FAIL() << "the shard does not come to rest";
}

void ShardHarness::Crash() {
  log_.DropPending();
  StartBoot();
}

void ShardHarness::CleanStop(int64_t down_ms, int64_t clock_step_ms) {
  bool done = false;
  Run(broker::StopCommand{[&done] { done = true; }});
  EXPECT_TRUE(done);
  EXPECT_TRUE(shard_->stopped());
  log_.DropPending();
  now_.mono_ns += down_ms * kNsPerMs;
  now_.engine_ms += down_ms + clock_step_ms;
  StartBoot();
}

void ShardHarness::Start(broker::Command command) {
  Apply(std::move(command));
  Turn();
}

void ShardHarness::Run(broker::Command command) {
  Start(std::move(command));
  RunUntilQuiet();
}

absl::StatusOr<broker::CreateQueueOutcome> ShardHarness::CreateQueue(
    broker::QueueConfigChange config) {
  Reply<absl::StatusOr<broker::CreateQueueOutcome>> reply;
  Run(broker::CreateQueueCommand{std::move(config), reply.Done()});
  return *reply;
}

absl::StatusOr<broker::CreateQueueOutcome> ShardHarness::CreateQueue(const std::string& name) {
  broker::QueueConfigChange config;
  config.name = name;
  return CreateQueue(std::move(config));
}

void ShardHarness::Fanout(const std::string& name, const std::vector<std::string>& queues) {
  ExchangeChange exchange;
  exchange.name = name;
  exchange.type = ExchangeType::kFanout;
  Run(broker::CreateExchangeCommand{exchange, [](const auto& made) { EXPECT_TRUE(made.ok()); }});
  for (const std::string& queue : queues) {
    Binding binding;
    binding.exchange = name;
    binding.queue = queue;
    Run(broker::CreateBindingCommand{binding, [](const auto& made) { EXPECT_TRUE(made.ok()); }});
  }
}

broker::QueueInfo ShardHarness::GetQueue(const std::string& name) {
  Reply<absl::StatusOr<broker::QueueInfo>> reply;
  Run(broker::GetQueueCommand{name, reply.Done()});
  EXPECT_TRUE((*reply).ok()) << (*reply).status().ToString();
  return (*reply).ok() ? **reply : broker::QueueInfo();
}

broker::ShardTotals ShardHarness::Totals() {
  Reply<broker::ShardInfo> reply;
  broker::InspectCommand command;
  command.done = reply.Done();
  Run(std::move(command));
  return reply->totals;
}

ShardHarness::PublishReply ShardHarness::StartPublish(const std::string& queue,
                                                      const std::vector<std::string>& bodies,
                                                      int priority) {
  PublishReply reply;
  broker::PublishCommand command;
  command.publish.queue = queue;
  for (const std::string& body : bodies) {
    command.publish.messages.push_back({MakePayload(body), priority});
  }
  command.done = reply.Done();
  Start(std::move(command));
  return reply;
}

void ShardHarness::Publish(const std::string& queue, const std::vector<std::string>& bodies,
                           int priority) {
  const PublishReply reply = StartPublish(queue, bodies, priority);
  RunUntilQuiet();
  ASSERT_TRUE(reply.answered());
  ASSERT_TRUE((*reply).ok()) << (*reply).status().ToString();
}

ShardHarness::PublishReply ShardHarness::StartPublish(broker::Publish publish,
                                                      uint64_t producer_stream,
                                                      int64_t first_sequence) {
  PublishReply reply;
  broker::PublishCommand command;
  command.publish = std::move(publish);
  command.producer_stream = producer_stream;
  command.first_sequence = first_sequence;
  command.done = reply.Done();
  Start(std::move(command));
  return reply;
}

ShardHarness::PublishResult ShardHarness::Publish(broker::Publish publish,
                                                  uint64_t producer_stream,
                                                  int64_t first_sequence) {
  const PublishReply reply = StartPublish(std::move(publish), producer_stream, first_sequence);
  RunUntilQuiet();
  if (!reply.answered()) return absl::InternalError("a publish was not answered");
  EXPECT_EQ(reply.calls(), 1);
  return *reply;
}

std::vector<MessagePosition> ShardHarness::Send(const std::string& queue,
                                                const std::vector<TestMessage>& messages) {
  std::vector<MessagePosition> ids;
  const PublishResult published = Publish(MakePublish(queue, messages));
  EXPECT_TRUE(published.ok()) << published.status().ToString();
  if (!published.ok()) return ids;
  for (const broker::PublishedMessage& message : *published) ids.push_back(message.id);
  return ids;
}

absl::StatusOr<broker::ProducerOpened> ShardHarness::OpenProducer(
    const std::string& queue, const std::string& producer_id) {
  Reply<absl::StatusOr<broker::ProducerOpened>> reply;
  broker::OpenProducerCommand command;
  command.queue = queue;
  command.producer_id = producer_id;
  command.done = reply.Done();
  Run(std::move(command));
  return *reply;
}

std::shared_ptr<RecordingSink> ShardHarness::StartSubscribe(broker::SubscribeCommand command) {
  auto sink = std::make_shared<RecordingSink>();
  command.sink = sink;
  Start(std::move(command));
  return sink;
}

std::shared_ptr<RecordingSink> ShardHarness::Subscribe(broker::SubscribeCommand command) {
  auto sink = StartSubscribe(std::move(command));
  RunUntilQuiet();
  return sink;
}

std::shared_ptr<RecordingSink> ShardHarness::Subscribe(const std::string& queue,
                                                       int32_t max_in_flight) {
  broker::SubscribeCommand command;
  command.queue = queue;
  command.max_in_flight = max_in_flight;
  return Subscribe(std::move(command));
}

void ShardHarness::Close(const std::shared_ptr<RecordingSink>& sink,
                         std::vector<Receipt> unwritten) {
  Run(broker::CloseSubscriptionCommand{sink, std::move(unwritten)});
}

ShardHarness::ReceiveReply ShardHarness::StartReceive(broker::ReceiveCommand command) {
  ReceiveReply reply;
  if (command.call_id == 0) command.call_id = next_call_id_++;
  command.done = reply.Done();
  Start(std::move(command));
  return reply;
}

std::vector<broker::OutgoingDelivery> ShardHarness::Receive(const std::string& queue,
                                                            int32_t max_messages) {
  broker::ReceiveCommand command;
  command.queue = queue;
  command.max_messages = max_messages;
  const ReceiveReply reply = StartReceive(std::move(command));
  // A call without wait looks again shortly while its messages are being read.
  for (int i = 0; i < 100 && !reply.answered(); ++i) {
    RunUntilQuiet();
    if (!reply.answered()) Advance(1);
  }
  EXPECT_EQ(reply.calls(), 1);
  if (!reply.answered() || !(*reply).ok()) return {};
  return **reply;
}

ShardHarness::SettleReply ShardHarness::StartSettle(const std::string& queue,
                                                    const Receipt& receipt,
                                                    broker::SettleAction action,
                                                    int64_t delay_ms) {
  SettleReply reply;
  Start(broker::SettleCommand{queue, {{receipt, action, delay_ms}}, reply.Done()});
  return reply;
}

absl::Status ShardHarness::Settle(const std::string& queue, const Receipt& receipt,
                                  broker::SettleAction action, int64_t delay_ms) {
  const SettleReply reply = StartSettle(queue, receipt, action, delay_ms);
  RunUntilQuiet();
  EXPECT_EQ(reply.calls(), 1);
  if (!(*reply).ok()) return (*reply).status();
  EXPECT_EQ((**reply).settled + (**reply).failures.size(), 1u);
  return (**reply).failures.empty() ? absl::OkStatus() : (**reply).failures.front().status;
}

std::vector<std::string> ShardHarness::AckAll(const std::string& queue, RecordingSink& sink) {
  std::vector<std::string> bodies;
  while (sink.waiting() > 0) {
    broker::SettleCommand settle;
    settle.queue = queue;
    settle.done = [](absl::StatusOr<broker::SettleOutcome> outcome) {
      EXPECT_TRUE(outcome.ok() && outcome->failures.empty());
    };
    for (const auto& delivery : sink.Take()) {
      bodies.push_back(BodyOf(delivery));
      settle.items.push_back({delivery.receipt});
    }
    Run(std::move(settle));
  }
  return bodies;
}

size_t ShardHarness::TakeWritten(const std::shared_ptr<RecordingSink>& sink) {
  size_t taken = 0;
  while (sink->waiting() > 0) {
    broker::WrittenCommand written;
    written.sink = sink.get();
    for (const auto& delivery : sink->Take()) {
      ++written.deliveries;
      written.bytes += delivery.payload.size();
    }
    taken += written.deliveries;
    Run(written);
  }
  return taken;
}

std::vector<std::string> ShardHarness::Drain(const std::string& queue) {
  const auto sink = Subscribe(queue, /*max_in_flight=*/1);
  std::vector<std::string> bodies = AckAll(queue, *sink);
  Close(sink);
  return bodies;
}

std::vector<broker::ListedMessage> ShardHarness::List(const std::string& queue,
                                                      int32_t scan_max) {
  std::vector<broker::ListedMessage> messages;
  for (std::optional<broker::ListCursor> cursor = broker::ListCursor(); cursor;) {
    Reply<absl::StatusOr<broker::ListMessagesCommand::Outcome>> reply;
    broker::ListMessagesCommand command;
    command.queue = queue;
    command.cursor = *cursor;
    command.scan_max = scan_max;
    command.done = reply.Done();
    Run(std::move(command));
    EXPECT_EQ(reply.calls(), 1);
    if (!reply.answered() || !(*reply).ok()) break;
    EXPECT_LE((**reply).messages.size(), static_cast<size_t>(scan_max));
    for (auto& message : (**reply).messages) messages.push_back(std::move(message));
    cursor = (**reply).next;
  }
  return messages;
}

std::vector<std::string> ShardHarness::ListBodies(const std::string& queue) {
  std::vector<std::string> bodies;
  for (const auto& message : List(queue)) bodies.push_back(BodyOf(message.payload));
  return bodies;
}

absl::StatusOr<broker::ListedMessage> ShardHarness::GetMessage(const std::string& queue,
                                                               const MessagePosition& id) {
  Reply<absl::StatusOr<broker::ListedMessage>> reply;
  Run(broker::GetMessageCommand{queue, id, reply.Done()});
  return *reply;
}

absl::StatusOr<int64_t> ShardHarness::Edit(broker::EditMessagesCommand command) {
  Reply<absl::StatusOr<int64_t>> reply;
  command.done = reply.Done();
  Run(std::move(command));
  EXPECT_EQ(reply.calls(), 1);
  return *reply;
}

absl::StatusOr<broker::QueueInfo> ShardHarness::UpdateQueue(broker::QueueConfigChange config) {
  Reply<absl::StatusOr<broker::QueueInfo>> reply;
  broker::UpdateQueueCommand command;
  command.config = std::move(config);
  command.done = reply.Done();
  Run(std::move(command));
  return *reply;
}

void ShardHarness::Pause(const std::string& queue, bool paused) {
  Reply<absl::StatusOr<broker::QueueInfo>> reply;
  Run(broker::PauseQueueCommand{queue, paused, reply.Done()});
  EXPECT_TRUE((*reply).ok());
}

absl::StatusOr<int64_t> ShardHarness::Purge(const std::string& queue, bool include_leased,
                                            bool dry_run) {
  Reply<absl::StatusOr<int64_t>> reply;
  Run(broker::PurgeQueueCommand{queue, dry_run, include_leased, reply.Done()});
  return *reply;
}

absl::Status ShardHarness::DeleteQueue(const std::string& queue) {
  Reply<absl::Status> reply;
  broker::DeleteQueueCommand command;
  command.queue = queue;
  command.done = reply.Done();
  Run(std::move(command));
  return *reply;
}

}  // namespace sluice::testing
