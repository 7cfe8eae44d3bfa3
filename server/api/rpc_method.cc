#include "server/api/rpc_method.h"

#include <google/protobuf/descriptor.h>

#include "grpc/health/v1/health.pb.h"
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
  // The files of the services define no messages, so that nothing else would make the linker take
  // them out of their library; reflection needs them too.
  for (const auto* table : {&descriptor_table_sluice_2fv1_2fqueue_5fservice_2eproto,
                            &descriptor_table_sluice_2fv1_2fadmin_5fservice_2eproto,
                            &descriptor_table_grpc_2fhealth_2fv1_2fhealth_2eproto}) {
    const auto* file =
        google::protobuf::DescriptorPool::generated_pool()->FindFileByName(table->filename);
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
