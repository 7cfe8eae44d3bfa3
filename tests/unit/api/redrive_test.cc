#include "server/api/redrive.h"

#include "server/model/error.h"
#include "tests/unit/api/calls_fixture.h"

namespace sluice::api {
namespace {

constexpr int64_t kBeginMs = 1'700'000'000'000;

class RedriveTest : public CallsTest {
 protected:
  using Reader = grpc::ClientReader<v1::RedriveMessagesResponse>;

  RedriveTest() { request_.set_queue("dead"); }

  std::unique_ptr<Reader> Begin() { return admin_->RedriveMessages(&context_, request_); }

  void AnswerQueue(const std::string& name, int64_t ready, int64_t now_ms = kBeginMs) {
    auto command = shard_.Take<broker::GetQueueCommand>();
    EXPECT_EQ(command.queue, name);
    broker::QueueInfo info;
    info.stats.ready = ready;
    info.now_ms = now_ms;
    command.done(info);
  }

  static broker::ListedMessage Dead(Seq seq, int64_t died_ms = kBeginMs) {
    auto message = Listed(seq);
    Deaths deaths;
    AddDeath({"orders", DeathReason::kAttempts, 1, 3, died_ms, died_ms, ""}, deaths);
    message.deaths = std::make_shared<const Deaths>(std::move(deaths));
    return message;
  }

  void AnswerDead(std::vector<broker::ListedMessage> messages, bool more = false) {
    broker::ListMessagesCommand::Outcome outcome;
    const Seq last = messages.empty() ? 0 : messages.back().position.seq;
    outcome.messages = std::move(messages);
    if (more) outcome.next = broker::ListCursor{5, last + 1};
    shard_.Take<broker::ListMessagesCommand>().done(std::move(outcome));
  }

  // Reads to the end; the last answer.
  v1::RedriveMessagesResponse Finish(Reader& reader, grpc::StatusCode code) {
    v1::RedriveMessagesResponse response;
    while (reader.Read(&response)) {
    }
    EXPECT_EQ(reader.Finish().error_code(), code);
    return response;
  }

  grpc::ClientContext context_;
  v1::RedriveMessagesRequest request_;
};

TEST_F(RedriveTest, MovesWhatDiedBeforeAndReports) {
  auto reader = Begin();
  AnswerQueue("dead", 4);
  auto leased = Dead(2);
  leased.state = MessageState::kLeased;
  // 3 came straight here; 4 died after this call began.
  AnswerDead({Dead(1), leased, Listed(3), Dead(4, INT64_MAX)}, true);
  auto move = shard_.Take<broker::EditMessagesCommand>();
  EXPECT_EQ(move.queue, "dead");
  EXPECT_EQ(move.action, broker::EditMessagesCommand::Action::kMove);
  EXPECT_EQ(move.to_queue, "");
  ASSERT_EQ(move.positions.size(), 1u);
  move.done(1);
  AnswerDead({Dead(5), Dead(6)});
  move = shard_.Take<broker::EditMessagesCommand>();
  EXPECT_EQ(move.positions.size(), 2u);
  move.done(1);  // the queue of the other is full
  const auto last = Finish(*reader, grpc::StatusCode::OK);
  EXPECT_EQ(last.moved(), 2);
  EXPECT_EQ(last.skipped(), 3);
  EXPECT_EQ(last.remaining(), 0);
}

// Which may differ from the clock of the machine, when that has been set.
TEST_F(RedriveTest, WhatDiedBeforeIsToldByTheClockOfTheQueue) {
  for (const int64_t begin_ms : {kBeginMs, int64_t{4'000'000'000'000}}) {
    grpc::ClientContext context;
    const auto reader = admin_->RedriveMessages(&context, request_);
    AnswerQueue("dead", 2, begin_ms);
    AnswerDead({Dead(1, begin_ms - 1), Dead(2, begin_ms + 1)});
    auto move = shard_.Take<broker::EditMessagesCommand>();
    ASSERT_EQ(move.positions.size(), 1u) << begin_ms;
    EXPECT_EQ(move.positions[0].seq, 1u);
    move.done(1);
    EXPECT_EQ(Finish(*reader, grpc::StatusCode::OK).moved(), 1);
  }
}

TEST_F(RedriveTest, ElsewhereAlsoTakesWhatNeverDied) {
  request_.set_to_queue("repair");
  auto reader = Begin();
  AnswerQueue("dead", 1);
  AnswerQueue("repair", 0);
  AnswerDead({Listed(1)});
  auto move = shard_.Take<broker::EditMessagesCommand>();
  EXPECT_EQ(move.to_queue, "repair");
  move.done(1);
  EXPECT_EQ(Finish(*reader, grpc::StatusCode::OK).moved(), 1);
}

TEST_F(RedriveTest, StopsAtMaxMessagesAndSaysWhatRemains) {
  request_.set_max_messages(2);
  auto reader = Begin();
  AnswerQueue("dead", 10);
  AnswerDead({Dead(1), Dead(2), Dead(3)}, true);
  auto move = shard_.Take<broker::EditMessagesCommand>();
  ASSERT_EQ(move.positions.size(), 2u);
  move.done(1);  // the first one was gone, so there is room for one more
  move = shard_.Take<broker::EditMessagesCommand>();
  ASSERT_EQ(move.positions.size(), 1u);
  EXPECT_EQ(move.positions[0].seq, 3u);
  move.done(1);
  const auto last = Finish(*reader, grpc::StatusCode::OK);
  EXPECT_EQ(last.moved(), 2);
  EXPECT_EQ(last.remaining(), 7);
}

TEST_F(RedriveTest, ADryRunMovesNothing) {
  request_.set_dry_run(true);
  request_.mutable_filter()->add_death_reasons(v1::DEATH_REASON_ATTEMPTS);
  auto reader = Begin();
  AnswerQueue("dead", 3);
  AnswerDead({Dead(1), Listed(2), Dead(3)});
  const auto last = Finish(*reader, grpc::StatusCode::OK);
  EXPECT_EQ(last.moved(), 2);
  EXPECT_EQ(last.skipped(), 0);
}

TEST_F(RedriveTest, MovesNoMoreAtOnceThanThePaceAllows) {
  request_.mutable_rate()->set_per_second(50);
  request_.mutable_rate()->set_burst(2);
  auto reader = Begin();
  AnswerQueue("dead", 5);
  auto scan = shard_.Take<broker::ListMessagesCommand>();
  EXPECT_EQ(scan.scan_max, 50) << "no more than a second's worth waits";
  broker::ListMessagesCommand::Outcome outcome;
  for (Seq seq = 1; seq <= 5; ++seq) outcome.messages.push_back(Dead(seq));
  const int64_t begin_ns = Clock::System()->MonotonicNs();
  scan.done(std::move(outcome));
  for (const size_t count : {2, 2, 1}) {
    auto move = shard_.Take<broker::EditMessagesCommand>();
    EXPECT_EQ(move.positions.size(), count);
    move.done(static_cast<int64_t>(count));
  }
  // Five at 50 per second, two of them at once.
  EXPECT_GE(Clock::System()->MonotonicNs() - begin_ns, 59'000'000);
  EXPECT_EQ(Finish(*reader, grpc::StatusCode::OK).moved(), 5);
}

TEST_F(RedriveTest, ACancelledCallStopsAsking) {
  auto reader = Begin();
  AnswerQueue("dead", 1000);
  AnswerDead({Dead(1)}, true);
  auto move = shard_.Take<broker::EditMessagesCommand>();
  context_.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  // The server hears of it before it takes the answer, or soon after: the scan ends.
  v1::CloseConsumerRequest last;
  last.set_consumer_id("1");
  auto closed = Call(&Admin::CloseConsumer, last);
  auto marker = shard_.Take<broker::CloseConsumerCommand>();
  marker.done(absl::OkStatus());
  EXPECT_TRUE(closed.get().status.ok());
  move.done(1);
}

TEST_F(RedriveTest, AFailureOfTheShardEndsItWithTheReason) {
  auto reader = Begin();
  AnswerQueue("dead", 1);
  AnswerDead({Dead(1)});
  shard_.Take<broker::EditMessagesCommand>().done(
      MakeError(ErrorReason::kQueueNotFound, "deleted meanwhile"));
  Finish(*reader, grpc::StatusCode::NOT_FOUND);
}

TEST_F(RedriveTest, RefusesWhatItCannotDo) {
  const auto refusal = [&] {
    grpc::ClientContext context;
    auto reader = admin_->RedriveMessages(&context, request_);
    v1::RedriveMessagesResponse response;
    EXPECT_FALSE(reader->Read(&response));
    return reader->Finish().error_code();
  };
  request_.set_to_queue("dead");
  EXPECT_EQ(refusal(), grpc::StatusCode::INVALID_ARGUMENT);
  request_.clear_to_queue();
  request_.set_max_messages(-1);
  EXPECT_EQ(refusal(), grpc::StatusCode::INVALID_ARGUMENT);
  request_.clear_max_messages();
  request_.mutable_rate();
  EXPECT_EQ(refusal(), grpc::StatusCode::INVALID_ARGUMENT);
  request_.mutable_rate()->set_per_second(1);
  request_.mutable_rate()->set_burst(-1);
  EXPECT_EQ(refusal(), grpc::StatusCode::INVALID_ARGUMENT);
  request_.clear_rate();
  request_.set_queue("");
  EXPECT_EQ(refusal(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(RedriveTest, ADrainEndsItOnceTheMoveThatIsOutIsAnswered) {
  auto reader = Begin();
  AnswerQueue("dead", 1000);
  AnswerDead({Dead(1)}, true);
  auto move = shard_.Take<broker::EditMessagesCommand>();
  server_->BeginDrain();
  move.done(1);
  Finish(*reader, grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace sluice::api
