// Stubs and small helpers for tests that speak to a server over gRPC.
#ifndef SLUICE_TESTS_SUPPORT_CLIENT_H_
#define SLUICE_TESTS_SUPPORT_CLIENT_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"
#include "sluice/v1/admin_service.grpc.pb.h"
#include "sluice/v1/queue_service.grpc.pb.h"

namespace sluice::testing {

// For calls of tests: far above what an answer takes, so that a hang fails in a readable way.
inline constexpr absl::Duration kCallTimeout = absl::Seconds(20);

// A connection of its own (not shared with other channels of the process) that reconnects quickly.
std::shared_ptr<grpc::Channel> NewChannel(const std::string& address);

// Both services on one connection. Thread-safe, as stubs are.
struct Client {
  explicit Client(const std::string& address);

  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::QueueService::Stub> queues;
  std::unique_ptr<v1::AdminService::Stub> admin;
};

// A context whose deadline is `timeout` from now.
std::unique_ptr<grpc::ClientContext> NewContext(absl::Duration timeout = kCallTimeout);

// Any unary method of a stub, with a deadline of its own:
//   v1::AckResponse response;
//   grpc::Status status = Call(client.queues, &v1::QueueService::Stub::Ack, request, &response);
template <typename Stub, typename Request, typename Response>
grpc::Status Call(const std::unique_ptr<Stub>& stub,
                  grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                  const Request& request, Response* response,
                  absl::Duration timeout = kCallTimeout) {
  auto context = NewContext(timeout);
  return ((*stub).*method)(context.get(), request, response);
}

google::protobuf::Duration ToProto(absl::Duration duration);
absl::Time FromProto(const google::protobuf::Timestamp& time);

// What the details of a status say (google.rpc.ErrorInfo, BadRequest, RetryInfo).
struct ErrorDetails {
  std::string reason;
  std::string domain;
  std::vector<std::string> fields;
  bool has_retry_delay = false;
  absl::Duration retry_delay;
  size_t bytes = 0;
};
ErrorDetails DetailsOf(const grpc::Status& status);

// grpc.health.v1, spoken without generated stubs.
enum class HealthStatus { kUnknown = 0, kServing = 1, kNotServing = 2, kServiceUnknown = 3 };
absl::StatusOr<HealthStatus> CheckHealth(const std::shared_ptr<grpc::Channel>& channel,
                                         const std::string& service);
// Calls `seen` for each status that Watch sends until it returns false or the stream ends.
grpc::Status WatchHealth(const std::shared_ptr<grpc::Channel>& channel, const std::string& service,
                         const std::function<bool(HealthStatus)>& seen);
// The raw answer of server reflection (v1alpha) to "list services".
absl::StatusOr<std::string> ListReflectedServices(const std::shared_ptr<grpc::Channel>& channel);

struct HttpAnswer {
  int code = 0;
  std::string headers;
  std::string body;
};
absl::StatusOr<HttpAnswer> HttpGet(int port, const std::string& path);

// Looks again and again, with a short pause, until it is true or the time is over.
bool WaitUntil(const std::function<bool()>& condition, absl::Duration timeout = kCallTimeout);

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_SUPPORT_CLIENT_H_
