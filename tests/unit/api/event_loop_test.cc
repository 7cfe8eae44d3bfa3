#include "server/api/event_loop.h"

#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

namespace sluice::api {
namespace {

// Keeps how many commands came at a time.
class BatchSink : public broker::CommandSink {
 public:
  void Submit(broker::Command command) override {
    std::vector<broker::Command> one;
    one.push_back(std::move(command));
    SubmitAll(&one);
  }
  void SubmitAll(std::vector<broker::Command>* commands) override {
    absl::MutexLock lock(&mutex_);
    batches_.push_back(commands->size());
    total_ += commands->size();
    commands->clear();
  }
  // Once `total` commands have come in all.
  std::vector<size_t> Batches(size_t total) {
    absl::MutexLock lock(&mutex_);
    const auto all_came = [&] { return total_ >= total; };
    mutex_.Await(absl::Condition(&all_came));
    return batches_;
  }
  size_t total() {
    absl::MutexLock lock(&mutex_);
    return total_;
  }

 private:
  absl::Mutex mutex_;
  size_t total_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<size_t> batches_ ABSL_GUARDED_BY(mutex_);
};

class EventLoopTest : public ::testing::Test {
 protected:
  EventLoopTest() {
    grpc::ServerBuilder builder;
    loop_ = std::make_unique<EventLoop>(builder.AddCompletionQueue(), &sink_, &connections_);
    server_ = builder.BuildAndStart();
    loop_->Start();
  }
  ~EventLoopTest() override {
    server_->Shutdown();
    loop_->Stop();
  }

  // Runs `task` on the loop and waits for its end.
  void RunOnLoop(EventLoop::Task task) {
    absl::Notification ran;
    loop_->Post([&] {
      task();
      ran.Notify();
    });
    ran.WaitForNotification();
  }

  void MakeManyCalls() {
    RunOnLoop([&] {
      for (int i = 0; i < 100; ++i) loop_->ShortCallCame();
    });
  }

  BatchSink sink_;
  Connections connections_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<EventLoop> loop_;
};

TEST_F(EventLoopTest, DeliveriesRunBeforeWhatElseWaitsAndEachKindInItsOrder) {
  absl::Notification busy;
  absl::Notification posted;
  loop_->Post([&] {
    busy.Notify();
    posted.WaitForNotification();
  });
  busy.WaitForNotification();
  std::string ran;
  absl::Notification done;
  const auto post = [&](char name, EventLoop::Kind kind) {
    loop_->Post([&ran, name] { ran += name; }, kind);
  };
  post('a', EventLoop::Kind::kOther);
  post('1', EventLoop::Kind::kDelivery);
  post('b', EventLoop::Kind::kOther);
  post('2', EventLoop::Kind::kDelivery);
  loop_->Post([&] { done.Notify(); });
  posted.Notify();
  done.WaitForNotification();
  EXPECT_EQ(ran, "12ab");
}

TEST_F(EventLoopTest, CommandsOfManyCallsGoToTheEngineTogether) {
  MakeManyCalls();
  RunOnLoop([&] {
    for (int i = 0; i < 10; ++i) loop_->Submit(broker::InspectCommand{});
  });
  EXPECT_EQ(sink_.Batches(10), std::vector<size_t>{10});
}

TEST_F(EventLoopTest, CommandsOfFewCallsGoToTheEngineAtOnce) {
  RunOnLoop([&] {
    for (int i = 0; i < 100; ++i) {
      loop_->ShortCallCame();
      loop_->Submit(broker::InspectCommand{});
      loop_->ShortCallWent();
    }
  });
  EXPECT_EQ(sink_.Batches(100), std::vector<size_t>(100, 1));
}

TEST_F(EventLoopTest, GatheredCommandsDoNotWaitForTheLoopToBeIdle) {
  MakeManyCalls();
  RunOnLoop([&] {
    for (int i = 0; i < 100; ++i) loop_->Submit(broker::InspectCommand{});
    EXPECT_EQ(sink_.Batches(64).back(), 64u);
  });
  EXPECT_EQ(sink_.Batches(100).back(), 36u);
}

TEST_F(EventLoopTest, GatheringCountsMessagesNotCommands) {
  MakeManyCalls();
  RunOnLoop([&] {
    broker::PublishCommand batch;
    batch.publish.messages.resize(62);
    loop_->Submit(std::move(batch));
    loop_->Submit(broker::SettleCommand{});  // of receipts that are all bad: counts all the same
    broker::SettleCommand settle;
    settle.items.resize(1);
    loop_->Submit(std::move(settle));
    EXPECT_EQ(sink_.Batches(3).back(), 3u);
  });
}

TEST_F(EventLoopTest, GatheredCommandsWaitForOtherWorkOnlyForAMoment) {
  MakeManyCalls();
  absl::Notification done;
  // Always there, before the loop could be idle.
  std::function<void()> work = [&] {
    if (sink_.total() > 0) return done.Notify();
    loop_->Post([&] { work(); });
  };
  RunOnLoop([&] {
    loop_->Submit(broker::InspectCommand{});
    work();
  });
  done.WaitForNotification();
  RunOnLoop([] {});  // `work` has returned
}

}  // namespace
}  // namespace sluice::api
