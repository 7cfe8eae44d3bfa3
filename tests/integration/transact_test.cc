// Transact: acks, nacks and publishes of one call happen together or not at all.
#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr grpc::StatusCode kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
constexpr grpc::StatusCode kNotFound = grpc::StatusCode::NOT_FOUND;

class TransactTest : public FeatureTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    MakeQueue("in");
    MakeQueue("out");
  }
  grpc::Status Transact(const v1::TransactRequest& request,
                        v1::TransactResponse* response = nullptr) {
    v1::TransactResponse ignored;
    return CallQueues(&QueueService::Stub::Transact, request, response ? response : &ignored);
  }
  static void AddAck(const std::string& queue, const std::string& receipt,
                     v1::TransactRequest* request) {
    v1::AckRequest& ack = *request->add_acks();
    ack.set_queue(queue);
    ack.add_receipts(receipt);
  }
  static void AddNack(const std::string& queue, const std::string& receipt, v1::NackAction action,
                      v1::TransactRequest* request) {
    v1::NackRequest& nack = *request->add_nacks();
    nack.set_queue(queue);
    nack.add_items()->set_receipt(receipt);
    nack.mutable_items(0)->set_action(action);
  }
  static void AddPublish(const std::string& queue, const std::string& body,
                         v1::TransactRequest* request) {
    v1::PublishRequest& publish = *request->add_publishes();
    publish.set_queue(queue);
    publish.add_messages()->set_body(body);
  }
};

TEST_F(TransactTest, DoesAllOfItAndACrashRightBehindUndoesNone) {
  Publish("in", {"done", "again", "dropped"});
  const std::vector<v1::Delivery> taken = ReceiveAll("in", 3);
  v1::TransactRequest request;
  AddAck("in", taken[0].receipt(), &request);
  AddNack("in", taken[1].receipt(), v1::NACK_ACTION_RETRY, &request);
  AddNack("in", taken[2].receipt(), v1::NACK_ACTION_DISCARD, &request);
  AddPublish("out", "result", &request);
  AddPublish("in", "next", &request);
  v1::TransactResponse response;
  ASSERT_THAT(Transact(request, &response), IsOk());
  ASSERT_EQ(response.publishes_size(), 2);
  KillAndRestart();
  const std::vector<v1::Delivery> in = ReceiveAll("in", 2);
  EXPECT_THAT(BodiesOf(in), ElementsAre("again", "next"));
  EXPECT_EQ(in[0].attempt(), 2);
  EXPECT_EQ(in[1].message().id(), response.publishes(1).results(0).message_id());
  EXPECT_THAT(Drain("out"), ElementsAre("result"));
}

TEST_F(TransactTest, OneRefusedPartRefusesTheWhole) {
  Publish("in", {"m", "outlived"});
  const std::vector<v1::Delivery> taken = ReceiveAll("in", 2);
  Nack("in", taken[1].receipt(), v1::NACK_ACTION_RETRY);
  const v1::Delivery again = ReceiveAll("in", 1)[0];
  v1::QueueConfig full = QueueNamed("full");
  full.set_max_length(1);
  Create(full);
  Send("full", MessageOf("in the way"));

  v1::TransactRequest good;
  AddAck("in", taken[0].receipt(), &good);
  AddPublish("out", "result", &good);
  v1::TransactRequest request = good;
  AddAck("in", taken[1].receipt(), &request);
  EXPECT_THAT(Transact(request),
              FailsWith(grpc::StatusCode::FAILED_PRECONDITION, "LEASE_EXPIRED"));
  request = good;
  AddAck("in", "garbled", &request);
  EXPECT_THAT(Transact(request),
              FailsWithField(kInvalid, "RECEIPT_INVALID", "acks[1].receipts[0]"));
  request = good;
  AddPublish("full", "m", &request);
  EXPECT_THAT(Transact(request), FailsWith(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUEUE_FULL"));
  request = good;
  AddPublish("nowhere", "m", &request);
  EXPECT_THAT(Transact(request), FailsWith(kNotFound, "QUEUE_NOT_FOUND"));
  request = good;
  AddPublish("out", std::string((1 << 20) + 1, 'x'), &request);
  EXPECT_THAT(Transact(request), FailsWithField(kInvalid, "MESSAGE_TOO_LARGE",
                                                "publishes[1].messages[0].body"));
  request = good;
  *request.mutable_publishes(0)->mutable_wait_when_full() = ToProto(absl::Seconds(1));
  EXPECT_THAT(Transact(request),
              FailsWithField(kInvalid, "INVALID_FIELD", "publishes[0].wait_when_full"));
  EXPECT_THAT(Transact(v1::TransactRequest()), FailsWith(kInvalid, "INVALID_FIELD"));

  EXPECT_EQ(Stats("in").leased(), 2) << "nothing of it happened";
  EXPECT_EQ(Stats("out").ready(), 0);
  EXPECT_THAT(Transact(good), IsOk());
  EXPECT_EQ(Ack("in", {again.receipt()}).acked(), 1);
  EXPECT_THAT(Drain("out"), ElementsAre("result"));
}

TEST_F(TransactTest, HasTheLimitsOfItsParts) {
  v1::TransactRequest request;
  v1::PublishRequest& publish = *request.add_publishes();
  publish.set_queue("out");
  for (int i = 0; i < 999; ++i) publish.add_messages();
  AddPublish("out", "the thousandth", &request);
  EXPECT_THAT(Transact(request), IsOk());
  AddPublish("out", "one too many", &request);
  EXPECT_THAT(Transact(request), FailsWithField(kInvalid, "BATCH_TOO_LARGE", "publishes[2]"));
  EXPECT_EQ(Stats("out").ready(), 1000);
}

TEST_F(TransactTest, WhatItAcksMakesRoomForWhatItPublishes) {
  v1::QueueConfig config = QueueNamed("loop");
  config.set_max_length(2);
  Create(config);
  SendAll("loop", {MessageOf("1"), MessageOf("2")});
  const std::vector<v1::Delivery> taken = ReceiveAll("loop", 2);
  v1::TransactRequest request;
  AddAck("loop", taken[0].receipt(), &request);
  AddAck("loop", taken[0].receipt(), &request);
  AddPublish("loop", "1 again", &request);
  EXPECT_THAT(Transact(request), IsOk()) << "the queue is never longer than it may be";
  AddPublish("loop", "one too many", &request);
  EXPECT_THAT(Transact(request), FailsWith(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUEUE_FULL"))
      << "one message makes room once, and a settled one none";
  v1::TransactRequest discard;
  AddNack("loop", taken[1].receipt(), v1::NACK_ACTION_DISCARD, &discard);
  AddPublish("loop", "2 again", &discard);
  EXPECT_THAT(Transact(discard), IsOk());
  EXPECT_THAT(Drain("loop"), ElementsAre("1 again", "2 again"));
}

TEST_F(TransactTest, WhatItSettlesIsNotDroppedToMakeRoom) {
  v1::QueueConfig config = QueueNamed("latest");
  config.set_max_length(2);
  config.set_overflow(v1::OVERFLOW_DROP_HEAD);
  Create(config);
  SendAll("latest", {MessageOf("1"), MessageOf("2")});
  const v1::Delivery first = ReceiveAll("latest", 1)[0];
  Nack("latest", first.receipt(), v1::NACK_ACTION_RELEASE);
  // Its receipt is honoured until it is granted again: it can still be acked, and is the oldest.
  v1::TransactRequest request;
  AddAck("latest", first.receipt(), &request);
  AddPublish("latest", "3", &request);
  AddPublish("latest", "4", &request);
  EXPECT_THAT(Transact(request), IsOk());
  EXPECT_EQ(Total("acked", "latest"), 1);
  EXPECT_EQ(Total("dropped", "latest"), 1);
  EXPECT_THAT(Drain("latest"), ElementsAre("3", "4"));
}

TEST_F(TransactTest, ItsRetryIsSafeWithADeduplicationId) {
  Publish("in", {"m"});
  v1::TransactRequest request;
  AddAck("in", ReceiveAll("in", 1)[0].receipt(), &request);
  AddPublish("out", "result", &request);
  request.mutable_publishes(0)->mutable_messages(0)->set_dedup_id("m-1");
  EXPECT_THAT(Transact(request), IsOk());
  KillAndRestart();
  v1::TransactResponse response;
  EXPECT_THAT(Transact(request, &response), IsOk()) << "acked twice is OK";
  EXPECT_TRUE(response.publishes(0).results(0).duplicate());
  EXPECT_THAT(Drain("out"), ElementsAre("result"));
  EXPECT_THAT(Drain("in"), IsEmpty());
}

}  // namespace
}  // namespace sluice::testing
