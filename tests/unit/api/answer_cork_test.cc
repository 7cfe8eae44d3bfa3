#include "server/api/answer_cork.h"

#include <grpcpp/completion_queue.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <sys/socket.h>

#include <deque>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/unit/api/server_fixture.h"

namespace sluice::api {
namespace {

constexpr int kCalls = 60;

// Segments with data that have come by the one connection of this process to `port`.
std::optional<uint32_t> DataSegmentsFrom(int port) {
  for (int fd = 0; fd < 1024; ++fd) {
    sockaddr_storage peer{};  // IPv4 or IPv6, the port has the same place
    socklen_t bytes = sizeof(peer);
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &bytes) != 0) continue;
    if (ntohs(reinterpret_cast<const sockaddr_in*>(&peer)->sin_port) != port) continue;
    tcp_info info{};
    bytes = sizeof(info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0) continue;
    return info.tcpi_data_segs_in;
  }
  return std::nullopt;
}

class AnswerCorkTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.polling_threads = 1;
    Start(options);
    for (int i = 0; i < kCalls; ++i) {
      v1::PublishRequest request;
      request.set_queue("work");
      request.add_messages()->set_body("x");
      Publish& call = calls_.emplace_back();
      call.reader = queue_stub_->AsyncPublish(&call.context, request, &queue_);
      call.reader->Finish(&call.response, &call.status, &call);
    }
  }
  ~AnswerCorkTest() override {
    queue_.Shutdown();
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) continue;
  }
  void AwaitAnswers() {
    for (int i = 0; i < kCalls; ++i) {
      void* tag = nullptr;
      bool ok = false;
      ASSERT_TRUE(queue_.Next(&tag, &ok));
      EXPECT_TRUE(static_cast<Publish*>(tag)->status.ok());
    }
  }

  struct Publish {
    grpc::ClientContext context;
    v1::PublishResponse response;
    grpc::Status status;
    std::unique_ptr<grpc::ClientAsyncResponseReader<v1::PublishResponse>> reader;
  };
  grpc::CompletionQueue queue_;
  std::deque<Publish> calls_;
};

TEST_F(AnswerCorkTest, AnswersOfOneCommitShareFewPackets) {
  std::vector<broker::PublishCommand> commands;
  for (int i = 0; i < kCalls; ++i) commands.push_back(shard_.Take<broker::PublishCommand>());
  // Holds the loop up in the sink, so that all answers wait when it goes on.
  absl::Notification held_up;
  absl::Notification answered;
  shard_.BeforeNext([&] {
    held_up.Notify();
    answered.WaitForNotification();
  });
  std::thread other([&] {
    grpc::ClientContext context;
    v1::GetQueueRequest request;
    request.set_queue("work");
    v1::GetQueueResponse response;
    EXPECT_TRUE(admin_stub_->GetQueue(&context, request, &response).ok());
  });
  held_up.WaitForNotification();
  const auto before = DataSegmentsFrom(server_->port());
  EXPECT_TRUE(before);
  for (auto& command : commands) command.done(std::vector<broker::PublishedMessage>(1));
  answered.Notify();
  AwaitAnswers();
  EXPECT_LE(DataSegmentsFrom(server_->port()).value_or(kCalls) - before.value_or(0), 10u);
  shard_.Take<broker::GetQueueCommand>().done(broker::QueueInfo{});
  other.join();
}

}  // namespace
}  // namespace sluice::api
