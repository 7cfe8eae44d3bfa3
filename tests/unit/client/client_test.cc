#include "client/cpp/client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "client/cpp/consumer.h"

namespace sluice::client {
namespace {

using std::chrono::steady_clock;

// Hangs up on whoever connects, as if no server was there, and notes when they came.
class Hangup {
 public:
  Hangup() : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(fd_, SOMAXCONN), 0);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  ~Hangup() { close(fd_); }

  const std::string& address() const { return address_; }

  std::vector<steady_clock::time_point> AwaitAttempts(size_t count) {
    std::vector<steady_clock::time_point> attempts;
    while (attempts.size() < count) {
      const int connection = accept(fd_, nullptr, nullptr);
      attempts.push_back(steady_clock::now());
      close(connection);
    }
    return attempts;
  }

 private:
  const int fd_;
  std::string address_;
};

// By the tenth attempt the pauses are as long as they get.
TEST(ClientTest, ConsumersLookForTheirServerOftenHoweverLongItIsAway) {
  constexpr size_t kAttempts = 13;
  constexpr size_t kSettledFrom = 10;
  Hangup hangup;
  Client client({.address = hangup.address()});
  Consumer consumer(client, {.queue = "q", .reopen = true});
  std::thread running([&] { consumer.Run([](const v1::Delivery&) {}).IgnoreError(); });
  const auto attempts = hangup.AwaitAttempts(kAttempts);
  consumer.Stop();
  running.join();
  // A busy machine only makes pauses longer: the shortest tells what is meant.
  auto shortest = steady_clock::duration::max();
  for (size_t i = kSettledFrom; i < kAttempts; ++i) {
    shortest = std::min(shortest, attempts[i] - attempts[i - 1]);
  }
  EXPECT_LT(shortest, std::chrono::seconds(1));
}

}  // namespace
}  // namespace sluice::client
