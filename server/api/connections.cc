#include "server/api/connections.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice::api {
namespace {

// As gRPC writes it: "ipv4:127.0.0.1:4711", "ipv6:%5B::1%5D:4711". Empty if it has gone already.
std::string PeerOf(int fd) {
  sockaddr_storage address{};
  socklen_t bytes = sizeof(address);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &bytes) != 0) return {};
  char text[INET6_ADDRSTRLEN];
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
    return absl::StrCat("ipv4:", text, ":", ntohs(v4.sin_port));
  }
  if (address.ss_family != AF_INET6) return {};
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
    inet_ntop(AF_INET, &v6.sin6_addr.s6_addr[12], text, sizeof(text));
    return absl::StrCat("ipv4:", text, ":", ntohs(v6.sin6_port));
  }
  inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
  return absl::StrCat("ipv6:%5B", text, "%5D:", ntohs(v6.sin6_port));
}

}  // namespace

bool Connections::Add(int fd) {
  std::string peer = PeerOf(fd);
  if (peer.empty()) return false;
  absl::MutexLock lock(&mutex_);
  const auto place = static_cast<size_t>(fd);
  if (place >= peers_.size()) peers_.resize(place + 1);
  // Whose descriptor this was has gone, but may be back with another.
  const auto old = fds_.find(peers_[place]);
  if (old != fds_.end() && old->second == fd) fds_.erase(old);
  fds_[peer] = fd;
  peers_[place] = std::move(peer);
  return true;
}

int Connections::Find(const std::string& peer) const {
  absl::MutexLock lock(&mutex_);
  const auto it = fds_.find(peer);
  return it == fds_.end() ? -1 : it->second;
}

}  // namespace sluice::api
