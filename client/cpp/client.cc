#include "client/cpp/client.h"

#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/proto_buffer_reader.h>

namespace sluice::client {
namespace {

// A server that restarts is back within a second or two; clients should notice as soon.
constexpr int kFirstReconnectMs = 100;
constexpr int kLongestReconnectMs = 2000;
// Finds a peer that vanished without a word. Servers allow pings this far apart.
constexpr int kKeepaliveMs = 30'000;
constexpr int kKeepaliveTimeoutMs = 10'000;
// A server may be configured for bodies larger than gRPC's 4 MiB; it is the one to set the limit.
constexpr int kAnySize = -1;

// Field numbers of grpc.health.v1, which is small enough not to need generated code.
constexpr int kHealthServiceField = 1;
constexpr int kHealthStatusField = 1;
constexpr uint64_t kHealthServing = 1;

grpc::ChannelArguments ChannelSettings(const ClientOptions& options) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstReconnectMs);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kLongestReconnectMs);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kLongestReconnectMs);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  args.SetMaxReceiveMessageSize(kAnySize);
  if (options.own_connection) args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return args;
}

}  // namespace

Client::Client(ClientOptions options)
    : options_(std::move(options)),
      channel_(grpc::CreateCustomChannel(options_.address, options_.credentials,
                                         ChannelSettings(options_))),
      queues_(v1::QueueService::NewStub(channel_)),
      admin_(v1::AdminService::NewStub(channel_)) {}

void Client::SetDeadline(absl::Duration timeout, grpc::ClientContext* context) const {
  if (timeout <= absl::ZeroDuration()) timeout = options_.timeout;
  context->set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
}

absl::StatusOr<bool> Client::CheckHealth(const std::string& service) {
  google::protobuf::UnknownFieldSet request;
  if (!service.empty()) request.AddLengthDelimited(kHealthServiceField, service);
  std::string bytes;
  request.SerializeToString(&bytes);
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request_buffer(&slice, 1);

  grpc::ClientContext context;
  SetDeadline({}, &context);
  grpc::CompletionQueue queue;
  grpc::GenericStub stub(channel_);
  auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request_buffer, &queue);
  grpc::ByteBuffer response_buffer;
  grpc::Status status;
  call->StartCall();
  call->Finish(&response_buffer, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  if (!status.ok()) {
    // Not FromGrpc: gRPC's own service answers, whose refusals carry no reason of Sluice's.
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }

  grpc::ProtoBufferReader reader(&response_buffer);
  google::protobuf::UnknownFieldSet response;
  if (!response.ParseFromZeroCopyStream(&reader)) {
    return absl::InternalError("the health service answered something else");
  }
  for (int i = 0; i < response.field_count(); ++i) {
    const auto& field = response.field(i);
    if (field.number() == kHealthStatusField &&
        field.type() == google::protobuf::UnknownField::TYPE_VARINT) {
      return field.varint() == kHealthServing;
    }
  }
  return false;
}

}  // namespace sluice::client
