// Checks of request fields that several calls share. Errors name the field.
#ifndef SLUICE_SERVER_API_FIELD_CHECKS_H_
#define SLUICE_SERVER_API_FIELD_CHECKS_H_

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice::api {

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
// A lease: 0 (the queue's) if not set.
absl::StatusOr<int64_t> LeaseMs(bool set, const google::protobuf::Duration& lease,
                                std::string_view field = "lease");

// 0 is the default, negative is refused, above the ceiling is the ceiling.
absl::StatusOr<int64_t> CountOr(std::string_view field, int64_t value, int64_t value_default,
                                int64_t ceiling);

void SetDuration(int64_t ms, google::protobuf::Duration* out);
void SetTimestamp(int64_t ms, google::protobuf::Timestamp* out);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_FIELD_CHECKS_H_
