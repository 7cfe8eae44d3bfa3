// What an operator can set: every setting with its default and bounds.
#ifndef SLUICE_SERVER_CONFIG_SETTINGS_H_
#define SLUICE_SERVER_CONFIG_SETTINGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/log.h"
#include "server/model/limits.h"

namespace sluice::config {

// Where to listen. Port 0: any free one.
struct Address {
  std::string host;  // without the brackets of an IPv6 address
  uint16_t port = 0;

  // "127.0.0.1:7070", "[::1]:7070"
  std::string ToString() const;
  // True for 127.0.0.0/8, ::1 and "localhost"; any other name could resolve to anything.
  bool IsLoopback() const;

  friend bool operator==(const Address&, const Address&) = default;
};
// INVALID_ARGUMENT unless it is host:port.
absl::StatusOr<Address> ParseAddress(std::string_view text);

inline constexpr uint64_t kWindowBytesMin = 1 * kMiB;
inline constexpr uint64_t kWindowBytesCeiling = 64 * 1024 * kMiB;
inline constexpr int64_t kBodyBytesMaxMin = 1 * kKiB;
inline constexpr uint64_t kDiskReserveMin = 16 * kMiB;  // less may be gone between two looks
inline constexpr uint64_t kDiskReserveCeiling = 1024 * 1024 * kMiB;
inline constexpr uint64_t kInFlightBytesMin = 2 * kRequestBytesMax;  // one request read, one decided
inline constexpr uint64_t kInFlightBytesCeiling = 64 * 1024 * kMiB;
// Below a minute, reconnecting would cost more than spreading clients brings.
inline constexpr int64_t kConnectionAgeMsMin = 1 * kMinuteMs;
inline constexpr int64_t kConnectionAgeMsMax = 30 * kDayMs;
// Streams end a tenth before the grace does: less than this leaves no time to say why.
inline constexpr int64_t kConnectionGraceMsMin = 1 * kSecondMs;
inline constexpr int32_t kGrpcThreadsMax = 64;

struct Settings {
  Address listen{"127.0.0.1", 7070};
  Address http_listen{"127.0.0.1", 7071};
  std::string data_dir = "./sluice-data";
  bool insecure = false;
  bool accept_clock = false;
  uint32_t shards = 1;
  bool auto_create_queues = false;
  std::string definitions;  // file of queues, exchanges and bindings to apply at start; empty: none

  int64_t body_bytes_max = kBodyBytesMaxDefault;
  uint64_t window_bytes_max = 64 * kMiB;
  uint64_t in_flight_bytes_max = 256 * kMiB;
  std::optional<uint64_t> disk_reserve_bytes;  // unset: what the store needs
  int64_t connection_age_ms_max = kHourMs;  // 0: none
  int64_t connection_age_grace_ms = kHourMs;
  int32_t grpc_threads = 0;  // 0: see GrpcThreads

  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;
};

// The setting, or what suits a machine of so many cores: a quarter of them, at least one. The rest
// is for the engine, the log, flushes and compactions; on two cores one thread measured faster than
// two.
int32_t GrpcThreads(const Settings& settings, uint32_t cores);

// Rules between settings, and features that are not built. INVALID_ARGUMENT or UNIMPLEMENTED,
// naming the setting.
absl::Status Validate(const Settings& settings);

}  // namespace sluice::config

#endif  // SLUICE_SERVER_CONFIG_SETTINGS_H_
