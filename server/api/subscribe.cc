#include "server/api/subscribe.h"

#include <memory>
#include <utility>

#include "sluice/v1/delivery.pb.h"

namespace sluice::api {

void SubscribeCall::Arm(const MethodBinding& binding, EventLoop* loop) {
  auto call = std::make_shared<SubscribeCall>(binding, loop);
  call->context_.AsyncNotifyWhenDone(call->ArmDone());
  void* const tag = call->request_tag_.Arm<&SubscribeCall::OnRequested>(call);
  binding.service->RequestServerStream(binding.method->index, &call->context_, &call->request_,
                                       &call->writer_, loop->queue(), tag);
}

SubscribeCall::SubscribeCall(const MethodBinding& binding, EventLoop* loop)
    : ConsumerStream(binding, loop), writer_(&context_) {}

void SubscribeCall::OnRequested(bool ok) {
  if (!ok) return ReleaseDone();
  Arm(binding_, loop_);
  Begin();
  CountReceived();
  if (auto status = Take(); !status.ok()) EndWith(std::move(status));
}

absl::Status SubscribeCall::Take() {
  if (auto status = Admit(); !status.ok()) return status;
  v1::SubscribeRequest request;
  if (auto status = ParseMessage(request_, &request); !status.ok()) return status;
  request_.Clear();
  if (auto status = Subscribe(request, {}); !status.ok()) return status;
  Open();
  return absl::OkStatus();
}

bool SubscribeCall::BuildResponse(grpc::ByteBuffer* response) {
  if (!flowing() || !(started_waits() || started_told())) return false;
  if (!started_waits() && !has_deliveries() && !has_lost()) return false;
  v1::SubscribeResponse fields;
  if (started_waits()) TakeStarted(fields.mutable_started());
  if (has_lost()) TakeLost(fields.mutable_lease_lost());
  *response = TakeDeliveries(fields.SerializeAsString(), 0);
  return true;
}

}  // namespace sluice::api
