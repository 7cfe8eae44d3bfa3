#include "server/config/settings.h"

#include <arpa/inet.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/base/strings.h"

namespace sluice::config {
namespace {

absl::Status CheckBind(std::string_view setting, const Address& address, bool insecure) {
  if (insecure || address.IsLoopback()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      ToAbsl(setting), ": ", address.ToString(),
      " is reachable from outside this machine, and there is no TLS or authentication yet; use a "
      "loopback address, or --insecure where the network itself keeps strangers out"));
}

}  // namespace

std::string Address::ToString() const {
  return host.find(':') == std::string::npos ? absl::StrCat(host, ":", port)
                                             : absl::StrCat("[", host, "]:", port);
}

bool Address::IsLoopback() const {
  if (host == "localhost") return true;
  in_addr v4;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6;
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

absl::StatusOr<Address> ParseAddress(std::string_view text) {
  const auto refuse = [&] {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", ToAbsl(text), "' is not an address; write host:port, for example 127.0.0.1:7070"));
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return refuse();
  std::string_view host = text.substr(0, colon);
  if (host.front() == '[') {
    if (host.size() < 3 || host.back() != ']') return refuse();
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return refuse();
  }
  uint32_t port = 0;
  if (!absl::SimpleAtoi(ToAbsl(text.substr(colon + 1)), &port) || port > UINT16_MAX) return refuse();
  return Address{std::string(host), static_cast<uint16_t>(port)};
}

int32_t GrpcThreads(const Settings& settings, uint32_t cores) {
  constexpr uint32_t kCoresPerThread = 4;
  if (settings.grpc_threads > 0) return settings.grpc_threads;
  return std::clamp(static_cast<int32_t>(cores / kCoresPerThread), 1, kGrpcThreadsMax);
}

absl::Status Validate(const Settings& settings) {
  if (settings.http_listen.host.find(':') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("http-listen: ", settings.http_listen.ToString(),
                     ": the pages are served over IPv4 only; write for example 127.0.0.1:7071"));
  }
  if (absl::Status s = CheckBind("listen", settings.listen, settings.insecure); !s.ok()) return s;
  if (absl::Status s = CheckBind("http-listen", settings.http_listen, settings.insecure); !s.ok()) {
    return s;
  }
  if (settings.listen.port != 0 && settings.listen == settings.http_listen) {
    return absl::InvalidArgumentError("http-listen: is the same address as listen");
  }
  if (settings.data_dir.empty()) return absl::InvalidArgumentError("data-dir: is empty");
  if (settings.shards != 1) {
    return absl::UnimplementedError("shards: only 1 is built; more will come with a later version");
  }
  if (settings.auto_create_queues) {
    return absl::UnimplementedError(
        "auto-create-queues: is not built yet; create queues with `sluice queue create NAME`");
  }
  return absl::OkStatus();
}

}  // namespace sluice::config
