// The engine with its real threads over a log whose batches become durable on another thread.
#include "server/broker/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "server/storage/mem_log.h"
#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

constexpr absl::Duration kAnswerMax = absl::Seconds(60);

// A MemStore that its readers and the commit thread share.
class LockedStore : public storage::Store {
 public:
  absl::Status ScanMeta(absl::FunctionRef<absl::Status(std::string_view, std::string_view)> row)
      override {
    absl::MutexLock lock(&mutex_);
    return store_.ScanMeta(row);
  }
  absl::StatusOr<std::vector<storage::StoredMessage>> ReadMessages(
      const storage::ReadRange& range) override {
    absl::MutexLock lock(&mutex_);
    if (!read_status_.ok()) return read_status_;
    return store_.ReadMessages(range);
  }
  absl::StatusOr<std::vector<storage::StoredMessage>> ReadMessagesAt(
      QueueId qid, Lane lane, const std::vector<Seq>& seqs, uint64_t bytes_max,
      size_t* seqs_read) override {
    absl::MutexLock lock(&mutex_);
    return store_.ReadMessagesAt(qid, lane, seqs, bytes_max, seqs_read);
  }
  absl::StatusOr<std::vector<storage::IndexRow>> ScanIndex(std::string_view begin,
                                                           std::string_view end,
                                                           uint32_t rows_max) override {
    absl::MutexLock lock(&mutex_);
    return store_.ScanIndex(begin, end, rows_max);
  }
  absl::StatusOr<std::vector<std::optional<std::string>>> GetIndex(
      const std::vector<std::string>& keys) override {
    absl::MutexLock lock(&mutex_);
    return store_.GetIndex(keys);
  }
  absl::StatusOr<std::vector<std::optional<std::string>>> GetMeta(
      const std::vector<std::string>& keys) override {
    absl::MutexLock lock(&mutex_);
    return store_.GetMeta(keys);
  }
  absl::Status Apply(std::string_view record) {
    absl::MutexLock lock(&mutex_);
    return store_.Apply(record);
  }
  void FailReads(absl::Status status) {
    absl::MutexLock lock(&mutex_);
    read_status_ = std::move(status);
  }

 private:
  absl::Mutex mutex_;
  storage::MemStore store_ ABSL_GUARDED_BY(mutex_);
  absl::Status read_status_ ABSL_GUARDED_BY(mutex_);
};

class ThreadedLog : public storage::CommitLog {
 public:
  explicit ThreadedLog(LockedStore* store) : store_(store), thread_([this] { Run(); }) {}
  ~ThreadedLog() override { Stop(); }

  void Append(storage::Batch batch, Done done) override {
    absl::MutexLock lock(&mutex_);
    pending_.push_back({std::move(batch), std::move(done)});
  }
  void Stop() {
    {
      absl::MutexLock lock(&mutex_);
      closing_ = true;
    }
    if (thread_.joinable()) thread_.join();
  }
  void FailFromNow() {
    absl::MutexLock lock(&mutex_);
    failing_ = true;
  }

 private:
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return closing_ || !pending_.empty(); }
  void Run() {
    while (true) {
      std::pair<storage::Batch, Done> next;
      bool failing = false;
      {
        absl::MutexLock lock(&mutex_);
        mutex_.Await(absl::Condition(this, &ThreadedLog::HasWork));
        if (pending_.empty()) return;
        next = std::move(pending_.front());
        pending_.pop_front();
        failing = failing_;
      }
      next.second(failing ? absl::UnavailableError("the disk is gone")
                          : store_->Apply(next.first.record()));
    }
  }

  LockedStore* const store_;
  absl::Mutex mutex_;
  std::deque<std::pair<storage::Batch, Done>> pending_ ABSL_GUARDED_BY(mutex_);
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool failing_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// Acks what it gets and counts the distinct bodies.
class AckingSink : public SubscriptionSink {
 public:
  AckingSink(CommandSink* engine, size_t expected) : engine_(engine), expected_(expected) {}
  void OnStarted(const Started&) override {}
  void OnDeliveries(std::vector<OutgoingDelivery> deliveries) override {
    SettleCommand settle;
    settle.queue = "q";
    settle.done = [this](absl::StatusOr<SettleOutcome> outcome) {
      acked_ += outcome.ok() ? outcome->settled : 0;
      if (acked_ == expected_) all_acked.Notify();
    };
    for (const auto& delivery : deliveries) {
      bodies.insert(::sluice::testing::BodyOf(delivery));
      settle.items.push_back({delivery.receipt});
    }
    engine_->Submit(std::move(settle));
  }
  void OnLeaseLost(std::vector<Receipt>, ErrorReason) override {}
  void OnDrained() override {}
  void OnEnd(absl::Status status) override {
    end = std::move(status);
    ended.Notify();
  }

  absl::Notification all_acked;
  absl::Notification ended;
  absl::Status end;               // read after ended
  std::set<std::string> bodies;  // engine thread; read after all_acked

 private:
  CommandSink* const engine_;
  const size_t expected_;
  size_t acked_ = 0;
};

void CreateQueue(Engine& engine) {
  absl::Notification made;
  CreateQueueCommand command;
  command.config.name = "q";
  command.done = [&](absl::StatusOr<CreateQueueOutcome> outcome) {
    EXPECT_TRUE(outcome.ok());
    made.Notify();
  };
  engine.Submit(std::move(command));
  ASSERT_TRUE(made.WaitForNotificationWithTimeout(kAnswerMax));
}

PublishCommand Publish(const std::string& body, PublishCommand::Done done) {
  PublishCommand command;
  command.publish.queue = "q";
  command.publish.messages.push_back({::sluice::testing::MakePayload(body)});
  command.done = std::move(done);
  return command;
}

TEST(EngineThreads, EveryMessageOfManyPublishersIsDeliveredAndAcked) {
  constexpr int kPublishers = 4;
  constexpr int kMessagesEach = 2000;
  LockedStore store;
  ThreadedLog log(&store);
  auto engine = Engine::Start({}, Clock::System(), &store, &log, nullptr, nullptr);
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_NO_FATAL_FAILURE(CreateQueue(**engine));
  auto sink = std::make_shared<AckingSink>(engine->get(), kPublishers * kMessagesEach);
  std::vector<std::thread> publishers;
  for (int p = 0; p < kPublishers; ++p) {
    publishers.emplace_back([&, p] {
      for (int i = 0; i < kMessagesEach; ++i) {
        // The consumer joins in the middle: part of the backlog is paged in.
        if (p == 0 && i == kMessagesEach / 2) {
          SubscribeCommand subscribe;
          subscribe.queue = "q";
          subscribe.sink = sink;
          (*engine)->Submit(std::move(subscribe));
        }
        (*engine)->Submit(Publish(std::to_string(p * kMessagesEach + i),
                                  [](absl::StatusOr<std::vector<PublishedMessage>> published) {
                                    EXPECT_TRUE(published.ok());
                                  }));
      }
    });
  }
  for (auto& publisher : publishers) publisher.join();
  EXPECT_TRUE(sink->all_acked.WaitForNotificationWithTimeout(kAnswerMax));
  EXPECT_EQ(sink->bodies.size(), static_cast<size_t>(kPublishers * kMessagesEach));

  absl::Notification stopped;
  (*engine)->Submit(DrainCommand{[] {}});
  (*engine)->Submit(StopCommand{[&] { stopped.Notify(); }});
  EXPECT_TRUE(stopped.WaitForNotificationWithTimeout(kAnswerMax));
  EXPECT_TRUE(sink->ended.HasBeenNotified());
  log.Stop();
  engine->reset();
}

TEST(EngineThreads, AFailedWriteAnswersUnavailableAndIsFatalOnce) {
  LockedStore store;
  ThreadedLog log(&store);
  absl::Notification fatal;
  auto engine = Engine::Start({}, Clock::System(), &store, &log, nullptr,
                              [&](const absl::Status& cause) {
                                EXPECT_FALSE(cause.ok());
                                fatal.Notify();
                              });
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_NO_FATAL_FAILURE(CreateQueue(**engine));
  log.FailFromNow();
  absl::Status answer;
  (*engine)->Submit(Publish("lost", [&](absl::StatusOr<std::vector<PublishedMessage>> published) {
    answer = published.status();
  }));
  ASSERT_TRUE(fatal.WaitForNotificationWithTimeout(kAnswerMax));
  EXPECT_EQ(answer.code(), absl::StatusCode::kUnavailable);
  log.Stop();
  engine->reset();
}

// Time that stands still unless the test moves it.
class StandingClock : public Clock {
 public:
  int64_t MonotonicNs() override { return mono_ns_; }
  int64_t WallMs() override { return mono_ns_ / 1'000'000; }
  void Advance(int64_t ms) { mono_ns_ += ms * 1'000'000; }

 private:
  std::atomic<int64_t> mono_ns_{kDayMs * 1'000'000};
};

TEST(EngineThreads, WhatFallsDueAfterAStopIsLeftToTheNextBoot) {
  LockedStore store;
  ThreadedLog log(&store);
  StandingClock clock;
  absl::Notification fatal;
  auto engine = Engine::Start({}, &clock, &store, &log, nullptr,
                              [&](const absl::Status&) { fatal.Notify(); });
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_NO_FATAL_FAILURE(CreateQueue(**engine));
  (*engine)->Submit(Publish("1", [](const auto&) {}));
  absl::Notification received;
  ReceiveCommand receive;
  receive.queue = "q";
  receive.call_id = 1;
  receive.max_messages = 1;
  receive.wait_ms = kMinuteMs;
  receive.done = [&](absl::StatusOr<std::vector<OutgoingDelivery>> deliveries) {
    EXPECT_EQ(deliveries.value().size(), 1u);
    received.Notify();
  };
  (*engine)->Submit(std::move(receive));
  ASSERT_TRUE(received.WaitForNotificationWithTimeout(kAnswerMax));
  absl::Notification stopped;
  (*engine)->Submit(StopCommand{[&] { stopped.Notify(); }});
  ASSERT_TRUE(stopped.WaitForNotificationWithTimeout(kAnswerMax));

  log.FailFromNow();
  clock.Advance(2 * kLeaseMsDefault);
  InspectCommand wake_up;
  wake_up.done = [](ShardInfo) {};
  (*engine)->Submit(std::move(wake_up));
  EXPECT_FALSE(fatal.WaitForNotificationWithTimeout(absl::Milliseconds(200)));
  (*engine)->EndThreads();
  EXPECT_FALSE(fatal.HasBeenNotified());
  log.Stop();
  engine->reset();
}

TEST(EngineThreads, AStopThatCannotBeWrittenIsFatalBeforeTheThreadsEnd) {
  for (int round = 0; round < 50; ++round) {
    LockedStore store;
    ThreadedLog log(&store);
    absl::Notification fatal;
    auto engine = Engine::Start({}, Clock::System(), &store, &log, nullptr,
                                [&](const absl::Status&) { fatal.Notify(); });
    ASSERT_TRUE(engine.ok()) << engine.status();
    log.FailFromNow();
    absl::Notification stopped;
    (*engine)->Submit(StopCommand{[&] { stopped.Notify(); }});
    ASSERT_TRUE(stopped.WaitForNotificationWithTimeout(kAnswerMax));
    (*engine)->EndThreads();
    ASSERT_TRUE(fatal.HasBeenNotified()) << "the process would exit as if all were well";
    log.Stop();
    engine->reset();
  }
}

TEST(EngineThreads, DamagedDataIsDataLossToConsumersAndNeverToAPublishThatIsStored) {
  LockedStore store;
  ThreadedLog log(&store);
  absl::Notification fatal;
  auto engine = Engine::Start({}, Clock::System(), &store, &log, nullptr,
                              [&](const absl::Status& cause) {
                                EXPECT_EQ(ReasonOf(cause), ErrorReason::kDataDamaged);
                                fatal.Notify();
                              });
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_NO_FATAL_FAILURE(CreateQueue(**engine));
  store.FailReads(MakeError(ErrorReason::kDataDamaged, "file 7 is damaged"));
  auto sink = std::make_shared<AckingSink>(engine->get(), 0);
  // More than is kept in memory while nobody consumes; some are still under way when it is found.
  for (int i = 0; i < 20'000; ++i) {
    if (i == 15'000) {
      SubscribeCommand subscribe;
      subscribe.queue = "q";
      subscribe.sink = sink;
      (*engine)->Submit(std::move(subscribe));
    }
    (*engine)->Submit(Publish(std::to_string(i), [](const auto& published) {
      EXPECT_NE(published.status().code(), absl::StatusCode::kDataLoss);
    }));
  }
  ASSERT_TRUE(fatal.WaitForNotificationWithTimeout(kAnswerMax));
  ASSERT_TRUE(sink->ended.HasBeenNotified());
  EXPECT_EQ(sink->end.code(), absl::StatusCode::kDataLoss);
  log.Stop();
  engine->reset();
}

}  // namespace
}  // namespace sluice::broker
