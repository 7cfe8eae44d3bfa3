#include "server/api/library_logs.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>

#include <string_view>

#include "absl/strings/str_cat.h"
#include "server/base/log.h"
#include "server/base/strings.h"

namespace sluice::api {
namespace {

LogLevel LevelOf(gpr_log_severity severity) {
  switch (severity) {
    case GPR_LOG_SEVERITY_DEBUG: return LogLevel::kDebug;
    case GPR_LOG_SEVERITY_INFO: return LogLevel::kInfo;
    case GPR_LOG_SEVERITY_ERROR: return LogLevel::kError;
  }
  return LogLevel::kError;
}

void LogForGrpc(gpr_log_func_args* args) {
  const std::string_view path = args->file;
  const std::string_view file = path.substr(path.rfind('/') + 1);
  Log(LevelOf(args->severity), "grpc",
      {{"message", args->message}, {"source", absl::StrCat(ToAbsl(file), ":", args->line)}});
}

// Of malformed requests, for example: anybody can cause it, and is told in the answer.
void LogForProtobuf(google::protobuf::LogLevel, const char* file, int line,
                    const std::string& message) {
  Log(LogLevel::kDebug, "protobuf",
      {{"message", message}, {"source", absl::StrCat(file, ":", line)}});
}

}  // namespace

void RouteLibraryLogs() {
  gpr_set_log_function(&LogForGrpc);
  google::protobuf::SetLogHandler(&LogForProtobuf);
}

}  // namespace sluice::api
