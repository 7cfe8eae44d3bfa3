// A connection to a Sluice server and its unary calls.
#ifndef SLUICE_CLIENT_CPP_CLIENT_H_
#define SLUICE_CLIENT_CPP_CLIENT_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cpp/loop.h"
#include "client/cpp/status.h"
#include "sluice/v1/admin_service.grpc.pb.h"
#include "sluice/v1/queue_service.grpc.pb.h"

namespace sluice::client {

inline constexpr char kDefaultAddress[] = "127.0.0.1:7070";

struct ClientOptions {
  std::string address = kDefaultAddress;
  // Deadline of each unary call that does not say otherwise. Longer than the server's worst sync,
  // short enough that a person notices a dead server.
  absl::Duration timeout = absl::Seconds(10);
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  // Clients of one process with the same address and credentials share a connection unless this is
  // set. One connection carries 1,000 calls and streams at a time, and is served by one core.
  bool own_connection = false;
};

// Thread-safe. Connects on first use and again when the connection is lost. Publishers and
// consumers refer to it, so it must outlive them. Their callbacks come on one thread of the client's
// (where they do not say otherwise), which other clients may share: one that takes long keeps all of
// them waiting, and one that waits for an outcome, or for room in a window, waits for ever.
class Client {
 public:
  explicit Client(ClientOptions options = {});
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  v1::QueueService::StubInterface& queues() { return *queues_; }
  v1::AdminService::StubInterface& admin() { return *admin_; }
  const ClientOptions& options() const { return options_; }

  // Whether there is a connection now. Before the first call there is none.
  bool connected() const {
    return channel_->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_READY;
  }
  // Connects, for at most `timeout`. True: connected.
  bool AwaitConnection(absl::Duration timeout) {
    return channel_->WaitForConnected(std::chrono::system_clock::now() +
                                      absl::ToChronoMilliseconds(timeout));
  }

  // For operations of publishers and consumers.
  Loop& loop() { return *loop_; }

  // One unary call, for example `client.Call(&v1::AdminService::StubInterface::GetQueue, request)`.
  // Never retried: see MaybeHappened for what an error means. `timeout` zero: that of the options.
  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(grpc::Status (v1::AdminService::StubInterface::*method)(
                                    grpc::ClientContext*, const Request&, Response*),
                                const Request& request, absl::Duration timeout = {}) {
    return Unary<Response>(*admin_, method, request, timeout);
  }
  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(grpc::Status (v1::QueueService::StubInterface::*method)(
                                    grpc::ClientContext*, const Request&, Response*),
                                const Request& request, absl::Duration timeout = {}) {
    return Unary<Response>(*queues_, method, request, timeout);
  }

  // That of a unary call which starts now. `timeout` zero: that of the options.
  void SetDeadline(absl::Duration timeout, grpc::ClientContext* context) const;

  // Asks the standard health service. `service` empty: the server as a whole. True: SERVING.
  // NOT_FOUND: the server knows no such service.
  absl::StatusOr<bool> CheckHealth(const std::string& service = "");

 private:
  template <typename Response, typename Stub, typename Method, typename Request>
  absl::StatusOr<Response> Unary(Stub& stub, Method method, const Request& request,
                                 absl::Duration timeout) {
    grpc::ClientContext context;
    SetDeadline(timeout, &context);
    Response response;
    const grpc::Status status = (stub.*method)(&context, request, &response);
    if (!status.ok()) return FromGrpc(status);
    return response;
  }

  const ClientOptions options_;
  const std::shared_ptr<Loop> loop_ = Loop::Get();
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::QueueService::StubInterface> queues_;
  std::unique_ptr<v1::AdminService::StubInterface> admin_;
};

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CPP_CLIENT_H_
