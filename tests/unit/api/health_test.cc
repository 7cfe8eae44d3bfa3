#include "server/api/health.h"

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
