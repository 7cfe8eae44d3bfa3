#include "server/api/listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

namespace sluice::api {
namespace {

using ::testing::HasSubstr;

// Connects to a loopback address; -1 with errno if refused.
Descriptor ConnectTo(int family, int port) {
  Descriptor client(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(static_cast<uint16_t>(port));
  v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = v4.sin_port;
  v6.sin6_addr = in6addr_loopback;
  const auto* address = family == AF_INET ? reinterpret_cast<const sockaddr*>(&v4)
                                          : reinterpret_cast<const sockaddr*>(&v6);
  const socklen_t bytes = family == AF_INET ? sizeof(v4) : sizeof(v6);
  if (connect(client.get(), address, bytes) != 0) return Descriptor();
  return client;
}

bool HasIpv6() {
  Descriptor probe(socket(AF_INET6, SOCK_STREAM, 0));
  sockaddr_in6 loopback{};
  loopback.sin6_family = AF_INET6;
  loopback.sin6_addr = in6addr_loopback;
  return bind(probe.get(), reinterpret_cast<const sockaddr*>(&loopback), sizeof(loopback)) == 0;
}

int OptionOf(int fd, int level, int option) {
  int value = -1;
  socklen_t bytes = sizeof(value);
  EXPECT_EQ(getsockopt(fd, level, option, &value, &bytes), 0);
  return value;
}

class ListenerTest : public testing::Test {
 protected:
  void Start(const std::string& address, int reserved = 0) {
    auto listener =
        Listener::Bind({.address = address, .silence_ms_max = 20'000, .reserved = reserved});
    ASSERT_TRUE(listener.ok()) << listener.status();
    listener_ = *std::move(listener);
    listener_->Start([this](Descriptor connection) {
      absl::MutexLock lock(&mutex_);
      taken_.push_back(std::move(connection));
    });
  }
  void TearDown() override {
    if (listener_) listener_->Stop();
  }
  void AwaitTaken(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto all_taken = [&] { return taken_.size() >= count; };
    mutex_.Await(absl::Condition(&all_taken));
  }
  size_t taken() {
    absl::MutexLock lock(&mutex_);
    return taken_.size();
  }
  void DropTaken() {
    absl::MutexLock lock(&mutex_);
    taken_.clear();
  }

  std::unique_ptr<Listener> listener_;
  absl::Mutex mutex_;
  std::vector<Descriptor> taken_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(ListenerTest, HandsOverConnectionsReadyForUse) {
  Start("127.0.0.1:0");
  ASSERT_GT(listener_->port(), 0);
  const Descriptor client = ConnectTo(AF_INET, listener_->port());
  ASSERT_GE(client.get(), 0);
  AwaitTaken(1);
  absl::MutexLock lock(&mutex_);
  const int fd = taken_[0].get();
  EXPECT_NE(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_EQ(OptionOf(fd, IPPROTO_TCP, TCP_NODELAY), 1);
  EXPECT_EQ(OptionOf(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 20'000);
}

TEST_F(ListenerTest, TheAddressOfAllIsOfBothFamilies) {
  if (!HasIpv6()) GTEST_SKIP() << "no IPv6 here";
  for (const char* address : {"0.0.0.0:0", "[::]:0"}) {
    Start(address);
    EXPECT_GE(ConnectTo(AF_INET, listener_->port()).get(), 0) << address;
    EXPECT_GE(ConnectTo(AF_INET6, listener_->port()).get(), 0) << address;
    AwaitTaken(2);
    listener_->Stop();
    DropTaken();
  }
}

TEST_F(ListenerTest, OneFamilyIsOneFamily) {
  if (!HasIpv6()) GTEST_SKIP() << "no IPv6 here";
  Start("[::1]:0");
  EXPECT_GE(ConnectTo(AF_INET6, listener_->port()).get(), 0);
  EXPECT_LT(ConnectTo(AF_INET, listener_->port()).get(), 0);
}

TEST_F(ListenerTest, AMappedAddressIsThatOfIpv4) {
  if (!HasIpv6()) GTEST_SKIP() << "no IPv6 here";
  Start("[::ffff:127.0.0.1]:0");
  EXPECT_GE(ConnectTo(AF_INET, listener_->port()).get(), 0);
}

TEST_F(ListenerTest, APortInUseIsRefusedWithTheReason) {
  Start("127.0.0.1:0");
  const std::string address = absl::StrCat("127.0.0.1:", listener_->port());
  const auto second = Listener::Bind({.address = address});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(second.status().message(), HasSubstr(address));
  EXPECT_THAT(second.status().message(), HasSubstr("in use"));
}

TEST_F(ListenerTest, AnAddressOfAnotherMachineIsRefused) {
  // RFC 5737: addresses of no machine.
  const auto listener = Listener::Bind({.address = "192.0.2.1:0"});
  EXPECT_EQ(listener.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(listener.status().message(), HasSubstr("Cannot assign requested address"));
}

TEST_F(ListenerTest, StopClosesThePort) {
  Start("127.0.0.1:0");
  const int port = listener_->port();
  listener_->Stop();
  EXPECT_LT(ConnectTo(AF_INET, port).get(), 0);
  EXPECT_EQ(errno, ECONNREFUSED);
}

// The limit of this process while in scope.
class FileLimit {
 public:
  explicit FileLimit(rlim_t files) {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit limit{files, before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  ~FileLimit() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(ListenerTest, LeavesDescriptorsToOthersAndTakesConnectionsAgainWhenThereAreSome) {
  constexpr int kLimit = 80;
  const FileLimit limit(kLimit);
  Start("127.0.0.1:0", /*reserved=*/1000);  // so a quarter: 20
  // Both ends of each are of this process.
  std::vector<Descriptor> clients;
  bool refused = false;
  while (!refused) {
    clients.push_back(ConnectTo(AF_INET, listener_->port()));
    ASSERT_GE(clients.back().get(), 0) << "no descriptors left after " << clients.size();
    ASSERT_LT(clients.size(), static_cast<size_t>(kLimit));
    const auto decided = [&] {
      char byte;
      refused = recv(clients.back().get(), &byte, 1, MSG_DONTWAIT) == 0 || errno == ECONNRESET;
      return refused || taken() == clients.size();
    };
    while (!decided()) usleep(1000);
  }
  std::vector<Descriptor> files;
  for (int i = 0; i < 10; ++i) files.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_GE(files.back().get(), 0);
  files.clear();
  DropTaken();
  clients.clear();
  const Descriptor again = ConnectTo(AF_INET, listener_->port());
  AwaitTaken(1);
}

TEST_F(ListenerTest, GoesOnAfterItHadNoDescriptorsAtAll) {
  constexpr rlim_t kLimit = 80;
  const FileLimit limit(kLimit);
  Start("127.0.0.1:0", /*reserved=*/0);
  const Descriptor client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  std::vector<Descriptor> files;
  do {
    files.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
  } while (files.back().get() >= 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(listener_->port()));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  // The kernel takes it, the listener cannot.
  ASSERT_EQ(connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  usleep(20'000);  // for the failure to happen; without it the test checks less, but passes
  EXPECT_EQ(taken(), 0u);
  files.clear();
  AwaitTaken(1);
}

}  // namespace
}  // namespace sluice::api
