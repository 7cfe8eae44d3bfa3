#include "client/cli/format.h"

#include <algorithm>
#include <array>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace sluice::cli {
namespace {

struct ByteUnit {
  absl::string_view name;
  double bytes;
};
// Longer names first: "KiB" ends in "B".
constexpr std::array<ByteUnit, 13> kByteUnits = {{{"KiB", 1024.0},
                                                  {"MiB", 1024.0 * 1024},
                                                  {"GiB", 1024.0 * 1024 * 1024},
                                                  {"TiB", 1024.0 * 1024 * 1024 * 1024},
                                                  {"KB", 1e3},
                                                  {"MB", 1e6},
                                                  {"GB", 1e9},
                                                  {"TB", 1e12},
                                                  {"K", 1e3},
                                                  {"M", 1e6},
                                                  {"G", 1e9},
                                                  {"T", 1e12},
                                                  {"B", 1}}};

constexpr absl::string_view kBlank = "  ";

}  // namespace

std::string HumanBytes(int64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  // 1023.95 would print as 1024.0.
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string HumanCount(int64_t count) {
  std::string digits = absl::StrCat(count);
  const int first = count < 0 ? 1 : 0;
  for (int at = static_cast<int>(digits.size()) - 3; at > first; at -= 3) {
    digits.insert(static_cast<size_t>(at), 1, ',');
  }
  return digits;
}

std::string HumanCount(int64_t count, absl::string_view noun) {
  return absl::StrCat(HumanCount(count), " ", noun, count == 1 ? "" : "s");
}

std::string HumanDuration(absl::Duration duration) {
  if (duration <= absl::ZeroDuration()) return "0s";
  if (duration < absl::Seconds(1)) {
    return absl::StrCat(std::max<int64_t>(1, absl::ToInt64Milliseconds(duration)), "ms");
  }
  if (duration < absl::Seconds(10)) {
    const int64_t tenths = duration / absl::Milliseconds(100);
    return tenths % 10 == 0 ? absl::StrCat(tenths / 10, "s")
                            : absl::StrFormat("%d.%ds", tenths / 10, tenths % 10);
  }
  const int64_t seconds = absl::ToInt64Seconds(duration);
  const auto two = [](int64_t large, const char* unit, int64_t small, const char* small_unit) {
    return small == 0 ? absl::StrCat(large, unit) : absl::StrCat(large, unit, small, small_unit);
  };
  if (seconds < 60) return absl::StrCat(seconds, "s");
  if (seconds < 3600) return two(seconds / 60, "m", seconds % 60, "s");
  if (seconds < 86400) return two(seconds / 3600, "h", seconds % 3600 / 60, "m");
  return two(seconds / 86400, "d", seconds % 86400 / 3600, "h");
}

absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text) {
  const auto bad = [&] {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", text, "' is not a duration; write for example 250ms, 30s, 5m, 1h30m or 7d"));
  };
  // absl knows no days, and takes a bare number only if it is zero.
  std::string rest(text);
  absl::Duration days;
  double number = 0;
  if (const size_t d = rest.find('d'); d != std::string::npos) {
    if (!absl::SimpleAtod(rest.substr(0, d), &number)) return bad();
    days = absl::Hours(24) * number;
    rest = d + 1 < rest.size() ? rest.substr(d + 1) : "0";
  } else if (absl::SimpleAtod(rest, &number)) {
    rest += "s";
  }
  absl::Duration parsed;
  if (!absl::ParseDuration(rest, &parsed)) return bad();
  const absl::Duration total = days + parsed;
  if (total < absl::ZeroDuration() || total == absl::InfiniteDuration()) return bad();
  return total;
}

absl::StatusOr<int64_t> ParseBytes(absl::string_view text) {
  double factor = 1;
  absl::string_view number = text;
  for (const ByteUnit& unit : kByteUnits) {
    if (absl::EndsWithIgnoreCase(text, unit.name)) {
      factor = unit.bytes;
      number.remove_suffix(unit.name.size());
      break;
    }
  }
  double value = 0;
  const bool ok = absl::SimpleAtod(absl::StripAsciiWhitespace(number), &value) && value >= 0 &&
                  value * factor < static_cast<double>(std::numeric_limits<int64_t>::max());
  if (!ok) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not a size; write for example 4096, 64KiB or 10MB"));
  }
  return static_cast<int64_t>(value * factor);
}

absl::StatusOr<std::pair<std::string, std::string>> ParseKeyValue(absl::string_view text) {
  const size_t equals = text.find('=');
  if (equals == absl::string_view::npos || equals == 0) {
    return absl::InvalidArgumentError(absl::StrCat("'", text, "' is not key=value"));
  }
  return std::pair(std::string(text.substr(0, equals)), std::string(text.substr(equals + 1)));
}

absl::StatusOr<double> ParseRate(absl::string_view text) {
  const auto bad = [&] {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not a rate; write for example 100, 100/s, 600/m or 5000/h"));
  };
  absl::string_view number = text;
  double seconds = 1;
  if (const size_t slash = text.find('/'); slash != absl::string_view::npos) {
    number = text.substr(0, slash);
    const absl::string_view unit = text.substr(slash + 1);
    if (unit == "m") seconds = 60;
    else if (unit == "h") seconds = 3600;
    else if (unit != "s") return bad();
  }
  double count = 0;
  if (!absl::SimpleAtod(number, &count) || !(count > 0) || count > 1e12) return bad();
  return count / seconds;
}

absl::StatusOr<absl::Time> ParseTime(absl::string_view text) {
  absl::Time time;
  std::string error;
  for (const absl::string_view format : {absl::string_view(absl::RFC3339_full),
                                         absl::string_view("%Y-%m-%d%ET%H:%M:%E*S"),
                                         absl::string_view("%Y-%m-%d%ET%H:%M")}) {
    if (absl::ParseTime(format, text, &time, &error) && time != absl::InfiniteFuture() &&
        time != absl::InfinitePast()) {
      return time;
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is not a time; write for example 2026-03-01T08:30:00Z"));
}

std::string EnumWords(absl::string_view name, absl::string_view prefix) {
  if (!absl::ConsumePrefix(&name, prefix) || name == "UNSPECIFIED") return "";
  return absl::AsciiStrToLower(absl::StrReplaceAll(name, {{"_", " "}}));
}

std::string EnumName(absl::string_view words, absl::string_view prefix) {
  return absl::StrCat(prefix,
                      absl::AsciiStrToUpper(absl::StrReplaceAll(words, {{" ", "_"}, {"-", "_"}})));
}

std::string Preview(absl::string_view bytes, size_t width) {
  constexpr absl::string_view kMore = "...";
  std::string text(bytes.substr(0, width));
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return !absl::ascii_isprint(c); }, '.');
  if (bytes.size() > width && width > kMore.size()) {
    text.replace(width - kMore.size(), kMore.size(), kMore.data(), kMore.size());
  }
  return text;
}

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

absl::Time FromProto(const google::protobuf::Timestamp& timestamp) {
  return absl::FromUnixSeconds(timestamp.seconds()) + absl::Nanoseconds(timestamp.nanos());
}

std::string HumanTime(const google::protobuf::Timestamp& timestamp) {
  if (timestamp.seconds() == 0 && timestamp.nanos() == 0) return "-";
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", FromProto(timestamp), absl::UTCTimeZone());
}

std::string Table(const std::vector<std::vector<std::string>>& rows) {
  if (rows.empty()) return "";
  std::vector<size_t> widths(rows[0].size());
  std::vector<bool> right(rows[0].size());
  for (size_t c = 0; c < widths.size(); ++c) right[c] = absl::StartsWith(rows[0][c], ">");
  const auto cell = [&](size_t r, size_t c) {
    absl::string_view text = rows[r][c];
    if (r == 0 && right[c]) text.remove_prefix(1);
    return text;
  };
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t c = 0; c < widths.size(); ++c) widths[c] = std::max(widths[c], cell(r, c).size());
  }
  std::string out;
  for (size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    for (size_t c = 0; c < widths.size(); ++c) {
      const absl::string_view text = cell(r, c);
      const std::string pad(widths[c] - text.size(), ' ');
      if (c > 0) absl::StrAppend(&line, kBlank);
      if (right[c]) absl::StrAppend(&line, pad, text);
      if (!right[c]) absl::StrAppend(&line, text, pad);
    }
    absl::StrAppend(&out, absl::StripTrailingAsciiWhitespace(line), "\n");
  }
  return out;
}

}  // namespace sluice::cli
