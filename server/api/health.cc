#include "server/api/health.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/api/error_mapping.h"
#include "sluice/v1/admin_service.grpc.pb.h"
#include "sluice/v1/queue_service.grpc.pb.h"

namespace sluice::api {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

// Empty stands for the whole server.
bool IsServed(const std::string& service) {
  return service.empty() || service == v1::QueueService::service_full_name() ||
         service == v1::AdminService::service_full_name();
}

HealthCheckResponse::ServingStatus StatusOf(const ApiContext& api) {
  return api.draining.load(std::memory_order_relaxed) ? HealthCheckResponse::NOT_SERVING
                                                      : HealthCheckResponse::SERVING;
}

}  // namespace

void HandleHealthCheck(const std::shared_ptr<UnaryCall>& call) {
  HealthCheckRequest request;
  if (!call->Parse(&request)) return;
  if (!IsServed(request.service())) {
    return call->Fail(absl::NotFoundError("no such service; an empty name asks for the server"));
  }
  HealthCheckResponse response;
  response.set_status(StatusOf(call->api()));
  call->Reply(response);
}

HealthWatch::HealthWatch(const MethodBinding& binding, EventLoop* loop)
    : ServerStreamCall(binding, loop) {}

void HealthWatch::OnRequested() {
  if (const auto status = Open(); !status.ok()) {
    over_ = true;
    refused_code_ = static_cast<int>(status.code());
    writer_.Finish(ToGrpcStatus(status), call_tag_.Arm<&HealthWatch::OnFinished>(self()));
    return;
  }
  loop_->AddDrainable(this, [this] { WriteIfChanged(); });
  WriteIfChanged();
}

absl::Status HealthWatch::Open() {
  HealthCheckRequest request;
  if (auto status = ParseMessage(request_bytes_, &request); !status.ok()) return status;
  request_bytes_.Clear();
  known_service_ = IsServed(request.service());
  return slot_.TakeWatch(api_);
}

void HealthWatch::WriteIfChanged() {
  if (writing_ || over_) return;
  const auto status = known_service_ ? StatusOf(*api_) : HealthCheckResponse::SERVICE_UNKNOWN;
  if (status == written_) {
    if (api_->draining.load(std::memory_order_relaxed)) LetShutdownPass();
    return;
  }
  written_ = status;
  writing_ = true;
  HealthCheckResponse response;
  response.set_status(status);
  CountSent();
  writer_.Write(Serialize(response), call_tag_.Arm<&HealthWatch::OnWritten>(self()));
}

void HealthWatch::OnWritten(bool ok) {
  writing_ = false;
  if (ok) WriteIfChanged();
}

void HealthWatch::OnFinished(bool ok) {
  End(ok ? refused_code_ : static_cast<int>(grpc::StatusCode::CANCELLED));
}

void HealthWatch::OnDone() {
  loop_->RemoveDrainable(this);
  // After a refusal the end of the write says how the call ended.
  if (over_) return;
  over_ = true;
  End(static_cast<int>(grpc::StatusCode::CANCELLED));
}

}  // namespace sluice::api
