#include "server/api/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <deque>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/api/call.h"
#include "server/api/connections.h"
#include "server/api/consume.h"
#include "server/api/context.h"
#include "server/api/event_loop.h"
#include "server/api/handlers.h"
#include "server/api/listener.h"
#include "server/api/health.h"
#include "server/api/not_built_stream.h"
#include "server/api/publish_stream.h"
#include "server/api/raw_service.h"
#include "server/api/receive_line.h"
#include "server/api/redrive.h"
#include "server/api/subscribe.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "sluice/v1/admin_service.grpc.pb.h"
#include "sluice/v1/queue_service.grpc.pb.h"

namespace sluice::api {
namespace {

// Calls that wait for work, per method and loop. gRPC hands a call over as soon as one waits, and
// each is replaced when taken. More are slower, as each has left the processor's caches by the time
// it is taken (docs/adr/0013).
constexpr int kBusySlots = 25;
constexpr int kRareSlots = 2;
// How often a shutdown looks whether calls are open: it happens once, and need not be exact.
constexpr absl::Duration kCallsLookPeriod = absl::Milliseconds(5);
// For clients to take what was written to them, and to hang up.
constexpr int64_t kHangUpMsMax = 100;
constexpr int64_t kNsPerMs = 1'000'000;
// Health checks wait for no other calls, and whoever sends one gives up after a second or so. As a
// request of a few bytes comes with its call, one that does not come holds up others only for a
// moment. Each may be as large as any request all the same, hence no more places than for publishes.
constexpr ReceiveLine::Limits kProbeLimits = {
    .calls_max = 16, .patience_ms = 200, .newest_first = true};

using grpc::health::v1::Health;

struct UnaryMethod {
  UnaryCall::Handler handler;
  int slots = kRareSlots;
  bool taken_while_draining = false;
  bool is_short = false;
  bool watched = false;
  absl::Status (*admit)(const ApiContext& api) = nullptr;
};

const std::map<std::string, UnaryMethod>& UnaryMethods() {
  static const auto* const methods = new std::map<std::string, UnaryMethod>{
      {"Publish", {&HandlePublish, kBusySlots, false, /*is_short=*/true, /*watched=*/true, &AdmitPublish}},
      {"Receive", {&HandleReceive, kBusySlots, false, false, /*watched=*/true}},
      {"Ack", {&HandleAck, kBusySlots, true, /*is_short=*/true}},
      {"Nack", {&HandleNack, kBusySlots, true, /*is_short=*/true}},
      {"ExtendLease", {&HandleExtendLease, kBusySlots, true, /*is_short=*/true}},
      {"Transact", {&HandleTransact, kBusySlots, false, /*is_short=*/true, false, &AdmitPublish}},
      {"CreateQueue", {&HandleCreateQueue}},
      {"GetQueue", {&HandleGetQueue, kRareSlots, true}},
      {"ListQueues", {&HandleListQueues, kRareSlots, true}},
      {"UpdateQueue", {&HandleUpdateQueue}},
      {"DeleteQueue", {&HandleDeleteQueue}},
      {"PurgeQueue", {&HandlePurgeQueue}},
      {"PauseQueue", {&HandlePauseQueue}},
      {"ResumeQueue", {&HandleResumeQueue}},
      {"CreateExchange", {&HandleCreateExchange}},
      {"GetExchange", {&HandleGetExchange, kRareSlots, true}},
      {"ListExchanges", {&HandleListExchanges, kRareSlots, true}},
      {"UpdateExchange", {&HandleUpdateExchange}},
      {"DeleteExchange", {&HandleDeleteExchange}},
      {"CreateBinding", {&HandleCreateBinding}},
      {"ListBindings", {&HandleListBindings, kRareSlots, true}},
      {"DeleteBinding", {&HandleDeleteBinding}},
      {"ListMessages", {&HandleListMessages, kRareSlots, true}},
      {"GetMessage", {&HandleGetMessage, kRareSlots, true}},
      {"DeleteMessages", {&HandleDeleteMessages}},
      {"RescheduleMessages", {&HandleRescheduleMessages}},
      {"ListConsumers", {&HandleListConsumers, kRareSlots, true}},
      {"CloseConsumer", {&HandleCloseConsumer}},
      {"ExportDefinitions", {&HandleExportDefinitions, kRareSlots, true}},
      {"ApplyDefinitions", {&HandleApplyDefinitions}},
      {"GetServerInfo", {&HandleGetServerInfo, kRareSlots, true}},
      {"Check", {&HandleHealthCheck, kRareSlots, true}},
  };
  return *methods;
}

class ServerImpl final : public Server {
 public:
  ServerImpl(const ServerOptions& options, broker::CommandSink* sink, const ReceiptCodec& receipts,
             const KeyedHash& hash, Clock* clock, RpcObserver* observer)
      : api_(options, sink, receipts, hash, clock, observer),
        queue_service_(v1::QueueService::service_full_name()),
        admin_service_(v1::AdminService::service_full_name()),
        health_service_(Health::service_full_name()) {}

  ~ServerImpl() override { Shutdown(0); }

  absl::Status Start();
  int port() const override { return listener_->port(); }
  void BeginDrain() override;
  void Shutdown(int64_t grace_ms) override;

 private:
  void Configure(grpc::ServerBuilder* builder) const;
  RawMethods* ServiceOf(const RpcMethod& method);
  // The listener's thread.
  void Serve(Descriptor connection);
  void ArmAll(EventLoop* loop);
  void ArmStream(const MethodBinding& binding, EventLoop* loop);
  // Returns when no call is open, or at the deadline.
  void AwaitCalls(int64_t deadline_ns) const;

  ApiContext api_;
  RawService<v1::QueueService::Service> queue_service_;
  RawService<v1::AdminService::Service> admin_service_;
  RawService<Health::Service> health_service_;
  std::deque<UnaryCall::Binding> unary_bindings_;  // stay where they are
  std::vector<std::shared_ptr<ReceiveLine>> receive_lines_;  // three per loop
  Connections connections_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;
  std::vector<std::unique_ptr<EventLoop>> loops_;
  std::unique_ptr<Listener> listener_;  // after what its thread uses

  absl::Mutex shutdown_mutex_;
  bool shut_down_ ABSL_GUARDED_BY(shutdown_mutex_) = false;
};

void ServerImpl::Configure(grpc::ServerBuilder* builder) const {
  const ServerOptions& options = api_.options;
  const auto argument = [&](const char* name, int64_t value) {
    builder->AddChannelArgument(
        name, static_cast<int>(std::min<int64_t>(value, std::numeric_limits<int>::max())));
  };
  argument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, options.ping_interval_ms_min);
  argument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  argument(GRPC_ARG_KEEPALIVE_TIME_MS, options.keepalive_interval_ms);
  argument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, options.keepalive_timeout_ms);
  // By default pings stop after two on a quiet connection, which a subscription may well be.
  argument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  if (options.connection_age_ms_max > 0) {
    argument(GRPC_ARG_MAX_CONNECTION_AGE_MS, options.connection_age_ms_max);
    argument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, options.connection_age_grace_ms);
  }
  argument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.concurrent_streams_max);
  argument(GRPC_ARG_MAX_METADATA_SIZE, options.metadata_bytes_max);
  // The probe would let every stream's window, and so what waits unread, grow to megabytes.
  argument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  // Two servers on one port would share calls at random.
  argument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->SetMaxReceiveMessageSize(static_cast<int>(kRequestBytesMax));
  builder->SetMaxSendMessageSize(-1);  // one large message may exceed any limit: API.md rule 9
  if (options.transport_bytes_max > 0) {
    grpc::ResourceQuota quota("sluice");
    quota.Resize(static_cast<size_t>(options.transport_bytes_max));
    builder->SetResourceQuota(quota);
  }
}

absl::Status ServerImpl::Start() {
  auto listener = Listener::Bind(
      {.address = api_.options.listen, .silence_ms_max = api_.options.keepalive_timeout_ms});
  if (!listener.ok()) return listener.status();
  listener_ = *std::move(listener);
  // A process-wide switch that must be set before a server is built.
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  Configure(&builder);
  acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      grpc::InsecureServerCredentials());
  builder.RegisterService(&queue_service_);
  builder.RegisterService(&admin_service_);
  builder.RegisterService(&health_service_);
  for (int i = 0; i < api_.options.polling_threads; ++i) {
    loops_.push_back(std::make_unique<EventLoop>(builder.AddCompletionQueue(), api_.sink, &connections_));
  }
  server_ = builder.BuildAndStart();
  if (!server_) return absl::UnavailableError("gRPC cannot start its server");
  for (const auto& loop : loops_) {
    ArmAll(loop.get());
    loop->Start();
  }
  listener_->Start([this](Descriptor connection) { Serve(std::move(connection)); });
  return absl::OkStatus();
}

void ServerImpl::Serve(Descriptor connection) {
  // gRPC would log an error for each, and anybody can make any number of them.
  if (!connections_.Add(connection.get())) return;
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
  parameters.fd = connection.Release();
  acceptor_->HandleNewConnection(&parameters);
}

RawMethods* ServerImpl::ServiceOf(const RpcMethod& method) {
  if (method.service == v1::QueueService::service_full_name()) return &queue_service_;
  if (method.service == v1::AdminService::service_full_name()) return &admin_service_;
  return &health_service_;
}

void ServerImpl::ArmAll(EventLoop* loop) {
  const ServerOptions& options = api_.options;
  const auto make_line = [&](const ReceiveLine::Limits& limits) {
    return receive_lines_.emplace_back(std::make_shared<ReceiveLine>(limits, loop, api_.clock))
        .get();
  };
  ReceiveLine* const publishes =
      make_line({PublishesReceivedMax(options), options.receive_patience_ms});
  ReceiveLine* const others =
      make_line({options.requests_received_max, options.receive_patience_ms});
  ReceiveLine* const probes = make_line(kProbeLimits);
  for (const RpcMethod& method : AllRpcMethods()) {
    MethodBinding binding;
    binding.api = &api_;
    binding.service = ServiceOf(method);
    binding.method = &method;
    if (method.type != RpcType::kUnary) {
      ArmStream(binding, loop);
      continue;
    }
    const auto it = UnaryMethods().find(method.method);
    const UnaryMethod unary = it == UnaryMethods().end()
                                  ? UnaryMethod{&HandleNotBuilt, kRareSlots, true}
                                  : it->second;
    UnaryCall::Binding& stable = unary_bindings_.emplace_back();
    static_cast<MethodBinding&>(stable) = binding;
    stable.handler = unary.handler;
    stable.taken_while_draining = unary.taken_while_draining;
    stable.is_short = unary.is_short;
    stable.watched = unary.watched;
    stable.admit = unary.admit;
    if (method.service == Health::service_full_name()) {
      stable.line = probes;
    } else {
      stable.line = unary.admit == &AdmitPublish ? publishes : others;
    }
    for (int i = 0; i < unary.slots; ++i) UnaryCall::Arm(stable, loop);
  }
}

void ServerImpl::ArmStream(const MethodBinding& binding, EventLoop* loop) {
  const bool bidi = binding.method->type == RpcType::kBidiStream;
  for (int i = 0; i < kRareSlots; ++i) {
    if (binding.method->method == "Subscribe") {
      SubscribeCall::Arm(binding, loop);
    } else if (binding.method->method == "PublishStream") {
      PublishStreamCall::Arm(binding, loop);
    } else if (binding.method->method == "Consume") {
      ConsumeCall::Arm(binding, loop);
    } else if (binding.method->method == "RedriveMessages") {
      RedriveCall::Arm(binding, loop);
    } else if (binding.method->method == "Watch") {
      HealthWatch::Arm(binding, loop);
    } else if (bidi) {
      NotBuiltStream<RawBidiStream>::Arm(binding, loop);
    } else {
      NotBuiltStream<RawStreamWriter>::Arm(binding, loop);
    }
  }
}

void ServerImpl::BeginDrain() {
  if (api_.draining.exchange(true)) return;
  for (const auto& loop : loops_) loop->Drain();
}

void ServerImpl::AwaitCalls(int64_t deadline_ns) const {
  const auto has_calls = [](const auto& loop) { return loop->calls() > 0; };
  while (std::any_of(loops_.begin(), loops_.end(), has_calls) &&
         api_.clock->MonotonicNs() < deadline_ns) {
    absl::SleepFor(kCallsLookPeriod);
  }
}

void ServerImpl::Shutdown(int64_t grace_ms) {
  absl::MutexLock lock(&shutdown_mutex_);
  if (shut_down_ || !server_) return;
  shut_down_ = true;
  const int64_t deadline_ns = api_.clock->MonotonicNs() + grace_ms * kNsPerMs;
  AwaitCalls(deadline_ns);
  // gRPC waits for every client to hang up, which one that is idle does only seconds later; all
  // that is still of use is the answers' way out.
  const int64_t left_ms = std::clamp<int64_t>(
      (deadline_ns - api_.clock->MonotonicNs()) / kNsPerMs, 0, kHangUpMsMax);
  listener_->Stop();
  server_->Shutdown(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                 gpr_time_from_millis(left_ms, GPR_TIMESPAN)));
  for (const auto& loop : loops_) loop->Stop();
  for (const auto& line : receive_lines_) line->Drop();
  api_.budget.DropWaiters();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options,
                                                      broker::CommandSink* sink,
                                                      const ReceiptCodec& receipts,
                                                      const KeyedHash& hash, Clock* clock,
                                                      RpcObserver* observer) {
  auto server = std::make_unique<ServerImpl>(options, sink, receipts, hash, clock, observer);
  if (auto status = server->Start(); !status.ok()) return status;
  return server;
}

}  // namespace sluice::api
