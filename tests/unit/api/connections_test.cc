#include "server/api/connections.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/synchronization/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/api/listener.h"

namespace sluice::api {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

// Tells the caller as whom it sees it.
class Mirror final : public Health::Service {
 public:
  grpc::Status Check(grpc::ServerContext* context, const HealthCheckRequest*,
                     HealthCheckResponse*) override {
    return {grpc::StatusCode::OUT_OF_RANGE, context->peer()};
  }
};

// What gRPC calls a client that connects to `target` of a listener at `address` is what Connections
// knows it by. "PORT" in `target` stands for the port.
void ExpectFound(const std::string& address, const std::string& target) {
  auto listener = Listener::Bind({.address = address});
  if (!listener.ok()) GTEST_SKIP() << listener.status();
  Connections connections;
  Mirror mirror;
  grpc::ServerBuilder builder;
  builder.RegisterService(&mirror);
  const auto acceptor = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      grpc::InsecureServerCredentials());
  const auto server = builder.BuildAndStart();
  std::atomic<int> accepted{-1};
  (*listener)->Start([&](Descriptor connection) {
    connections.Add(connection.get());
    accepted = connection.get();
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
    parameters.fd = connection.Release();
    acceptor->HandleNewConnection(&parameters);
  });
  const auto channel = grpc::CreateChannel(
      absl::StrReplaceAll(target, {{"PORT", absl::StrCat((*listener)->port())}}),
      grpc::InsecureChannelCredentials());
  grpc::ClientContext context;
  HealthCheckResponse response;
  const std::string peer =
      Health::NewStub(channel)->Check(&context, {}, &response).error_message();
  EXPECT_GE(accepted, 0);
  EXPECT_EQ(connections.Find(peer), accepted) << peer;
  EXPECT_EQ(connections.Find(peer + "0"), -1);
  (*listener)->Stop();
  server->Shutdown(std::chrono::system_clock::now());
}

TEST(ConnectionsTest, FindsWhoComesByIpv4) { ExpectFound("127.0.0.1:0", "127.0.0.1:PORT"); }

TEST(ConnectionsTest, FindsWhoComesByIpv6) { ExpectFound("[::1]:0", "[::1]:PORT"); }

TEST(ConnectionsTest, FindsWhoComesByIpv4ToASocketOfBothFamilies) {
  ExpectFound("[::]:0", "127.0.0.1:PORT");
}

TEST(ConnectionsTest, ADescriptorThatIsUsedAgainIsItsNewOwners) {
  auto listener = Listener::Bind({.address = "127.0.0.1:0"});
  ASSERT_TRUE(listener.ok());
  absl::Mutex mutex;
  std::vector<Descriptor> taken;
  (*listener)->Start([&](Descriptor connection) {
    absl::MutexLock lock(&mutex);
    taken.push_back(std::move(connection));
  });
  std::vector<Descriptor> clients;
  std::vector<std::string> peers;
  sockaddr_in address{};
  for (size_t i = 0; i < 2; ++i) {
    const int client = clients.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)).get();
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>((*listener)->port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(connect(client, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    socklen_t bytes = sizeof(address);
    ASSERT_EQ(getsockname(client, reinterpret_cast<sockaddr*>(&address), &bytes), 0);
    peers.push_back(absl::StrCat("ipv4:127.0.0.1:", ntohs(address.sin_port)));
    absl::MutexLock lock(&mutex);
    const auto came = [&] { return taken.size() == i + 1; };
    mutex.Await(absl::Condition(&came));
  }
  (*listener)->Stop();
  Connections connections;
  const int fd = taken[0].get();
  connections.Add(fd);
  EXPECT_EQ(connections.Find(peers[0]), fd);
  ASSERT_EQ(dup2(taken[1].get(), fd), fd);
  connections.Add(fd);
  EXPECT_EQ(connections.Find(peers[1]), fd);
  EXPECT_EQ(connections.Find(peers[0]), -1);
}

TEST(ConnectionsTest, WhatIsNotConnectedIsNotAdded) {
  const Descriptor never(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  Connections connections;
  EXPECT_FALSE(connections.Add(never.get()));
  EXPECT_EQ(connections.Find(""), -1);
}

}  // namespace
}  // namespace sluice::api
