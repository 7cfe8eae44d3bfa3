// A gRPC edge over a fake shard, with every call open, for tests of single calls.
#ifndef SLUICE_TESTS_UNIT_API_CALLS_FIXTURE_H_
#define SLUICE_TESTS_UNIT_API_CALLS_FIXTURE_H_

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/api/server.h"
#include "sluice/v1/admin_service.grpc.pb.h"
#include "sluice/v1/queue_service.grpc.pb.h"
#include "tests/unit/api/fake_shard.h"

namespace sluice::api {

template <typename Response>
struct Answer {
  grpc::Status status;
  Response response;
};

class CallsTest : public testing::Test {
 protected:
  using Admin = v1::AdminService::Stub;
  using Queues = v1::QueueService::Stub;

  void SetUp() override {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    auto server = Server::Start(options, &shard_, codec_, hash_, Clock::System(), nullptr);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    const auto channel = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                             grpc::InsecureChannelCredentials());
    admin_ = v1::AdminService::NewStub(channel);
    queues_ = v1::QueueService::NewStub(channel);
  }

  // Calls on a thread of its own, so that the test can be the shard meanwhile.
  template <typename Stub, typename Request, typename Response>
  std::future<Answer<Response>> Call(
      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
      const Request& request) {
    return std::async(std::launch::async, [this, method, request] {
      grpc::ClientContext context;
      Answer<Response> answer;
      answer.status = (StubOf<Stub>()->*method)(&context, request, &answer.response);
      return answer;
    });
  }

  // Of a call that the shard never sees.
  template <typename Stub, typename Request, typename Response>
  grpc::StatusCode Refusal(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                        Response*),
                           const Request& request) {
    return Call(method, request).get().status.error_code();
  }

  // Message `seq` of the lane of priority 4, "b<seq>" in its body.
  static broker::ListedMessage Listed(Seq seq, size_t body_bytes = 0) {
    v1::Message message;
    message.set_id(FormatMessageId({0, 7, 5, seq}));
    message.set_body(absl::StrCat("b", seq, std::string(body_bytes, 'x')));
    message.set_group(seq % 2 == 0 ? "even" : "odd");
    broker::ListedMessage listed;
    listed.position = {0, 7, 5, seq};
    listed.payload = Payload::CopyOf(message.SerializeAsString());
    listed.publish_ms = 1'700'000'000'000;
    return listed;
  }
  static std::string Id(Seq seq) { return FormatMessageId({0, 7, 5, seq}); }

  // Answers one scan step with the messages [first, last]; `more`: others follow.
  broker::ListMessagesCommand AnswerScan(Seq first, Seq last, bool more, size_t body_bytes = 0) {
    auto command = shard_.Take<broker::ListMessagesCommand>();
    broker::ListMessagesCommand::Outcome outcome;
    for (Seq seq = first; seq <= last; ++seq) outcome.messages.push_back(Listed(seq, body_bytes));
    if (more) outcome.next = broker::ListCursor{5, last + 1};
    command.done(std::move(outcome));
    return command;
  }

  FakeShard shard_;
  ReceiptCodec codec_{ReceiptCodec::NewKey()};
  KeyedHash hash_{KeyedHash::Key{9}};
  std::unique_ptr<Server> server_;
  std::unique_ptr<Admin> admin_;
  std::unique_ptr<Queues> queues_;

 private:
  template <typename Stub>
  Stub* StubOf() {
    if constexpr (std::is_same_v<Stub, Admin>) {
      return admin_.get();
    } else {
      return queues_.get();
    }
  }
};

}  // namespace sluice::api

#endif  // SLUICE_TESTS_UNIT_API_CALLS_FIXTURE_H_
