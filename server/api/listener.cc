#include "server/api/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <chrono>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/base/log.h"
#include "server/base/thread_name.h"

namespace sluice::api {
namespace {

constexpr int kReservedShareMax = 4;  // of all descriptors
// How long to wait for descriptors to become free.
constexpr int kRetryMs = 100;
constexpr std::chrono::seconds kWarnPeriod{10};

bool IsWildcard(const addrinfo& address) {
  if (address.ai_family == AF_INET) {
    return reinterpret_cast<const sockaddr_in*>(address.ai_addr)->sin_addr.s_addr == INADDR_ANY;
  }
  return IN6_IS_ADDR_UNSPECIFIED(
      &reinterpret_cast<const sockaddr_in6*>(address.ai_addr)->sin6_addr);
}

bool SetOption(int socket, int level, int option, int value) {
  return setsockopt(socket, level, option, &value, sizeof(value)) == 0;
}

void SetPort(addrinfo& address, int port) {
  // At the same place in both families.
  reinterpret_cast<sockaddr_in*>(address.ai_addr)->sin_port = htons(static_cast<uint16_t>(port));
}

int PortOf(int socket) {
  sockaddr_storage address{};
  socklen_t bytes = sizeof(address);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &bytes) != 0) return 0;
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
}

absl::Status CannotListen(const std::string& address, const char* why) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", why));
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) close(fd_);
    fd_ = other.Release();
  }
  return *this;
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) close(fd_);
}

int Descriptor::Release() { return std::exchange(fd_, -1); }

absl::StatusOr<std::unique_ptr<Listener>> Listener::Bind(const Options& options) {
  std::unique_ptr<Listener> listener(new Listener(options));
  if (auto status = listener->BindAll(); !status.ok()) return status;
  return listener;
}

absl::Status Listener::BindAll() {
  const size_t colon = options_.address.rfind(':');
  std::string host = options_.address.substr(0, colon);
  if (!host.empty() && host.front() == '[') host = host.substr(1, host.size() - 2);
  int port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(options_.address.substr(colon + 1), &port)) {
    return CannotListen(options_.address, "it is no host:port");
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
    return CannotListen(options_.address, gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  port_ = port;
  int last_error = 0;
  if (IsWildcard(*found)) {
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    addrinfo both{};
    both.ai_family = AF_INET6;
    both.ai_addr = reinterpret_cast<sockaddr*>(&any);
    both.ai_addrlen = sizeof(any);
    last_error = BindOne(both);
    if (last_error == 0) found = nullptr;  // done
  }
  for (addrinfo* address = found; address != nullptr; address = address->ai_next) {
    const int error = BindOne(*address);
    if (error == 0) continue;
    last_error = error;
    // A name may stand for addresses that this machine lacks, such as ::1; one that is in use is
    // another matter, clients could reach whoever uses it.
    if (error == EADDRINUSE || error == EACCES) return CannotListen(options_.address, strerror(error));
  }
  if (sockets_.empty()) return CannotListen(options_.address, strerror(last_error));
  stop_ = Descriptor(eventfd(0, EFD_CLOEXEC));
  if (stop_.get() < 0) return CannotListen(options_.address, strerror(errno));
  return absl::OkStatus();
}

int Listener::BindOne(const addrinfo& address) {
  Descriptor socket(
      ::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  const int fd = socket.get();
  if (fd < 0) return errno;
  // A port whose last server's connections linger may be had; one that is listened on may not.
  if (!SetOption(fd, SOL_SOCKET, SO_REUSEADDR, 1)) return errno;
  if (address.ai_family == AF_INET6 &&
      !SetOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, IsWildcard(address) ? 0 : 1)) {
    return errno;
  }
  // Connections inherit these.
  if (!SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1)) return errno;
  const int silence_ms = static_cast<int>(
      std::min<int64_t>(options_.silence_ms_max, std::numeric_limits<int>::max()));
  if (silence_ms > 0 && !SetOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, silence_ms)) return errno;
  addrinfo with_port = address;
  SetPort(with_port, port_);
  if (bind(fd, with_port.ai_addr, with_port.ai_addrlen) != 0) return errno;
  if (listen(fd, SOMAXCONN) != 0) return errno;
  port_ = PortOf(fd);  // the next address gets the same
  sockets_.push_back(std::move(socket));
  return 0;
}

void Listener::Start(std::function<void(Descriptor)> take) {
  take_ = std::move(take);
  rlimit limit{};
  fd_end_ = std::numeric_limits<int>::max();
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < static_cast<rlim_t>(fd_end_)) {
    const int all = static_cast<int>(limit.rlim_cur);
    fd_end_ = all - std::min(options_.reserved, all / kReservedShareMax);
  }
  thread_ = std::thread([this] { Run(); });
}

void Listener::Stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    static_cast<void>(!write(stop_.get(), &one, sizeof(one)));  // cannot fail on a new eventfd
    thread_.join();
  }
  sockets_.clear();
}

void Listener::Run() {
  NameThread("listener");
  std::vector<pollfd> polled{{stop_.get(), POLLIN, 0}};
  for (const Descriptor& socket : sockets_) polled.push_back({socket.get(), POLLIN, 0});
  while (true) {
    if (poll(polled.data(), polled.size(), -1) < 0) continue;  // EINTR
    if (polled[0].revents != 0) return;
    bool has_descriptors = true;
    for (const pollfd& one : polled) {
      if (one.fd != stop_.get() && one.revents != 0) has_descriptors &= Accept(one.fd);
    }
    if (!has_descriptors) poll(polled.data(), 1, kRetryMs);
  }
}

bool Listener::Accept(int socket) {
  while (true) {
    Descriptor connection(accept4(socket, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (connection.get() >= 0) {
      // The kernel gives the lowest number that is free: no more than the reserve are left.
      if (connection.get() >= fd_end_) {
        WarnOfFewDescriptors();
        return false;
      }
      take_(std::move(connection));
      continue;
    }
    switch (errno) {
      case EAGAIN:
        return true;
      case EMFILE:
      case ENFILE:
      case ENOBUFS:
      case ENOMEM:
        WarnOfFewDescriptors();
        return false;
      default:
        break;  // that connection has gone already
    }
  }
}

void Listener::WarnOfFewDescriptors() {
  const int64_t now_ns = std::chrono::steady_clock::now().time_since_epoch().count();
  if (warned_ns_ != 0 && now_ns - warned_ns_ < std::chrono::nanoseconds(kWarnPeriod).count()) return;
  warned_ns_ = now_ns;
  Log(LogLevel::kWarning, "connection refused: few file descriptors left",
      {{"for_connections", fd_end_}});
}

}  // namespace sluice::api
