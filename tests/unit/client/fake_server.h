// A server over loopback that does what a test tells it: for tests of the client alone.
#ifndef SLUICE_TESTS_UNIT_CLIENT_FAKE_SERVER_H_
#define SLUICE_TESTS_UNIT_CLIENT_FAKE_SERVER_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "client/cpp/client.h"
#include "sluice/v1/queue_service.grpc.pb.h"

namespace sluice::client {

// Handlers run on gRPC's threads; set them before the client calls. Unset ones are UNIMPLEMENTED.
class FakeServer final : public v1::QueueService::Service {
 public:
  using PublishStreamType =
      grpc::ServerReaderWriter<v1::PublishStreamResponse, v1::PublishStreamRequest>;
  using ConsumeStream = grpc::ServerReaderWriter<v1::ConsumeResponse, v1::ConsumeRequest>;
  using SubscribeWriter = grpc::ServerWriter<v1::SubscribeResponse>;

  FakeServer();
  ~FakeServer() override;

  Client& client() { return *client_; }

  std::function<grpc::Status(PublishStreamType&)> on_publish_stream;
  std::function<grpc::Status(grpc::ServerContext&, const v1::SubscribeRequest&, SubscribeWriter&)>
      on_subscribe;
  std::function<grpc::Status(ConsumeStream&)> on_consume;
  std::function<grpc::Status(const v1::AckRequest&, v1::AckResponse*)> on_ack;
  std::function<grpc::Status(const v1::NackRequest&)> on_nack;

 private:
  grpc::Status PublishStream(grpc::ServerContext* context, PublishStreamType* stream) override;
  grpc::Status Subscribe(grpc::ServerContext* context, const v1::SubscribeRequest* request,
                         SubscribeWriter* writer) override;
  grpc::Status Consume(grpc::ServerContext* context, ConsumeStream* stream) override;
  grpc::Status Ack(grpc::ServerContext* context, const v1::AckRequest* request,
                   v1::AckResponse* response) override;
  grpc::Status Nack(grpc::ServerContext* context, const v1::NackRequest* request,
                    v1::NackResponse* response) override;

  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Client> client_;
};

// A status with an ErrorInfo detail, as Sluice sends it.
grpc::Status Refusal(grpc::StatusCode code, const std::string& reason, const std::string& message);

v1::PublishStreamResponse StoredThrough(int64_t sequence);
v1::PublishStreamResponse RefusedRange(int64_t first, int64_t last);

}  // namespace sluice::client

#endif  // SLUICE_TESTS_UNIT_CLIENT_FAKE_SERVER_H_
