// Sizes, ages and times for people, and the durations that people type. Pure functions.
#ifndef SLUICE_CLIENT_CLI_FORMAT_H_
#define SLUICE_CLIENT_CLI_FORMAT_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace sluice::cli {

// "512 B", "1.5 KiB", "3.0 GiB".
std::string HumanBytes(int64_t bytes);
// "1,234,567".
std::string HumanCount(int64_t count);
// "1 message", "2,000 messages": with the noun in its right number.
std::string HumanCount(int64_t count, absl::string_view noun);
// The two largest units: "250ms", "4.2s", "3m20s", "5h12m", "9d4h". Negative ones as "0s".
std::string HumanDuration(absl::Duration duration);

// "250ms", "30s", "5m", "1h30m", "7d", and a bare number of seconds. Not negative, not infinite.
absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text);
// "4096", "64KiB", "10MB", "1G" (KB and K are 1,000; KiB is 1,024).
absl::StatusOr<int64_t> ParseBytes(absl::string_view text);
// "key=value"; the value may be empty and hold further '='.
absl::StatusOr<std::pair<std::string, std::string>> ParseKeyValue(absl::string_view text);
// "100", "100/s", "600/m", "5000/h": per second. Positive.
absl::StatusOr<double> ParseRate(absl::string_view text);
// RFC 3339, for example "2026-03-01T08:30:00Z"; a time without a zone is in UTC.
absl::StatusOr<absl::Time> ParseTime(absl::string_view text);
// "NO_CONSUMER" of "WAIT_REASON_NO_CONSUMER" as "no consumer": the name of an enum value without
// `prefix`, for people. "" for the unspecified value.
std::string EnumWords(absl::string_view name, absl::string_view prefix);
// The enum name of words as EnumWords writes them, or with '-' between them.
std::string EnumName(absl::string_view words, absl::string_view prefix);
// At most `width` characters of one line: what cannot be shown is a dot, what is cut ends in "...".
std::string Preview(absl::string_view bytes, size_t width);

absl::Duration FromProto(const google::protobuf::Duration& duration);
absl::Time FromProto(const google::protobuf::Timestamp& timestamp);
// RFC 3339 in UTC, whole seconds. "-" if unset.
std::string HumanTime(const google::protobuf::Timestamp& timestamp);

// Columns padded to their widest cell; the first row is the heading. Cells of columns whose heading
// starts with '>' are right-aligned.
std::string Table(const std::vector<std::vector<std::string>>& rows);

}  // namespace sluice::cli

#endif  // SLUICE_CLIENT_CLI_FORMAT_H_
