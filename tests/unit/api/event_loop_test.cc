#include "server/api/event_loop.h"

#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/synchronization/notification.h"

namespace sluice::api {
namespace {

class EventLoopTest : public ::testing::Test {
 protected:
  EventLoopTest() {
    grpc::ServerBuilder builder;
    loop_ = std::make_unique<EventLoop>(builder.AddCompletionQueue());
    server_ = builder.BuildAndStart();
    loop_->Start();
  }
  ~EventLoopTest() override {
    server_->Shutdown();
    loop_->Stop();
  }

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

}  // namespace
}  // namespace sluice::api
