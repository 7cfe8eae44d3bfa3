// A server with a fake shard behind it and clients before it.
#ifndef SLUICE_TESTS_UNIT_API_SERVER_FIXTURE_H_
#define SLUICE_TESTS_UNIT_API_SERVER_FIXTURE_H_

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/api/server.h"
#include "sluice/v1/admin_service.grpc.pb.h"
#include "sluice/v1/queue_service.grpc.pb.h"
#include "tests/unit/api/fake_shard.h"

namespace sluice::api {

inline Receipt ReceiptOf(uint64_t seq) { return {{0, 7, 5, seq}, 1, 1}; }

inline std::string Text(const ReceiptCodec& codec, const Receipt& receipt) {
  std::string text(kReceiptBytes, '\0');
  codec.Encode(receipt, text.data());
  return text;
}

inline broker::OutgoingDelivery DeliveryOf(uint64_t seq, std::string_view body) {
  v1::Message message;
  message.set_body(std::string(body));
  broker::OutgoingDelivery delivery;
  delivery.receipt = ReceiptOf(seq);
  delivery.lease_expires_at_ms = 1'700'000'000'123;
  delivery.payload = Payload::CopyOf(message.SerializeAsString());
  return delivery;
}

inline std::string ReasonIn(const grpc::Status& status) {
  google::rpc::Status details;
  details.ParseFromString(status.error_details());
  google::rpc::ErrorInfo info;
  for (const auto& any : details.details()) {
    if (any.UnpackTo(&info)) return info.reason();
  }
  return "";
}

class ServerTest : public testing::Test {
 protected:
  void SetUp() override { Start({}); }

  void Start(ServerOptions options) {
    queue_stub_.reset();
    admin_stub_.reset();
    server_.reset();
    options.listen = "127.0.0.1:0";
    auto server = Server::Start(options, &shard_, codec_, hash_, Clock::System(), nullptr);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                   grpc::InsecureChannelCredentials());
    queue_stub_ = v1::QueueService::NewStub(channel_);
    admin_stub_ = v1::AdminService::NewStub(channel_);
  }

  void AcceptStreamTarget() {
    shard_.Take<broker::GetQueueCommand>().done(broker::QueueInfo{});
  }

  FakeShard shard_;
  ReceiptCodec codec_{ReceiptCodec::NewKey()};
  KeyedHash hash_{KeyedHash::Key{9}};
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::QueueService::Stub> queue_stub_;
  std::unique_ptr<v1::AdminService::Stub> admin_stub_;
};

}  // namespace sluice::api

#endif  // SLUICE_TESTS_UNIT_API_SERVER_FIXTURE_H_
