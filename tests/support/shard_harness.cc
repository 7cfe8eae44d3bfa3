#include "tests/support/shard_harness.h"

#include <gtest/gtest.h>

#include "server/base/check.h"
#include "server/model/server_fields.h"

namespace sluice::testing {
namespace {

// A shard that does not come to rest in this many steps never will.
constexpr int kStepsMax = 1'000'000;

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

std::string BodyOf(const broker::OutgoingDelivery& delivery) {
  const std::string_view wire = delivery.payload.view();
  SLUICE_CHECK(wire.size() >= kServerFieldsBytes);
  return std::string(wire.substr(0, wire.size() - kServerFieldsBytes));
}

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
  now_.mono_ns += ms * 1'000'000;
  now_.engine_ms += ms;
  Turn();
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

void ShardHarness::CleanStop(int64_t down_ms) {
  bool done = false;
  Run(broker::StopCommand{[&done] { done = true; }});
  EXPECT_TRUE(done);
  EXPECT_TRUE(shard_->stopped());
  log_.DropPending();
  now_.mono_ns += down_ms * 1'000'000;
  now_.engine_ms += down_ms;
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
