// ListMessages, GetMessage, DeleteMessages, RescheduleMessages.
#include "server/api/message_scan.h"
#include "server/model/error.h"
#include "tests/unit/api/calls_fixture.h"

namespace sluice::api {
namespace {

using Action = broker::EditMessagesCommand::Action;

class MessageCallsTest : public CallsTest {
 protected:
  static v1::ListMessagesRequest ListRequest() {
    v1::ListMessagesRequest request;
    request.set_queue("orders");
    return request;
  }
};

TEST_F(MessageCallsTest, APageEndsWhereItIsFullAndTheNextBeginsThere) {
  v1::ListMessagesRequest request = ListRequest();
  request.set_page_size(3);
  auto first = Call(&Admin::ListMessages, request);
  auto command = AnswerScan(1, 5, true);
  EXPECT_EQ(command.queue, "orders");
  EXPECT_EQ(command.cursor.lane, 0);
  EXPECT_EQ(command.cursor.seq, 0u);
  auto page = first.get();
  ASSERT_TRUE(page.status.ok()) << page.status.error_message();
  ASSERT_EQ(page.response.messages_size(), 3);
  EXPECT_EQ(page.response.messages(2).message().id(), Id(3));
  EXPECT_EQ(page.response.messages(2).message().body(), "");
  EXPECT_GT(page.response.messages(2).size_bytes(), 2);

  request.set_page_token(page.response.next_page_token());
  auto second = Call(&Admin::ListMessages, request);
  command = AnswerScan(4, 6, false);
  EXPECT_EQ(command.cursor.lane, 5);
  EXPECT_EQ(command.cursor.seq, 4u);
  page = second.get();
  ASSERT_EQ(page.response.messages_size(), 3);
  EXPECT_TRUE(page.response.next_page_token().empty()) << "exactly full, and the last";
}

TEST_F(MessageCallsTest, PageSizeAndBodiesMayChangeBetweenPagesAndTheFilterMayNot) {
  v1::ListMessagesRequest request = ListRequest();
  request.set_page_size(1);
  auto first = Call(&Admin::ListMessages, request);
  AnswerScan(1, 2, false);
  request.set_page_token(first.get().response.next_page_token());
  request.set_page_size(2);
  request.set_max_body_bytes(-1);
  auto second = Call(&Admin::ListMessages, request);
  AnswerScan(2, 2, false);
  EXPECT_EQ(second.get().response.messages(0).message().body(), "b2");
  request.mutable_filter()->add_groups("odd");
  EXPECT_EQ(Refusal(&Admin::ListMessages, request), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(MessageCallsTest, OneCallLooksAtSoManyMessagesAndNoMore) {
  v1::ListMessagesRequest request = ListRequest();
  request.mutable_filter()->add_groups("none of them");
  auto call = Call(&Admin::ListMessages, request);
  for (Seq seq = 1; seq <= kScanMessagesMax; seq += kScanStepMessages) {
    AnswerScan(seq, seq + kScanStepMessages - 1, true);
  }
  const auto page = call.get();  // asks the shard no further
  ASSERT_TRUE(page.status.ok());
  EXPECT_EQ(page.response.messages_size(), 0);
  EXPECT_FALSE(page.response.next_page_token().empty());
}

TEST_F(MessageCallsTest, AnAnswerStaysWithinItsSize) {
  v1::ListMessagesRequest request = ListRequest();
  request.set_max_body_bytes(-1);
  auto first = Call(&Admin::ListMessages, request);
  AnswerScan(1, 5, false, 1'000'000);
  const auto page = first.get();
  ASSERT_TRUE(page.status.ok());
  ASSERT_EQ(page.response.messages_size(), 3);
  EXPECT_LE(page.response.ByteSizeLong(), static_cast<size_t>(kResponseBytesMax));
  EXPECT_FALSE(page.response.next_page_token().empty());
}

TEST_F(MessageCallsTest, AMessageLargerThanAnAnswerComesAlone) {
  v1::ListMessagesRequest request = ListRequest();
  request.set_max_body_bytes(-1);
  auto first = Call(&Admin::ListMessages, request);
  AnswerScan(1, 2, false, 3'500'000);
  const auto page = first.get();
  ASSERT_TRUE(page.status.ok()) << page.status.error_message();
  EXPECT_EQ(page.response.messages_size(), 1);
}

TEST_F(MessageCallsTest, BodiesAreCutAsAskedFor) {
  v1::ListMessagesRequest request = ListRequest();
  for (const auto& [max, expected] : {std::pair(0, ""), std::pair(1, "b"), std::pair(2, "b1"),
                                      std::pair(9, "b1"), std::pair(-1, "b1")}) {
    request.set_max_body_bytes(max);
    auto call = Call(&Admin::ListMessages, request);
    AnswerScan(1, 1, false);
    EXPECT_EQ(call.get().response.messages(0).message().body(), expected) << max;
  }
  request.set_max_body_bytes(-2);
  EXPECT_EQ(Refusal(&Admin::ListMessages, request), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(MessageCallsTest, IdsAreLookedUpAndMissingOnesPassedOver) {
  v1::ListMessagesRequest request = ListRequest();
  for (const Seq seq : {4, 5, 6}) request.mutable_filter()->add_ids(Id(seq));
  request.mutable_filter()->add_groups("even");
  auto call = Call(&Admin::ListMessages, request);
  for (const Seq seq : {4, 5, 6}) {
    auto command = shard_.Take<broker::GetMessageCommand>();
    EXPECT_EQ(command.id.seq, seq);
    if (seq == 4) {
      command.done(MakeError(ErrorReason::kMessageNotFound, "settled"));
    } else {
      command.done(Listed(seq));
    }
  }
  const auto page = call.get();
  ASSERT_TRUE(page.status.ok());
  ASSERT_EQ(page.response.messages_size(), 1);
  EXPECT_EQ(page.response.messages(0).message().id(), Id(6));
}

TEST_F(MessageCallsTest, AMissingQueueEndsALookUp) {
  v1::ListMessagesRequest request = ListRequest();
  request.mutable_filter()->add_ids(Id(1));
  auto call = Call(&Admin::ListMessages, request);
  shard_.Take<broker::GetMessageCommand>().done(MakeError(ErrorReason::kQueueNotFound, "gone"));
  EXPECT_EQ(call.get().status.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(MessageCallsTest, AMessageTellsWhyItWaits) {
  v1::GetMessageRequest request;
  request.set_queue("orders");
  request.set_message_id("garbled");
  EXPECT_EQ(Refusal(&Admin::GetMessage, request), grpc::StatusCode::INVALID_ARGUMENT);
  request.set_message_id(Id(2));
  auto call = Call(&Admin::GetMessage, request);
  auto command = shard_.Take<broker::GetMessageCommand>();
  auto listed = Listed(2);
  listed.state = MessageState::kBlocked;
  listed.waiting = WaitReason::kGroupBlocked;
  listed.blocked_by = MessagePosition{0, 7, 5, 1};
  listed.until_ms = 1'700'000'001'500;
  Deaths deaths;
  AddDeath({"mail", DeathReason::kRejected, 1, 1, 0, 0, "why"}, deaths);
  listed.deaths = std::make_shared<const Deaths>(deaths);
  command.done(listed);
  const auto answer = call.get();
  ASSERT_TRUE(answer.status.ok());
  const v1::StoredMessage& stored = answer.response.message();
  EXPECT_EQ(stored.state(), v1::MESSAGE_STATE_BLOCKED);
  EXPECT_EQ(stored.waiting(), v1::WAIT_REASON_GROUP_BLOCKED);
  EXPECT_EQ(stored.blocked_by_id(), Id(1));
  EXPECT_EQ(stored.until().nanos(), 500'000'000);
  EXPECT_EQ(stored.deaths(0).detail(), "why");
}

TEST_F(MessageCallsTest, DamagedMessagesAreSaidToBeSo) {
  auto call = Call(&Admin::ListMessages, ListRequest());
  broker::ListMessagesCommand::Outcome outcome;
  outcome.messages.push_back(Listed(1));
  outcome.messages[0].payload = Payload::CopyOf("\xff\xff\xff");
  shard_.Take<broker::ListMessagesCommand>().done(std::move(outcome));
  EXPECT_EQ(call.get().status.error_code(), grpc::StatusCode::DATA_LOSS);
}

TEST_F(MessageCallsTest, DeletesWhatTheFilterSelectsInOneCommand) {
  v1::DeleteMessagesRequest request;
  request.set_queue("orders");
  EXPECT_EQ(Refusal(&Admin::DeleteMessages, request), grpc::StatusCode::INVALID_ARGUMENT);
  request.mutable_filter()->add_groups("even");
  auto call = Call(&Admin::DeleteMessages, request);
  AnswerScan(1, 4, true);
  AnswerScan(5, 6, false);
  auto command = shard_.Take<broker::EditMessagesCommand>();
  EXPECT_EQ(command.action, Action::kDelete);
  EXPECT_FALSE(command.include_leased);
  ASSERT_EQ(command.positions.size(), 3u);
  EXPECT_EQ(command.positions[2].seq, 6u);
  command.done(2);  // one was settled meanwhile
  const auto answer = call.get();
  EXPECT_EQ(answer.response.deleted(), 2);
  EXPECT_TRUE(answer.response.next_page_token().empty());
}

TEST_F(MessageCallsTest, ADryRunCountsWhatWouldBeTaken) {
  v1::DeleteMessagesRequest request;
  request.set_queue("orders");
  request.mutable_filter()->mutable_min_age()->set_nanos(1);
  request.set_dry_run(true);
  for (const bool include_leased : {false, true}) {
    request.set_include_leased(include_leased);
    auto call = Call(&Admin::DeleteMessages, request);
    broker::ListMessagesCommand::Outcome outcome;
    outcome.messages = {Listed(1), Listed(2)};
    outcome.messages[0].state = MessageState::kLeased;
    shard_.Take<broker::ListMessagesCommand>().done(std::move(outcome));
    EXPECT_EQ(call.get().response.deleted(), include_leased ? 2 : 1);  // and no edit follows
  }
}

class RescheduleTest : public MessageCallsTest {
 protected:
  static v1::RescheduleMessagesRequest Request() {
    v1::RescheduleMessagesRequest request;
    request.set_queue("orders");
    request.mutable_filter()->add_groups("odd");
    request.mutable_filter()->add_groups("even");
    return request;
  }
  static broker::ListedMessage Delayed(Seq seq, int64_t until_ms) {
    auto message = Listed(seq);
    message.state = MessageState::kDelayed;
    message.until_ms = until_ms;
    return message;
  }
};

TEST_F(RescheduleTest, WantsATimeWithinItsBounds) {
  v1::RescheduleMessagesRequest request = Request();
  const auto refusal = [&] { return Refusal(&Admin::RescheduleMessages, request); };
  EXPECT_EQ(refusal(), grpc::StatusCode::INVALID_ARGUMENT);
  request.mutable_delay()->set_seconds(-1);
  EXPECT_EQ(refusal(), grpc::StatusCode::INVALID_ARGUMENT);
  request.mutable_delay()->set_seconds(367 * 86400);
  EXPECT_EQ(refusal(), grpc::StatusCode::INVALID_ARGUMENT);
  request.mutable_deliver_at()->set_seconds(INT64_MAX);
  EXPECT_EQ(refusal(), grpc::StatusCode::INVALID_ARGUMENT);
  request.mutable_deliver_at()->set_seconds(1);
  request.mutable_deliver_at()->set_nanos(-1);
  EXPECT_EQ(refusal(), grpc::StatusCode::INVALID_ARGUMENT);
  request.mutable_delay()->set_seconds(1);
  request.clear_filter();
  EXPECT_EQ(refusal(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(RescheduleTest, AtOnceTakesOnlyWhatIsDelayed) {
  v1::RescheduleMessagesRequest request = Request();
  request.mutable_delay();
  auto call = Call(&Admin::RescheduleMessages, request);
  broker::ListMessagesCommand::Outcome outcome;
  outcome.messages = {Listed(1), Delayed(2, INT64_MAX)};
  shard_.Take<broker::ListMessagesCommand>().done(std::move(outcome));
  auto command = shard_.Take<broker::EditMessagesCommand>();
  ASSERT_EQ(command.positions.size(), 1u);
  EXPECT_EQ(command.positions[0].seq, 2u);
  command.done(1);
  EXPECT_EQ(call.get().response.rescheduled(), 1);
}

// The moved ones lie behind the scan again: were they not known by their time, it had no end.
TEST_F(RescheduleTest, LaterPagesKeepTheTimeOfTheFirstAndPassOverWhatHasIt) {
  v1::RescheduleMessagesRequest request = Request();
  request.mutable_delay()->set_seconds(60);
  auto first = Call(&Admin::RescheduleMessages, request);
  for (Seq seq = 1; seq <= kScanMessagesMax; seq += kScanStepMessages) {
    AnswerScan(seq, seq + kScanStepMessages - 1, true);
  }
  auto command = shard_.Take<broker::EditMessagesCommand>();
  EXPECT_EQ(command.action, Action::kReschedule);
  EXPECT_EQ(command.positions.size(), static_cast<size_t>(kScanMessagesMax));
  const int64_t deliver_at_ms = command.deliver_at_ms;
  EXPECT_EQ(command.delay_ms, 0);
  command.done(kScanMessagesMax);
  auto page = first.get();
  ASSERT_TRUE(page.status.ok());
  ASSERT_FALSE(page.response.next_page_token().empty());

  request.set_page_token(page.response.next_page_token());
  auto second = Call(&Admin::RescheduleMessages, request);
  auto scan = shard_.Take<broker::ListMessagesCommand>();
  EXPECT_EQ(scan.cursor.seq, static_cast<Seq>(kScanMessagesMax) + 1);
  broker::ListMessagesCommand::Outcome outcome;
  outcome.messages = {Delayed(1, deliver_at_ms), Delayed(2, deliver_at_ms + 1)};
  scan.done(std::move(outcome));
  command = shard_.Take<broker::EditMessagesCommand>();
  EXPECT_EQ(command.deliver_at_ms, deliver_at_ms);
  ASSERT_EQ(command.positions.size(), 1u);
  EXPECT_EQ(command.positions[0].seq, 2u);
  command.done(1);
  EXPECT_TRUE(second.get().response.next_page_token().empty());

  request.mutable_delay()->set_seconds(61);
  EXPECT_EQ(Refusal(&Admin::RescheduleMessages, request), grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace sluice::api
