#include "server/model/error.h"
#include "tests/unit/api/calls_fixture.h"

namespace sluice::api {
namespace {

class TransactTest : public CallsTest {
 protected:
  std::string Text(Seq seq) const {
    std::string text(kReceiptBytes, '\0');
    codec_.Encode({{0, 7, 5, seq}, 1, 1}, text.data());
    return text;
  }
  v1::TransactRequest Whole() const {
    v1::TransactRequest request;
    v1::AckRequest& ack = *request.add_acks();
    ack.set_queue("orders");
    ack.add_receipts(Text(1));
    ack.add_receipts(Text(2));
    v1::NackRequest& nack = *request.add_nacks();
    nack.set_queue("mail");
    nack.add_items()->set_receipt(Text(3));
    v1::PublishRequest& publish = *request.add_publishes();
    publish.set_queue("invoices");
    publish.add_messages()->set_body("a");
    publish.add_messages()->set_body("b");
    return request;
  }
  std::string RefusedWith(const v1::TransactRequest& request) {
    const auto answer = Call(&Queues::Transact, request).get();
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    return answer.status.error_message();
  }
};

TEST_F(TransactTest, AllPartsGoInOneCommand) {
  auto call = Call(&Queues::Transact, Whole());
  auto command = shard_.Take<broker::TransactCommand>();
  ASSERT_EQ(command.acks.size(), 1u);
  EXPECT_EQ(command.acks[0].queue, "orders");
  ASSERT_EQ(command.acks[0].items.size(), 2u);
  EXPECT_EQ(command.acks[0].items[1].receipt.position.seq, 2u);
  ASSERT_EQ(command.nacks.size(), 1u);
  EXPECT_EQ(command.nacks[0].items[0].action, broker::SettleAction::kRetry);
  EXPECT_EQ(command.nacks[0].items[0].receipt.position.seq, 3u);
  ASSERT_EQ(command.publishes.size(), 1u);
  EXPECT_EQ(command.publishes[0].queue, "invoices");
  EXPECT_EQ(command.publishes[0].messages.size(), 2u);
  std::vector<std::vector<broker::PublishedMessage>> published(1);
  published[0].resize(2);
  published[0][0].id = {0, 9, 5, 1};
  published[0][1].id = {0, 9, 5, 2};
  published[0][1].duplicate = true;
  command.done(published);
  const auto answer = call.get();
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_EQ(answer.response.publishes_size(), 1);
  ASSERT_EQ(answer.response.publishes(0).results_size(), 2);
  EXPECT_EQ(answer.response.publishes(0).results(0).message_id(), FormatMessageId({0, 9, 5, 1}));
  EXPECT_TRUE(answer.response.publishes(0).results(1).duplicate());
}

TEST_F(TransactTest, RefusalsNameThePartAndTheField) {
  EXPECT_NE(RefusedWith({}), "");
  v1::TransactRequest request = Whole();
  request.mutable_acks(0)->set_receipts(1, "garbled");
  EXPECT_EQ(RefusedWith(request).rfind("acks[0].receipts[1]", 0), 0u);
  request = Whole();
  request.mutable_acks(0)->clear_receipts();
  EXPECT_EQ(RefusedWith(request).rfind("acks[0].receipts", 0), 0u);
  request = Whole();
  request.mutable_nacks(0)->clear_queue();
  EXPECT_EQ(RefusedWith(request).rfind("nacks[0].queue", 0), 0u);
  request = Whole();
  request.mutable_nacks(0)->mutable_items(0)->set_receipt("garbled");
  EXPECT_EQ(RefusedWith(request).rfind("nacks[0].items[0]", 0), 0u);
  request = Whole();
  request.mutable_publishes(0)->mutable_messages(1)->set_priority(10);
  EXPECT_EQ(RefusedWith(request).rfind("publishes[0].messages[1].priority", 0), 0u);
  request = Whole();
  request.mutable_publishes(0)->mutable_wait_when_full()->set_seconds(1);
  EXPECT_EQ(RefusedWith(request).rfind("publishes[0].wait_when_full", 0), 0u);
}

TEST_F(TransactTest, ItsLimitsAreThoseOfOneCallEach) {
  v1::TransactRequest request = Whole();
  request.clear_acks();
  for (int i = 0; i < 2; ++i) {
    v1::AckRequest& ack = *request.add_acks();
    ack.set_queue("orders");
    for (int j = 0; j < kReceiptsPerCallMax / 2; ++j) ack.add_receipts(Text(1));
  }
  EXPECT_EQ(RefusedWith(request).rfind("nacks[0]", 0), 0u) << "one more than fits";
  request = Whole();
  for (int i = 0; i < 2; ++i) {
    v1::PublishRequest& publish = *request.add_publishes();
    publish.set_queue("invoices");
    for (int j = 0; j < kMessagesPerPublishMax / 2; ++j) publish.add_messages();
  }
  EXPECT_EQ(RefusedWith(request).rfind("publishes[2]", 0), 0u);
}

TEST_F(TransactTest, TheShardsRefusalIsThatOfTheCall) {
  auto call = Call(&Queues::Transact, Whole());
  shard_.Take<broker::TransactCommand>().done(
      MakeError(ErrorReason::kLeaseExpired, "acks[0].receipts[1]: granted again"));
  EXPECT_EQ(call.get().status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

}  // namespace
}  // namespace sluice::api
