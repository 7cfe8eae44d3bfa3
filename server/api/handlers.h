// The unary calls: parse, check, submit, and answer when the shard has. One function per RPC.
#ifndef SLUICE_SERVER_API_HANDLERS_H_
#define SLUICE_SERVER_API_HANDLERS_H_

#include <memory>

#include "server/api/call.h"

namespace sluice::api {

void HandlePublish(const std::shared_ptr<UnaryCall>& call);
// MEMORY_FULL while publishes in flight hold all they may; to be asked before one is received.
absl::Status AdmitPublish(const ApiContext& api);
// Needs a watched call.
void HandleReceive(const std::shared_ptr<UnaryCall>& call);
void HandleAck(const std::shared_ptr<UnaryCall>& call);
void HandleNack(const std::shared_ptr<UnaryCall>& call);
void HandleExtendLease(const std::shared_ptr<UnaryCall>& call);

void HandleTransact(const std::shared_ptr<UnaryCall>& call);

void HandleCreateQueue(const std::shared_ptr<UnaryCall>& call);
void HandleGetQueue(const std::shared_ptr<UnaryCall>& call);
void HandleListQueues(const std::shared_ptr<UnaryCall>& call);
void HandleUpdateQueue(const std::shared_ptr<UnaryCall>& call);
void HandleDeleteQueue(const std::shared_ptr<UnaryCall>& call);
void HandlePurgeQueue(const std::shared_ptr<UnaryCall>& call);
void HandlePauseQueue(const std::shared_ptr<UnaryCall>& call);
void HandleResumeQueue(const std::shared_ptr<UnaryCall>& call);

void HandleCreateExchange(const std::shared_ptr<UnaryCall>& call);
void HandleGetExchange(const std::shared_ptr<UnaryCall>& call);
void HandleListExchanges(const std::shared_ptr<UnaryCall>& call);
void HandleUpdateExchange(const std::shared_ptr<UnaryCall>& call);
void HandleDeleteExchange(const std::shared_ptr<UnaryCall>& call);
void HandleCreateBinding(const std::shared_ptr<UnaryCall>& call);
void HandleListBindings(const std::shared_ptr<UnaryCall>& call);
void HandleDeleteBinding(const std::shared_ptr<UnaryCall>& call);

void HandleListMessages(const std::shared_ptr<UnaryCall>& call);
void HandleGetMessage(const std::shared_ptr<UnaryCall>& call);
void HandleDeleteMessages(const std::shared_ptr<UnaryCall>& call);
void HandleRescheduleMessages(const std::shared_ptr<UnaryCall>& call);

void HandleListConsumers(const std::shared_ptr<UnaryCall>& call);
void HandleCloseConsumer(const std::shared_ptr<UnaryCall>& call);

void HandleExportDefinitions(const std::shared_ptr<UnaryCall>& call);
void HandleApplyDefinitions(const std::shared_ptr<UnaryCall>& call);

void HandleGetServerInfo(const std::shared_ptr<UnaryCall>& call);

// UNIMPLEMENTED, naming the call.
void HandleNotBuilt(const std::shared_ptr<UnaryCall>& call);
absl::Status NotBuiltCall(const RpcMethod& method);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_HANDLERS_H_
