#include "client/cli/server_address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <optional>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace sluice::cli {
namespace {

constexpr int kPortMax = 65535;

bool IsPort(absl::string_view text) {
  int port = 0;
  return std::all_of(text.begin(), text.end(), absl::ascii_isdigit) &&
         absl::SimpleAtoi(text, &port) && port >= 1 && port <= kPortMax;
}

bool IsHostName(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isgraph(static_cast<unsigned char>(c)) && c != '/' && c != ',';
  });
}

bool IsIp(int family, absl::string_view text) {
  const std::string host(text.substr(0, text.find('%')));  // without the zone
  in6_addr address;  // the larger of the two
  return inet_pton(family, host.c_str(), &address) == 1;
}

// The host of host:port or [host]:port with a right port.
std::optional<absl::string_view> HostOf(absl::string_view text, bool* bracketed) {
  *bracketed = absl::ConsumePrefix(&text, "[");
  const absl::string_view separator = *bracketed ? "]:" : ":";
  const size_t end = text.find(separator);
  if (end == text.npos || !IsPort(text.substr(end + separator.size()))) return std::nullopt;
  return text.substr(0, end);
}

bool IsIpAndPort(int family, absl::string_view text) {
  bool bracketed = false;
  const auto host = HostOf(text, &bracketed);
  return host && bracketed == (family == AF_INET6) && IsIp(family, *host);
}

bool IsHostAndPort(absl::string_view text) {
  bool bracketed = false;
  const auto host = HostOf(text, &bracketed);
  return host && (bracketed ? IsIp(AF_INET6, *host) : IsHostName(*host));
}

bool IsListOfIps(int family, absl::string_view text) {
  for (const absl::string_view each : absl::StrSplit(text, ',')) {
    if (!IsIpAndPort(family, each)) return false;
  }
  return true;
}

bool IsAddress(absl::string_view text) {
  if (absl::ConsumePrefix(&text, "ipv4:")) return IsListOfIps(AF_INET, text);
  if (absl::ConsumePrefix(&text, "ipv6:")) return IsListOfIps(AF_INET6, text);
  if (absl::ConsumePrefix(&text, "unix:") || absl::ConsumePrefix(&text, "unix-abstract:")) {
    return !text.empty();
  }
  // dns:host or dns://resolver/host, where gRPC knows a port to take if there is none.
  if (absl::ConsumePrefix(&text, "dns:")) {
    return IsHostName(text.substr(text.rfind('/') + 1));
  }
  return IsHostAndPort(text);
}

}  // namespace

absl::Status CheckServerAddress(absl::string_view address) {
  if (IsAddress(address)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("'", address,
                                                 "' is no address of a server; it must be "
                                                 "host:port, for example 127.0.0.1:7070 or "
                                                 "[::1]:7070"));
}

}  // namespace sluice::cli
