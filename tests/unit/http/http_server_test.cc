#include "server/http/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::http {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

int Connect(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

std::string Request(uint16_t port, const std::string& line) {
  const int fd = Connect(port);
  std::string answer;
  const std::string request = line + " HTTP/1.1\r\nHost: localhost\r\n\r\n";
  EXPECT_EQ(send(fd, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
  char buffer[4096];
  for (ssize_t n; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) answer.append(buffer, n);
  close(fd);
  return answer;
}

class HttpServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto started = HttpServer::Start("127.0.0.1:0", {[this] {
                                                       if (wait_) wait_();
                                                       return std::string("m 1\n");
                                                     },
                                                     [this] { return ready_; }});
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
    ASSERT_NE(server_->port(), 0);
  }

  std::string Get(const std::string& path) { return Request(server_->port(), "GET " + path); }

  absl::Status ready_;
  std::function<void()> wait_;  // of each scrape
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, MetricsAreServedInPrometheusTextFormat) {
  const std::string answer = Get("/metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("text/plain; version=0.0.4"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\nm 1\n"));
}

TEST_F(HttpServerTest, LivenessDoesNotDependOnReadiness) {
  ready_ = absl::UnavailableError("draining");
  EXPECT_THAT(Get("/healthz"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, ReadinessSaysWhyNot) {
  EXPECT_THAT(Get("/readyz"), StartsWith("HTTP/1.1 200 "));
  ready_ = absl::UnavailableError("draining");
  const std::string answer = Get("/readyz");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(answer, EndsWith("draining\n"));
}

TEST_F(HttpServerTest, EverythingElseIsNotFound) {
  for (const char* path : {"/", "/metrics/", "/metrics/x", "/etc/passwd", "/../../etc/passwd",
                           "/CMakeLists.txt", "/healthz.txt"}) {
    const std::string answer = Get(path);
    EXPECT_TRUE(answer.rfind("HTTP/1.1 404 ", 0) == 0 || answer.rfind("HTTP/1.1 400 ", 0) == 0)
        << path << ": " << answer;
  }
}

TEST_F(HttpServerTest, OtherMethodsAreRefused) {
  EXPECT_THAT(Request(server_->port(), "POST /metrics"), HasSubstr(" 405 "));
  EXPECT_THAT(Request(server_->port(), "DELETE /healthz"), HasSubstr(" 405 "));
}

TEST_F(HttpServerTest, HeadHasNoBody) {
  EXPECT_THAT(Request(server_->port(), "HEAD /metrics"), EndsWith("\r\n\r\n"));
}

TEST_F(HttpServerTest, IdleConnectionsDoNotKeepOthersWaiting) {
  std::vector<int> idle;
  for (int i = 0; i < 100; ++i) idle.push_back(Connect(server_->port()));
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THAT(Get("/healthz"), StartsWith("HTTP/1.1 200 "));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1));
  for (const int fd : idle) close(fd);
}

TEST_F(HttpServerTest, WorkBeyondTheBoundIsTurnedAwayAndLivenessIsNot) {
  std::latch inside(HttpServer::kWorkMax);
  std::latch leave(1);
  wait_ = [&] {
    inside.count_down();
    leave.wait();
  };
  std::vector<std::jthread> scrapers;
  for (int i = 0; i < HttpServer::kWorkMax; ++i) {
    scrapers.emplace_back([this] { EXPECT_THAT(Get("/metrics"), StartsWith("HTTP/1.1 200 ")); });
  }
  inside.wait();
  EXPECT_THAT(Get("/metrics"), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(Get("/readyz"), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(Get("/healthz"), StartsWith("HTTP/1.1 200 "));
  leave.count_down();
  scrapers.clear();
  wait_ = nullptr;
  EXPECT_THAT(Get("/metrics"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, TakenAddressIsRefusedClearly) {
  const std::string address = "127.0.0.1:" + std::to_string(server_->port());
  const auto second = HttpServer::Start(address, {});
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(address));
}

}  // namespace
}  // namespace sluice::http
