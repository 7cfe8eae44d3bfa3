// What is refused, with which status and details, and that it did not happen.
#include <limits>

#include "absl/strings/str_cat.h"
#include "tests/integration/fixture.h"

namespace sluice::testing {
namespace {

constexpr grpc::StatusCode kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
constexpr grpc::StatusCode kNotFound = grpc::StatusCode::NOT_FOUND;
constexpr grpc::StatusCode kUnimplemented = grpc::StatusCode::UNIMPLEMENTED;

class ErrorsTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    MakeQueue("q");
    request_.set_queue("q");
    request_.add_messages()->set_body("m");
  }
  void TearDown() override {
    if (server_.running()) {
      EXPECT_EQ(Stats("q").ready(), 0) << "a refused publish did not happen";
    }
    ServerTest::TearDown();
  }
  v1::Message& message() { return *request_.mutable_messages(0); }
  grpc::Status Create(const v1::QueueConfig& config) {
    v1::CreateQueueRequest request;
    *request.mutable_config() = config;
    v1::CreateQueueResponse response;
    return CallAdmin(&AdminService::Stub::CreateQueue, request, &response);
  }
  grpc::Status Subscribe(const v1::SubscribeRequest& request) {
    auto context = NewContext();
    auto reader = client_->queues->Subscribe(context.get(), request);
    v1::SubscribeResponse response;
    while (reader->Read(&response)) {
      ADD_FAILURE() << "expected a refusal, got " << response.ShortDebugString();
      context->TryCancel();
    }
    return reader->Finish();
  }

  v1::PublishRequest request_;
};

TEST_F(ErrorsTest, EveryCallNamesAnUnknownQueueNotFound) {
  request_.set_queue("nowhere");
  EXPECT_THAT(TryPublish(request_), FailsWith(kNotFound, "QUEUE_NOT_FOUND"));
  EXPECT_THAT(Subscribe(SubscribeTo("nowhere")), FailsWith(kNotFound, "QUEUE_NOT_FOUND"));
  {
    v1::ReceiveRequest request;
    request.set_queue("nowhere");
    v1::ReceiveResponse response;
    EXPECT_THAT(CallQueues(&QueueService::Stub::Receive, request, &response),
                FailsWith(kNotFound, "QUEUE_NOT_FOUND"));
  }
  {
    v1::AckRequest request;
    request.set_queue("nowhere");
    request.add_receipts("x");
    v1::AckResponse response;
    EXPECT_THAT(CallQueues(&QueueService::Stub::Ack, request, &response),
                FailsWith(kNotFound, "QUEUE_NOT_FOUND"));
  }
  {
    v1::GetQueueRequest request;
    request.set_queue("nowhere");
    v1::GetQueueResponse response;
    EXPECT_THAT(CallAdmin(&AdminService::Stub::GetQueue, request, &response),
                FailsWith(kNotFound, "QUEUE_NOT_FOUND"));
  }
  {
    v1::PurgeQueueRequest request;
    request.set_queue("nowhere");
    v1::PurgeQueueResponse response;
    EXPECT_THAT(CallAdmin(&AdminService::Stub::PurgeQueue, request, &response),
                FailsWith(kNotFound, "QUEUE_NOT_FOUND"));
  }
}

TEST_F(ErrorsTest, PublishWithoutTargetOrMessagesIsRefused) {
  request_.clear_target();
  EXPECT_THAT(TryPublish(request_), FailsWith(kInvalid, "INVALID_FIELD"));
  v1::PublishRequest empty;
  empty.set_queue("q");
  EXPECT_THAT(TryPublish(empty), FailsWithField(kInvalid, "INVALID_FIELD", "messages"));
}

TEST_F(ErrorsTest, PublishOfMoreThanAThousandIsRefused) {
  for (int i = 1; i < 1001; ++i) request_.add_messages()->set_body("m");
  EXPECT_THAT(TryPublish(request_), FailsWithField(kInvalid, "BATCH_TOO_LARGE", "messages"));
}

TEST_F(ErrorsTest, MessageFieldsAreChecked) {
  message().set_priority(10);
  EXPECT_THAT(TryPublish(request_),
              FailsWithField(kInvalid, "INVALID_FIELD", "messages[0].priority"));
  message().set_priority(-1);
  EXPECT_THAT(TryPublish(request_),
              FailsWithField(kInvalid, "INVALID_FIELD", "messages[0].priority"));
  message().clear_priority();
  message().set_routing_key(std::string(256, 'k'));
  EXPECT_THAT(TryPublish(request_),
              FailsWithField(kInvalid, "INVALID_FIELD", "messages[0].routing_key"));
  message().clear_routing_key();
  message().set_correlation_id(std::string(256, 'k'));
  EXPECT_THAT(TryPublish(request_),
              FailsWithField(kInvalid, "INVALID_FIELD", "messages[0].correlation_id"));
  message().clear_correlation_id();
  for (int i = 0; i < 65; ++i) {
    (*message().mutable_attributes())[absl::StrCat("key", i)] = "value";
  }
  EXPECT_THAT(TryPublish(request_),
              FailsWithField(kInvalid, "INVALID_FIELD", "messages[0].attributes"));
  message().clear_attributes();
  (*message().mutable_attributes())["key"] = std::string(16 << 10, 'v');
  EXPECT_THAT(TryPublish(request_),
              FailsWithField(kInvalid, "INVALID_FIELD", "messages[0].attributes"));
}

TEST_F(ErrorsTest, SchedulingFieldsAreChecked) {
  message().mutable_delay()->set_seconds(-5);
  EXPECT_THAT(TryPublish(request_),
              FailsWithField(kInvalid, "INVALID_FIELD", "messages[0].delay"));
  message().clear_schedule();
  message().mutable_ttl()->set_seconds(-1);
  EXPECT_THAT(TryPublish(request_), FailsWithField(kInvalid, "INVALID_FIELD", "messages[0].ttl"));
  message().clear_ttl();
  message().set_group(std::string(256, 'g'));
  EXPECT_THAT(TryPublish(request_),
              FailsWithField(kInvalid, "INVALID_FIELD", "messages[0].group"));
}

TEST_F(ErrorsTest, OnlyBackupsAreNotBuilt) {
  auto context = NewContext();
  auto stream = client_->admin->CreateBackup(context.get(), v1::CreateBackupRequest());
  v1::CreateBackupResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), kUnimplemented);
}

TEST_F(ErrorsTest, QueueNamesAreChecked) {
  const std::vector<std::string> names = {"",      "with space", "slash/name",
                                          "\xff\xfe", std::string(256, 'n'), "sluice.mine"};
  for (const std::string& name : names) {
    if (name[0] == '\xff') continue;  // not UTF-8: protobuf itself refuses it on the wire
    v1::QueueConfig config;
    config.set_name(name);
    EXPECT_THAT(Create(config), FailsWithField(kInvalid, "INVALID_FIELD", "config.name")) << name;
  }
  v1::QueueConfig config;
  config.set_name(std::string(255, 'n'));
  EXPECT_THAT(Create(config), IsOk());
}

TEST_F(ErrorsTest, DurationsAreChecked) {
  v1::QueueConfig config;
  config.set_name("new");
  config.mutable_lease()->set_seconds(-1);
  EXPECT_THAT(Create(config), FailsWithField(kInvalid, "INVALID_FIELD", "config.lease"));
  config.mutable_lease()->set_seconds(std::numeric_limits<int64_t>::max());
  EXPECT_THAT(Create(config), FailsWithField(kInvalid, "INVALID_FIELD", "config.lease"));
  config.mutable_lease()->set_seconds(12 * 3600 + 1);
  EXPECT_THAT(Create(config), FailsWithField(kInvalid, "INVALID_FIELD", "config.lease"));
  v1::SubscribeRequest request = SubscribeTo("q");
  request.mutable_lease()->set_nanos(999'999'999);
  EXPECT_THAT(Subscribe(request), FailsWithField(kInvalid, "INVALID_FIELD", "lease"));
  request.mutable_lease()->set_seconds(5);
  request.mutable_lease()->set_nanos(-5);
  EXPECT_THAT(Subscribe(request), FailsWithField(kInvalid, "INVALID_FIELD", "lease"));
}

TEST_F(ErrorsTest, CreditIsChecked) {
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_max_in_flight(-1);
  EXPECT_THAT(Subscribe(request), FailsWithField(kInvalid, "INVALID_FIELD", "max_in_flight"));
  request.set_max_in_flight(0);
  request.set_max_bytes_in_flight(-1);
  EXPECT_THAT(Subscribe(request),
              FailsWithField(kInvalid, "INVALID_FIELD", "max_bytes_in_flight"));
}

TEST_F(ErrorsTest, SettlingNothingOrTooMuchIsRefused) {
  v1::AckRequest request;
  request.set_queue("q");
  v1::AckResponse response;
  EXPECT_THAT(CallQueues(&QueueService::Stub::Ack, request, &response),
              FailsWithField(kInvalid, "INVALID_FIELD", "receipts"));
  for (int i = 0; i < 10'001; ++i) request.add_receipts("x");
  EXPECT_THAT(CallQueues(&QueueService::Stub::Ack, request, &response),
              FailsWithField(kInvalid, "BATCH_TOO_LARGE", "receipts"));
}

TEST_F(ErrorsTest, NackFieldsAreChecked) {
  v1::NackRequest request;
  request.set_queue("q");
  v1::NackItem& item = *request.add_items();
  item.set_receipt("x");
  item.set_action(static_cast<v1::NackAction>(77));
  v1::NackResponse response;
  EXPECT_THAT(CallQueues(&QueueService::Stub::Nack, request, &response),
              FailsWithField(kInvalid, "INVALID_FIELD", "items[0].action"));
  item.set_action(v1::NACK_ACTION_DELAY);
  item.mutable_delay()->set_seconds(-1);
  EXPECT_THAT(CallQueues(&QueueService::Stub::Nack, request, &response),
              FailsWithField(kInvalid, "INVALID_FIELD", "items[0].delay"));
}

}  // namespace
}  // namespace sluice::testing
