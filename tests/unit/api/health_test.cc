#include "server/api/health.h"

#include <grpcpp/generic/generic_stub.h>

#include <chrono>
#include <deque>
#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/unit/api/server_fixture.h"

namespace sluice::api {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr const char* kServed[] = {"", "sluice.v1.QueueService", "sluice.v1.AdminService"};
constexpr char kUnserved[] = "sluice.v1.Other";
// Of a shutdown that should not need it.
constexpr int64_t kGraceMs = 60'000;

HealthCheckRequest For(const std::string& service) {
  HealthCheckRequest request;
  request.set_service(service);
  return request;
}

// Checks whose requests never come.
class StalledChecks {
 public:
  StalledChecks(const std::shared_ptr<grpc::Channel>& channel, int count) : stub_(channel) {
    for (int i = 0; i < count; ++i) {
      Check& check = checks_.emplace_back();
      check.call = stub_.PrepareCall(&check.context, "/grpc.health.v1.Health/Check", &queue_);
      check.call->StartCall(&check);
      Wait();
    }
  }
  ~StalledChecks() {
    for (Check& check : checks_) check.context.TryCancel();
    queue_.Shutdown();
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) continue;
  }
  // How the first one that was begun ended.
  grpc::Status FinishFirst() {
    grpc::Status status;
    checks_.front().call->Finish(&status, this);
    Wait();
    return status;
  }

 private:
  struct Check {
    grpc::ClientContext context;
    std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call;
  };
  void Wait() {
    void* tag;
    bool ok;
    queue_.Next(&tag, &ok);
  }
  grpc::GenericStub stub_;
  grpc::CompletionQueue queue_;
  std::deque<Check> checks_;
};

class HealthTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    Connect();
  }
  void Connect() { health_ = Health::NewStub(channel_); }

  grpc::Status Check(const std::string& service, HealthCheckResponse* response) {
    grpc::ClientContext context;
    return health_->Check(&context, For(service), response);
  }

  std::unique_ptr<Health::Stub> health_;
};

TEST_F(HealthTest, CheckFollowsDrainingForEveryService) {
  HealthCheckResponse response;
  for (const char* service : kServed) {
    ASSERT_TRUE(Check(service, &response).ok());
    EXPECT_EQ(response.status(), HealthCheckResponse::SERVING) << service;
  }
  server_->BeginDrain();
  for (const char* service : kServed) {
    ASSERT_TRUE(Check(service, &response).ok());
    EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING) << service;
  }
}

// As many as a connection can have: one after the other they would take far longer than any probe
// waits for its answer.
TEST_F(HealthTest, ChecksThatStallDoNotHoldUpOthers) {
  StalledChecks stalled(channel_, 900);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  HealthCheckResponse response;
  const grpc::Status status = health_->Check(&context, For(""), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);

  const grpc::Status refused = stalled.FinishFirst();
  EXPECT_EQ(ReasonIn(refused), "MEMORY_FULL");
  EXPECT_NE(refused.error_message().find("had not arrived 200ms after"), std::string::npos)
      << refused.error_message();
}

TEST_F(HealthTest, AnUnknownServiceIsNotFoundByCheckAndWatchedAsUnknown) {
  HealthCheckResponse response;
  EXPECT_EQ(Check(kUnserved, &response).error_code(), grpc::StatusCode::NOT_FOUND);
  grpc::ClientContext context;
  auto watch = health_->Watch(&context, For(kUnserved));
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  context.TryCancel();
  EXPECT_FALSE(watch->Read(&response));
}

TEST_F(HealthTest, AWatchIsToldOnceThatTheServerDrainsAndDoesNotHoldItUp) {
  grpc::ClientContext context;
  auto watch = health_->Watch(&context, For(""));
  grpc::ClientContext unknown_context;
  auto unknown = health_->Watch(&unknown_context, For(kUnserved));
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  ASSERT_TRUE(unknown->Read(&response));

  server_->BeginDrain();
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  grpc::ClientContext late_context;
  auto late = health_->Watch(&late_context, For(""));
  ASSERT_TRUE(late->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);

  const absl::Time start = absl::Now();
  server_->Shutdown(kGraceMs);
  EXPECT_LT(absl::Now() - start, absl::Milliseconds(kGraceMs / 2));
  EXPECT_FALSE(watch->Read(&response)) << "it was told already";
  EXPECT_FALSE(watch->Finish().ok());
  EXPECT_FALSE(unknown->Read(&response));
  EXPECT_FALSE(late->Read(&response));
}

TEST_F(HealthTest, AWatchThatTheDrainFindsIsToldBeforeTheServerGoes) {
  grpc::ClientContext context;
  auto watch = health_->Watch(&context, For(""));
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  server_->BeginDrain();
  server_->Shutdown(kGraceMs);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  EXPECT_FALSE(watch->Read(&response));
}

TEST_F(HealthTest, WatchesHaveALimitOfTheirOwn) {
  ServerOptions options;
  options.health_watches_max = 1;
  options.streams_max = 0;
  Start(options);
  Connect();
  HealthCheckResponse response;
  grpc::ClientContext context;
  auto watch = health_->Watch(&context, For(""));
  ASSERT_TRUE(watch->Read(&response)) << "needs no place among the streams";
  grpc::ClientContext second_context;
  auto second = health_->Watch(&second_context, For(""));
  EXPECT_FALSE(second->Read(&response));
  EXPECT_EQ(ReasonIn(second->Finish()), "TOO_MANY_STREAMS");
}

}  // namespace
}  // namespace sluice::api
