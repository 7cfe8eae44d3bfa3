// Checks of request fields that several calls share. Errors name the field.
#ifndef SLUICE_SERVER_API_FIELD_CHECKS_H_
#define SLUICE_SERVER_API_FIELD_CHECKS_H_

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/queue_config.h"
#include "sluice/v1/queue.pb.h"

namespace sluice::api {

// The path of `field` in what stands at `path`; an empty path is the request itself.
std::string PathTo(std::string_view path, std::string_view field);

// A name that something may have: set, [A-Za-z0-9._-], at most 255 characters.
absl::Status CheckName(std::string_view field, std::string_view name);
// A name that a client may give: not one of the server's own.
absl::Status CheckNewName(std::string_view field, std::string_view name);
// At most 255 bytes.
absl::Status CheckShortString(std::string_view field, std::string_view text);

// Milliseconds, rounded up: nothing comes earlier than asked for. Refuses what is not a valid
// duration, and what lies outside of [ms_min, ms_max].
absl::StatusOr<int64_t> ToMs(std::string_view field, const google::protobuf::Duration& duration,
                             int64_t ms_min, int64_t ms_max);
// Milliseconds of engine time, rounded up: a message is never early. What lies before 1970 is 0.
// Refuses what is not a valid timestamp, and what lies beyond `ms_max`.
absl::StatusOr<int64_t> ToEngineMs(std::string_view field,
                                   const google::protobuf::Timestamp& time, int64_t ms_max);
// 0 or, as ToMs, from ms_min to ms_max: for settings that 0 turns off.
absl::StatusOr<int64_t> ToMsOrOff(std::string_view field,
                                  const google::protobuf::Duration& duration, int64_t ms_min,
                                  int64_t ms_max);
// A lease: 0 (the queue's) if not set.
absl::StatusOr<int64_t> LeaseMs(bool set, const google::protobuf::Duration& lease,
                                std::string_view field = "lease");

// 0 is the default, negative is refused, above the ceiling is the ceiling.
absl::StatusOr<int64_t> CountOr(std::string_view field, int64_t value, int64_t value_default,
                                int64_t ceiling);

// A pace: positive, finite and within its bounds. A burst of 0 becomes what one second allows, at
// least 1.
absl::StatusOr<RateLimit> ToRateLimit(std::string_view path, const v1::RateLimit& rate);

void SetDuration(int64_t ms, google::protobuf::Duration* out);
void SetTimestamp(int64_t ms, google::protobuf::Timestamp* out);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_FIELD_CHECKS_H_
