// grpc.health.v1.Health: SERVING until the server drains, then NOT_SERVING.
//
// gRPC has an implementation of its own, which is not used: it belongs to the callback API, and a
// server with one callback service polls every connection on two threads more, which cost each
// message a tenth of what it costs in all (ADR 0010); and it ends without a look at whether its
// watchers have been told.
#ifndef SLUICE_SERVER_API_HEALTH_H_
#define SLUICE_SERVER_API_HEALTH_H_

#include <memory>

#include "grpc/health/v1/health.pb.h"
#include "server/api/server_stream_call.h"

namespace sluice::api {

void HandleHealthCheck(const std::shared_ptr<UnaryCall>& call);

// The server's shutdown waits for a watch only until it has written NOT_SERVING. The stream stays
// open even then, to the end of the server: clients would open it again at once.
class HealthWatch final : public ServerStreamCall<HealthWatch> {
 public:
  HealthWatch(const MethodBinding& binding, EventLoop* loop);

 private:
  using ServingStatus = grpc::health::v1::HealthCheckResponse::ServingStatus;

  void OnRequested() override;
  absl::Status Open();
  // What the client is to know, if it does not yet and no write is out.
  void WriteIfChanged();
  void OnWritten(bool ok);
  void OnFinished(bool ok);
  void OnDone() override;

  StreamSlot slot_;
  bool known_service_ = false;
  bool writing_ = false;
  bool over_ = false;
  ServingStatus written_ = grpc::health::v1::HealthCheckResponse::UNKNOWN;
  int refused_code_ = 0;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_HEALTH_H_
