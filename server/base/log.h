// Structured logs: one line per event, a short fixed sentence and named fields, as key=value or
// JSON. Never put message bodies, attributes, receipts or credentials into a field.
//
//   Log(LogLevel::kInfo, "serving", {{"grpc", address}, {"queues", count}});
//
// Thread-safe. Not for the hot path: each line is formatted and written by the caller.
#ifndef SLUICE_SERVER_BASE_LOG_H_
#define SLUICE_SERVER_BASE_LOG_H_

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

namespace sluice {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };
enum class LogFormat : uint8_t { kText, kJson };

std::optional<LogLevel> ParseLogLevel(std::string_view name);    // debug info warning error
std::optional<LogFormat> ParseLogFormat(std::string_view name);  // text json

// One named value. Holds views: lives only as long as the call it is made for.
class LogField {
 public:
  LogField(std::string_view name, std::string_view value) : name_(name), text_(value) {}
  LogField(std::string_view name, const std::string& value) : name_(name), text_(value) {}
  LogField(std::string_view name, const char* value) : name_(name), text_(value) {}
  LogField(std::string_view name, bool value)
      : name_(name), text_(value ? "true" : "false"), bare_(true) {}
  template <std::integral T>
  LogField(std::string_view name, T value)
      : name_(name), number_(static_cast<int64_t>(value)), bare_(true), is_number_(true) {}

  std::string_view name() const { return name_; }
  // Written without quotes.
  bool bare() const { return bare_; }
  std::string value() const { return is_number_ ? std::to_string(number_) : std::string(text_); }

 private:
  std::string_view name_;
  std::string_view text_;
  int64_t number_ = 0;
  bool bare_ = false;
  bool is_number_ = false;
};

// Sets what is written and how; lines go to stderr. Call once, before threads are started; until
// then the level is info and the format text.
void ConfigureLog(LogLevel level, LogFormat format);

bool LogEnabled(LogLevel level);
void Log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields = {});
// Blocks until everything logged so far has been written.
void FlushLog();

// The line without time and end of line; exposed for tests.
std::string FormatLogLine(LogFormat format, LogLevel level, std::string_view time,
                          std::string_view event, std::initializer_list<LogField> fields);

}  // namespace sluice

#endif  // SLUICE_SERVER_BASE_LOG_H_
