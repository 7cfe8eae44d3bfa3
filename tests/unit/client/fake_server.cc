#include "tests/unit/client/fake_server.h"

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace sluice::client {
namespace {

constexpr int kRequestBytesMax = 16 << 20;  // as the real server

const grpc::Status kUnset(grpc::StatusCode::UNIMPLEMENTED, "the test set no handler");

}  // namespace

FakeServer::FakeServer() {
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(kRequestBytesMax);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  client_ = std::make_unique<Client>(
      ClientOptions{.address = "127.0.0.1:" + std::to_string(port), .timeout = absl::Seconds(10)});
}

FakeServer::~FakeServer() { server_->Shutdown(std::chrono::system_clock::now()); }

grpc::Status FakeServer::PublishStream(grpc::ServerContext* context, PublishStreamType* stream) {
  return on_publish_stream ? on_publish_stream(*stream) : kUnset;
}

grpc::Status FakeServer::Subscribe(grpc::ServerContext* context,
                                   const v1::SubscribeRequest* request, SubscribeWriter* writer) {
  return on_subscribe ? on_subscribe(*context, *request, *writer) : kUnset;
}

grpc::Status FakeServer::Consume(grpc::ServerContext* context, ConsumeStream* stream) {
  return on_consume ? on_consume(*stream) : kUnset;
}

grpc::Status FakeServer::Ack(grpc::ServerContext* context, const v1::AckRequest* request,
                             v1::AckResponse* response) {
  return on_ack ? on_ack(*request, response) : kUnset;
}

grpc::Status FakeServer::Nack(grpc::ServerContext* context, const v1::NackRequest* request,
                              v1::NackResponse* response) {
  return on_nack ? on_nack(*request) : kUnset;
}

grpc::Status Refusal(grpc::StatusCode code, const std::string& reason, const std::string& message) {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("sluice");
  google::rpc::Status status;
  status.set_code(code);
  status.set_message(message);
  status.add_details()->PackFrom(info);
  return grpc::Status(code, message, status.SerializeAsString());
}

v1::PublishStreamResponse StoredThrough(int64_t sequence) {
  v1::PublishStreamResponse response;
  response.mutable_stored()->set_through_sequence(sequence);
  return response;
}

v1::PublishStreamResponse RefusedRange(int64_t first, int64_t last) {
  v1::PublishStreamResponse response;
  response.mutable_refused()->set_first_sequence(first);
  response.mutable_refused()->set_last_sequence(last);
  v1::ItemStatus& status = *response.mutable_refused()->mutable_status();
  status.set_code(grpc::StatusCode::RESOURCE_EXHAUSTED);
  status.set_reason(v1::ERROR_REASON_QUEUE_FULL);
  status.set_message("full");
  return response;
}

}  // namespace sluice::client
