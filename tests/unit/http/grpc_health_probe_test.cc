#include "server/http/grpc_health_probe.h"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>

#include "gtest/gtest.h"

namespace sluice::http {
namespace {

class GrpcHealthProbeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    grpc::EnableDefaultHealthCheckService(true);
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterCallbackGenericService(&no_calls_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    address_ = "127.0.0.1:" + std::to_string(port);
  }
  void TearDown() override { server_->Shutdown(); }

  grpc::CallbackGenericService no_calls_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

TEST_F(GrpcHealthProbeTest, ServingServerIsReady) {
  EXPECT_TRUE(ProbeGrpcHealth(address_).ok()) << ProbeGrpcHealth(address_);
}

TEST_F(GrpcHealthProbeTest, ServerThatSaysNotServingIsNotReady) {
  server_->GetHealthCheckService()->SetServingStatus(false);
  EXPECT_EQ(ProbeGrpcHealth(address_).code(), absl::StatusCode::kUnavailable);
  server_->GetHealthCheckService()->SetServingStatus(true);
  EXPECT_TRUE(ProbeGrpcHealth(address_).ok());
}

TEST_F(GrpcHealthProbeTest, ServerThatHasGoneIsNotReady) {
  server_->Shutdown();
  EXPECT_EQ(ProbeGrpcHealth(address_).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace sluice::http
