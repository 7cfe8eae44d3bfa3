#include "server/api/field_checks.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/base/strings.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

constexpr std::string_view kServerPrefix = "sluice.";
// google.protobuf.Timestamp: the years 1 to 9999.
constexpr int64_t kTimestampSecondsMin = -62'135'596'800;
constexpr int64_t kTimestampSecondsMax = 253'402'300'799;
// google.protobuf.Duration: about 10,000 years either way.
constexpr int64_t kDurationSecondsMax = 315'576'000'000;
constexpr int32_t kNanosPerMs = 1'000'000;
constexpr int32_t kNanosPerSecond = 1'000'000'000;

bool IsNameCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
}

}  // namespace

std::string PathTo(std::string_view path, std::string_view field) {
  return path.empty() ? std::string(field) : absl::StrCat(ToAbsl(path), ".", ToAbsl(field));
}

absl::Status CheckName(std::string_view field, std::string_view name) {
  if (name.empty()) return MakeFieldError(field, "must be set");
  if (name.size() > kNameBytesMax) {
    return MakeFieldError(field, absl::StrCat("longer than ", kNameBytesMax, " characters"));
  }
  if (!std::all_of(name.begin(), name.end(), IsNameCharacter)) {
    return MakeFieldError(field, "may only hold letters, digits, '.', '_' and '-'");
  }
  return absl::OkStatus();
}

absl::Status CheckNewName(std::string_view field, std::string_view name) {
  if (auto status = CheckName(field, name); !status.ok()) return status;
  if (name.substr(0, kServerPrefix.size()) == kServerPrefix) {
    return MakeFieldError(field, "names that start with 'sluice.' are the server's");
  }
  return absl::OkStatus();
}

absl::Status CheckShortString(std::string_view field, std::string_view text) {
  if (text.size() <= kShortStringBytesMax) return absl::OkStatus();
  return MakeFieldError(field, absl::StrCat("longer than ", kShortStringBytesMax, " bytes"));
}

absl::StatusOr<int64_t> ToMs(std::string_view field, const google::protobuf::Duration& duration,
                             int64_t ms_min, int64_t ms_max) {
  const int64_t seconds = duration.seconds();
  const int32_t nanos = duration.nanos();
  const bool signs_differ = (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0);
  if (seconds > kDurationSecondsMax || seconds < -kDurationSecondsMax ||
      nanos >= kNanosPerSecond || nanos <= -kNanosPerSecond || signs_differ) {
    return MakeFieldError(field, "not a valid duration");
  }
  if (seconds < 0 || nanos < 0) return MakeFieldError(field, "must not be negative");
  const int64_t ms = seconds * kSecondMs + (nanos + kNanosPerMs - 1) / kNanosPerMs;
  // Rounded up, so that no wait is shorter than asked for; the lower limit is exact.
  const bool too_short = seconds * kSecondMs + nanos / kNanosPerMs < ms_min;
  if (too_short || ms > ms_max) {
    return MakeFieldError(field, absl::StrCat("must be ", ms_min, " to ", ms_max, " ms"));
  }
  return ms;
}

absl::StatusOr<int64_t> ToMsOrOff(std::string_view field,
                                  const google::protobuf::Duration& duration, int64_t ms_min,
                                  int64_t ms_max) {
  if (duration.seconds() == 0 && duration.nanos() == 0) return 0;
  return ToMs(field, duration, ms_min, ms_max);
}

absl::StatusOr<int64_t> ToEngineMs(std::string_view field,
                                   const google::protobuf::Timestamp& time, int64_t ms_max) {
  if (time.seconds() < kTimestampSecondsMin || time.seconds() > kTimestampSecondsMax ||
      time.nanos() < 0 || time.nanos() >= kNanosPerSecond) {
    return MakeFieldError(field, "not a valid timestamp");
  }
  const int64_t ms = time.seconds() * kSecondMs + (time.nanos() + kNanosPerMs - 1) / kNanosPerMs;
  if (ms > ms_max) return MakeFieldError(field, "too far ahead");
  return std::max<int64_t>(ms, 0);
}

absl::StatusOr<int64_t> LeaseMs(bool set, const google::protobuf::Duration& lease,
                                std::string_view field) {
  if (!set) return 0;
  return ToMs(field, lease, kLeaseMsMin, kLeaseMsMax);
}

absl::StatusOr<int64_t> CountOr(std::string_view field, int64_t value, int64_t value_default,
                                int64_t ceiling) {
  if (value < 0) return MakeFieldError(field, "must not be negative");
  return value == 0 ? value_default : std::min(value, ceiling);
}

absl::StatusOr<RateLimit> ToRateLimit(std::string_view path, const v1::RateLimit& rate) {
  const double per_second = rate.per_second();
  // Also false for what is not a number.
  if (!(per_second >= kRatePerSecondMin && per_second <= kRatePerSecondMax)) {
    return MakeFieldError(
        PathTo(path, "per_second"),
        absl::StrCat("must be ", kRatePerSecondMin, " to ", kRatePerSecondMax));
  }
  if (rate.burst() < 0 || rate.burst() > kRateBurstMax) {
    return MakeFieldError(PathTo(path, "burst"),
                          absl::StrCat("must be 0 to ", kRateBurstMax));
  }
  if (rate.burst() > 0) return RateLimit{per_second, rate.burst()};
  const double of_a_second = std::clamp<double>(std::floor(per_second), 1, kRateBurstMax);
  return RateLimit{per_second, static_cast<int32_t>(of_a_second)};
}

void SetDuration(int64_t ms, google::protobuf::Duration* out) {
  out->set_seconds(ms / kSecondMs);
  out->set_nanos(static_cast<int32_t>(ms % kSecondMs) * kNanosPerMs);
}

void SetTimestamp(int64_t ms, google::protobuf::Timestamp* out) {
  out->set_seconds(ms / kSecondMs);
  out->set_nanos(static_cast<int32_t>(ms % kSecondMs) * kNanosPerMs);
}

}  // namespace sluice::api
