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
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/base/log.h"
#include "server/base/thread_name.h"

namespace sluice::api {
namespace {

constexpr int kReservedShareMax = 4;  // of all descriptors
// How long to wait for descriptors to become free.
constexpr int kRetryMs = 100;
constexpr std::chrono::seconds kWarnPeriod{10};

const in6_addr& V6AddressOf(const addrinfo& address) {
  return reinterpret_cast<const sockaddr_in6*>(address.ai_addr)->sin6_addr;
}

bool IsWildcard(const addrinfo& address) {
  if (address.ai_family == AF_INET) {
    return reinterpret_cast<const sockaddr_in*>(address.ai_addr)->sin_addr.s_addr == INADDR_ANY;
  }
  return IN6_IS_ADDR_UNSPECIFIED(&V6AddressOf(address));
}

// Takes IPv4 as well, or nothing else.
bool IsOfBothFamilies(const addrinfo& v6) {
  return IsWildcard(v6) || IN6_IS_ADDR_V4MAPPED(&V6AddressOf(v6));
}

// A hosts file may name one twice.
bool IsSame(const addrinfo& a, const addrinfo& b) {
  return a.ai_addrlen == b.ai_addrlen && memcmp(a.ai_addr, b.ai_addr, a.ai_addrlen) == 0;
}

// The address of all, by IPv6 if the machine has it, which takes IPv4 as well.
struct Wildcards {
  Wildcards() {
    v6.sin6_family = AF_INET6;
    v4.sin_family = AF_INET;
    for (auto* each : {&all[0], &all[1]}) *each = {};
    all[0].ai_family = AF_INET6;
    all[0].ai_addr = reinterpret_cast<sockaddr*>(&v6);
    all[0].ai_addrlen = sizeof(v6);
    all[1].ai_family = AF_INET;
    all[1].ai_addr = reinterpret_cast<sockaddr*>(&v4);
    all[1].ai_addrlen = sizeof(v4);
  }
  sockaddr_in6 v6{};
  sockaddr_in v4{};
  addrinfo all[2];
};

// accept(2): what has happened to the connection, not to us.
bool IsOfOneConnection(int error) {
  switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
      return true;
    default:
      return false;
  }
}

bool SetOption(int socket, int level, int option, int value) {
  return setsockopt(socket, level, option, &value, sizeof(value)) == 0;
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
  Wildcards wildcards;
  std::vector<const addrinfo*> wanted;
  if (IsWildcard(*found)) {
    wanted = {&wildcards.all[0], &wildcards.all[1]};
  } else {
    for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
      const bool known = std::any_of(wanted.begin(), wanted.end(),
                                     [&](const addrinfo* other) { return IsSame(*address, *other); });
      if (!known) wanted.push_back(address);
    }
  }
  for (const addrinfo* address : wanted) {
    const int error = BindOne(*address);
    if (error == 0 && IsWildcard(*address)) break;  // has all
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
      !SetOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, IsOfBothFamilies(address) ? 0 : 1)) {
    return errno;
  }
  // Connections inherit these.
  if (!SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1)) return errno;
  const int silence_ms = static_cast<int>(
      std::min<int64_t>(options_.silence_ms_max, std::numeric_limits<int>::max()));
  if (silence_ms > 0 && !SetOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, silence_ms)) return errno;
  sockaddr_storage with_port{};
  memcpy(&with_port, address.ai_addr, address.ai_addrlen);
  // At the same place in both families.
  reinterpret_cast<sockaddr_in*>(&with_port)->sin_port = htons(static_cast<uint16_t>(port_));
  if (bind(fd, reinterpret_cast<sockaddr*>(&with_port), address.ai_addrlen) != 0) return errno;
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
    if (poll(polled.data(), polled.size(), -1) < 0) {
      if (errno != EINTR) absl::SleepFor(absl::Milliseconds(kRetryMs));  // ENOMEM
      continue;
    }
    if (polled[0].revents != 0) return;
    bool goes_on = true;
    for (const pollfd& one : polled) {
      if (one.fd != stop_.get() && one.revents != 0) goes_on &= Accept(one.fd);
    }
    if (!goes_on) poll(polled.data(), 1, kRetryMs);
  }
}

bool Listener::Accept(int socket) {
  while (true) {
    Descriptor connection(accept4(socket, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (connection.get() >= 0) {
      // The kernel gives the lowest number that is free: no more than the reserve are left.
      if (connection.get() >= fd_end_) {
        WarnOfNoMore("the file descriptors left are kept for the store");
        return false;
      }
      take_(std::move(connection));
      continue;
    }
    const int error = errno;
    if (error == EAGAIN) return true;
    if (IsOfOneConnection(error)) continue;
    WarnOfNoMore(strerror(error));
    return false;
  }
}

void Listener::WarnOfNoMore(const char* why) {
  const int64_t now_ns = std::chrono::steady_clock::now().time_since_epoch().count();
  if (warned_ns_ != 0 && now_ns - warned_ns_ < std::chrono::nanoseconds(kWarnPeriod).count()) return;
  warned_ns_ = now_ns;
  Log(LogLevel::kWarning, "new connections have to wait",
      {{"why", why}, {"descriptors_for_connections", fd_end_}});
}

}  // namespace sluice::api
