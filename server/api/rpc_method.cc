#include "server/api/rpc_method.h"

#include <google/protobuf/descriptor.h>

#include "server/base/check.h"
#include "sluice/v1/admin_service.pb.h"
#include "sluice/v1/queue_service.pb.h"

namespace sluice::api {
namespace {

RpcType TypeOf(const google::protobuf::MethodDescriptor& method) {
  if (method.client_streaming()) return RpcType::kBidiStream;
  return method.server_streaming() ? RpcType::kServerStream : RpcType::kUnary;
}

std::vector<RpcMethod> ReadDescriptors() {
  std::vector<RpcMethod> methods;
  for (const auto* file : {v1::PublishRequest::descriptor()->file()->pool()->FindFileByName(
                               "sluice/v1/queue_service.proto"),
                           v1::PublishRequest::descriptor()->file()->pool()->FindFileByName(
                               "sluice/v1/admin_service.proto")}) {
    SLUICE_CHECK(file != nullptr && file->service_count() == 1);
    const auto* service = file->service(0);
    for (int i = 0; i < service->method_count(); ++i) {
      const auto& method = *service->method(i);
      methods.push_back({service->full_name(), method.name(), TypeOf(method), i,
                         static_cast<int>(methods.size())});
    }
  }
  return methods;
}

}  // namespace

std::string_view RpcTypeName(RpcType type) {
  switch (type) {
    case RpcType::kUnary: return "unary";
    case RpcType::kServerStream: return "server_stream";
    case RpcType::kBidiStream: return "bidi_stream";
  }
  return "unary";
}

std::string_view RpcCodeName(int code) {
  static constexpr std::string_view kNames[] = {
      "OK",           "Canceled",          "Unknown",          "InvalidArgument",
      "DeadlineExceeded", "NotFound",      "AlreadyExists",    "PermissionDenied",
      "ResourceExhausted", "FailedPrecondition", "Aborted",    "OutOfRange",
      "Unimplemented", "Internal",         "Unavailable",      "DataLoss",
      "Unauthenticated"};
  static_assert(sizeof(kNames) / sizeof(kNames[0]) == kRpcCodeMax + 1);
  return code >= 0 && code <= kRpcCodeMax ? kNames[code] : "Unknown";
}

const std::vector<RpcMethod>& AllRpcMethods() {
  static const auto* const methods = new std::vector<RpcMethod>(ReadDescriptors());
  return *methods;
}

}  // namespace sluice::api
