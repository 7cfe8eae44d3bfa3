// The calls of the service, and who watches them.
#ifndef SLUICE_SERVER_API_RPC_METHOD_H_
#define SLUICE_SERVER_API_RPC_METHOD_H_

#include <string>
#include <string_view>
#include <vector>

#include "server/model/error.h"

namespace sluice::api {

enum class RpcType { kUnary, kServerStream, kBidiStream };

// "unary", "server_stream", "bidi_stream": the values of the label grpc_type.
std::string_view RpcTypeName(RpcType type);

// "OK", "Canceled", ...: the values of the label grpc_code, as the common gRPC metrics have them.
// `code` is a gRPC status code; codes run from 0 to kRpcCodeMax.
inline constexpr int kRpcCodeMax = 16;
std::string_view RpcCodeName(int code);

struct RpcMethod {
  std::string service;  // "sluice.v1.QueueService"
  std::string method;   // "Publish"
  RpcType type = RpcType::kUnary;
  int index = 0;  // within its service
  int id = 0;     // place in AllRpcMethods
};

// Every call of QueueService, AdminService and Health, built or not, in order of declaration.
// Constant.
const std::vector<RpcMethod>& AllRpcMethods();

// Told about every call. Any polling thread; must be quick.
class RpcObserver {
 public:
  virtual ~RpcObserver() = default;
  virtual void OnStarted(const RpcMethod& method) = 0;
  virtual void OnMessageReceived(const RpcMethod& method) = 0;
  virtual void OnMessageSent(const RpcMethod& method) = 0;
  // `code`: the gRPC status code it ended with, CANCELLED if the client went away.
  virtual void OnHandled(const RpcMethod& method, int code, double seconds) = 0;
  // One receipt of an Ack, Nack or ExtendLease was refused. `queue` is what the client wrote: it
  // may not exist.
  virtual void OnSettleFailure(const RpcMethod& method, std::string_view queue,
                               ErrorReason reason) = 0;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_RPC_METHOD_H_
