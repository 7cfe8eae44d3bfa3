// Publishes are held back under pressure; everything else goes on past them.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "server/base/check.h"
#include "server/base/clock.h"
#include "server/broker/engine.h"
#include "server/model/error.h"
#include "server/storage/mem_log.h"
#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::storage::Pressure;
using ::sluice::testing::BodyOf;
using ::sluice::testing::MakePayload;

// Far beyond what a turn takes, also on a loaded machine.
constexpr absl::Duration kAnswerMax = absl::Seconds(30);

class FakeGauge : public storage::PressureGauge {
 public:
  Pressure Read() const override { return pressure_; }
  void Set(Pressure pressure) { pressure_ = pressure; }

 private:
  std::atomic<Pressure> pressure_{Pressure::kNone};
};

// Rows in memory that are durable at once; the reader thread may look at them meanwhile.
class MemDisk : public storage::CommitLog, public storage::Store {
 public:
  void Append(storage::Batch batch, Done done) override {
    absl::Status status;
    {
      absl::MutexLock lock(&mutex_);
      status = rows_.Apply(batch.record());
    }
    done(status);
  }
  absl::Status ScanMeta(absl::FunctionRef<absl::Status(std::string_view key, std::string_view value)>
                            row) override {
    absl::MutexLock lock(&mutex_);
    return rows_.ScanMeta(row);
  }
  absl::StatusOr<std::vector<storage::StoredMessage>> ReadMessages(
      const storage::ReadRange& range) override {
    absl::MutexLock lock(&mutex_);
    return rows_.ReadMessages(range);
  }
  absl::StatusOr<std::vector<storage::StoredMessage>> ReadMessagesAt(
      QueueId qid, Lane lane, const std::vector<Seq>& seqs, uint64_t bytes_max,
      size_t* seqs_read) override {
    absl::MutexLock lock(&mutex_);
    return rows_.ReadMessagesAt(qid, lane, seqs, bytes_max, seqs_read);
  }
  absl::StatusOr<std::vector<storage::IndexRow>> ScanIndex(std::string_view begin,
                                                           std::string_view end,
                                                           uint32_t rows_max) override {
    absl::MutexLock lock(&mutex_);
    return rows_.ScanIndex(begin, end, rows_max);
  }
  absl::StatusOr<std::vector<std::optional<std::string>>> GetIndex(
      const std::vector<std::string>& keys) override {
    absl::MutexLock lock(&mutex_);
    return rows_.GetIndex(keys);
  }
  absl::StatusOr<std::vector<std::optional<std::string>>> GetMeta(
      const std::vector<std::string>& keys) override {
    absl::MutexLock lock(&mutex_);
    return rows_.GetMeta(keys);
  }

 private:
  absl::Mutex mutex_;
  storage::MemStore rows_ ABSL_GUARDED_BY(mutex_);
};

// What a `done` on the engine thread was called with.
template <typename T>
class Answer {
 public:
  auto Done() const {
    return [state = state_](T value) {
      state->value.emplace(std::move(value));
      state->notification.Notify();
    };
  }
  bool Has() const { return state_->notification.HasBeenNotified(); }
  // Ends the test's hope when nothing comes.
  T& Get() const {
    SLUICE_CHECK(state_->notification.WaitForNotificationWithTimeout(kAnswerMax));
    return *state_->value;
  }

 private:
  struct State {
    absl::Notification notification;
    std::optional<T> value;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

using PublishAnswer = Answer<absl::StatusOr<std::vector<PublishedMessage>>>;

class EngineUnderPressure : public ::testing::Test {
 protected:
  EngineUnderPressure() {
    EngineOptions options;
    options.pressure = &gauge_;
    engine_ = *Engine::Start(options, Clock::System(), &disk_, &disk_, nullptr, nullptr);
    Answer<absl::StatusOr<CreateQueueOutcome>> created;
    QueueConfigChange config;
    config.name = "q";
    engine_->Submit(CreateQueueCommand{std::move(config), created.Done()});
    EXPECT_TRUE(created.Get().ok());
  }

  PublishAnswer Publish(const std::string& body) {
    PublishAnswer answer;
    PublishCommand command;
    command.publish.queue = "q";
    command.publish.messages.push_back({MakePayload(body)});
    command.done = answer.Done();
    engine_->Submit(std::move(command));
    return answer;
  }
  std::vector<OutgoingDelivery> Receive() {
    Answer<absl::StatusOr<std::vector<OutgoingDelivery>>> answer;
    ReceiveCommand command;
    command.queue = "q";
    command.call_id = ++calls_;
    command.max_messages = 100;
    command.done = answer.Done();
    engine_->Submit(std::move(command));
    return *std::move(answer.Get());
  }
  absl::StatusOr<SettleOutcome> Ack(const Receipt& receipt) {
    Answer<absl::StatusOr<SettleOutcome>> answer;
    engine_->Submit(SettleCommand{.queue = "q", .items = {{receipt}}, .done = answer.Done()});
    return answer.Get();
  }
  // The engine has taken everything sent before, and has asked the gauge again since.
  void AwaitTurns() {
    Answer<ShardInfo> inspected;
    engine_->Submit(InspectCommand{.done = inspected.Done()});
    inspected.Get();
  }

  FakeGauge gauge_;
  MemDisk disk_;
  std::unique_ptr<Engine> engine_;
  uint64_t calls_ = 0;
};

TEST_F(EngineUnderPressure, ThrottledPublishesWaitWhileAcksAreAnswered) {
  ASSERT_TRUE(Publish("before").Get().ok());
  const auto got = Receive();
  ASSERT_EQ(got.size(), 1u);
  gauge_.Set(Pressure::kThrottle);
  const PublishAnswer first = Publish("1");
  const PublishAnswer second = Publish("2");
  const auto acked = Ack(got[0].receipt);
  ASSERT_TRUE(acked.ok());
  EXPECT_EQ(acked->settled, 1);
  EXPECT_TRUE(Receive().empty());
  EXPECT_FALSE(first.Has());
  EXPECT_FALSE(second.Has());

  gauge_.Set(Pressure::kNone);
  // Nothing is sent that would wake the engine: it looks by itself.
  EXPECT_TRUE(first.Get().ok());
  EXPECT_TRUE(second.Get().ok());
  const PublishAnswer third = Publish("3");
  ASSERT_TRUE(third.Get().ok());
  std::vector<std::string> bodies;
  for (const OutgoingDelivery& delivery : Receive()) bodies.push_back(BodyOf(delivery));
  EXPECT_EQ(bodies, (std::vector<std::string>{"1", "2", "3"})) << "waiting changed their order";
}

TEST_F(EngineUnderPressure, ALaterPublishDoesNotOvertakeThoseThatWaited) {
  // More than three turns take.
  constexpr int kWaiting = 16;
  const std::string body(kMiB, 'x');
  gauge_.Set(Pressure::kThrottle);
  PublishAnswer later;
  PublishCommand command;
  command.publish.queue = "q";
  command.publish.messages.push_back({MakePayload(body)});
  // Sent while most of the others still wait.
  command.done = [this, &later](const absl::StatusOr<std::vector<PublishedMessage>>&) {
    PublishCommand last;
    last.publish.queue = "q";
    last.publish.messages.push_back({MakePayload("later")});
    last.done = later.Done();
    engine_->Submit(std::move(last));
  };
  engine_->Submit(std::move(command));
  for (int i = 1; i < kWaiting; ++i) Publish(body);
  AwaitTurns();
  gauge_.Set(Pressure::kNone);
  ASSERT_TRUE(later.Get().ok());
  EXPECT_EQ(later.Get()->at(0).id.seq, kWaiting + 1u);
}

TEST_F(EngineUnderPressure, RefusedPublishesSayStorageFullAndWhenToRetryWhileAcksAreAnswered) {
  ASSERT_TRUE(Publish("before").Get().ok());
  const auto got = Receive();
  ASSERT_EQ(got.size(), 1u);
  gauge_.Set(Pressure::kRefuse);
  const PublishAnswer publish = Publish("1");
  const absl::Status refused = publish.Get().status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused), ErrorReason::kStorageFull);
  EXPECT_GT(RetryAfterMsOf(refused).value_or(0), 0);
  EXPECT_TRUE(Ack(got[0].receipt).ok());

  gauge_.Set(Pressure::kNone);
  EXPECT_TRUE(Publish("2").Get().ok());
}

TEST_F(EngineUnderPressure, PublishesThatWereWaitingAreRefusedTooWhenTheDiskFillsUp) {
  gauge_.Set(Pressure::kThrottle);
  const PublishAnswer publish = Publish("1");
  AwaitTurns();
  EXPECT_FALSE(publish.Has());
  gauge_.Set(Pressure::kRefuse);
  EXPECT_EQ(ReasonOf(publish.Get().status()), ErrorReason::kStorageFull);
  gauge_.Set(Pressure::kNone);
  EXPECT_TRUE(Receive().empty()) << "a refused message was stored";
}

TEST_F(EngineUnderPressure, NoPublishIsLeftWaitingByAStop) {
  gauge_.Set(Pressure::kThrottle);
  const PublishAnswer publish = Publish("1");
  AwaitTurns();
  absl::Notification drained;
  engine_->Submit(DrainCommand{[&] { drained.Notify(); }});
  EXPECT_EQ(ReasonOf(publish.Get().status()), ErrorReason::kDraining);
  EXPECT_TRUE(drained.WaitForNotificationWithTimeout(kAnswerMax));
}

}  // namespace
}  // namespace sluice::broker
