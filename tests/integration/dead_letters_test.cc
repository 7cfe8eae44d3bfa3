// Retry policy and dead letters: how often, how far apart, and what becomes of the rest.
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr grpc::StatusCode kInvalid = grpc::StatusCode::INVALID_ARGUMENT;

class DeadLettersTest : public FeatureTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    MakeQueue("dead");
  }
  v1::NackResponse Reject(const std::string& queue, const std::string& receipt,
                          const std::string& reason) {
    v1::NackRequest request;
    request.set_queue(queue);
    v1::NackItem& item = *request.add_items();
    item.set_receipt(receipt);
    item.set_action(v1::NACK_ACTION_DEAD_LETTER);
    item.set_reason(reason);
    v1::NackResponse response;
    EXPECT_THAT(CallQueues(&QueueService::Stub::Nack, request, &response), IsOk());
    return response;
  }
};

TEST_F(DeadLettersTest, TheLastAttemptMovesItWithAllThatIsKnownOfIt) {
  Create(QueueWithDeadLetters("q", "dead", 2));
  v1::Message message = InGroup("m", "g");
  message.set_priority(7);
  (*message.mutable_attributes())["colour"] = "red";
  const absl::Time sent = absl::Now();
  const std::string id = Send("q", message).message_id();
  FailOnce("q");
  const v1::Delivery last = ReceiveAll("q", 1)[0];
  EXPECT_EQ(last.attempt(), 2);
  v1::NackRequest request;
  request.set_queue("q");
  request.add_items()->set_receipt(last.receipt());
  request.mutable_items(0)->set_reason("no such address");
  v1::NackResponse response;
  ASSERT_THAT(CallQueues(&QueueService::Stub::Nack, request, &response), IsOk());

  const v1::Delivery dead = ReceiveAll("dead", 1)[0];
  EXPECT_EQ(dead.queue(), "dead");
  EXPECT_EQ(dead.attempt(), 1) << "attempts are of one queue";
  EXPECT_EQ(dead.delivery_count(), 1);
  EXPECT_EQ(dead.message().id(), id);
  EXPECT_EQ(dead.message().body(), "m");
  EXPECT_EQ(dead.message().group(), "g");
  EXPECT_EQ(dead.message().priority(), 7);
  EXPECT_EQ(dead.message().attributes().at("colour"), "red");
  ASSERT_THAT(dead.deaths(), SizeIs(1));
  const v1::Death& death = dead.deaths(0);
  EXPECT_EQ(death.queue(), "q");
  EXPECT_EQ(death.reason(), v1::DEATH_REASON_ATTEMPTS);
  EXPECT_EQ(death.count(), 1);
  EXPECT_EQ(death.attempts(), 2);
  EXPECT_EQ(death.detail(), "no such address");
  EXPECT_GE(FromProto(death.first_time()), sent - absl::Milliseconds(20));
  EXPECT_EQ(death.first_time().nanos(), death.last_time().nanos());
  EXPECT_THAT(Receive("q", 1, absl::ZeroDuration()), IsEmpty());
  // What is known to have been dead-lettered is refused, unlike what was acked.
  EXPECT_THAT(Ack("q", {last.receipt()}).failures(),
              ElementsAre(ItemFails(0, grpc::StatusCode::FAILED_PRECONDITION,
                                    v1::ERROR_REASON_LEASE_EXPIRED)));
}

TEST_F(DeadLettersTest, OneAttemptMeansNoRetry) {
  Create(QueueWithDeadLetters("q", "dead", 1));
  Send("q", MessageOf("m"));
  FailOnce("q");
  EXPECT_EQ(ReceiveAll("dead", 1)[0].deaths(0).attempts(), 1);
}

TEST_F(DeadLettersTest, WithoutALimitItIsTriedWithoutEnd) {
  v1::QueueConfig config = QueueNamed("q");
  config.set_dead_letter_queue("dead");
  config.mutable_retry()->set_max_attempts(0);
  Create(config);
  Send("q", MessageOf("m"));
  for (int attempt = 1; attempt <= 50; ++attempt) FailOnce("q");
  EXPECT_EQ(ReceiveAll("q", 1)[0].attempt(), 51);
}

TEST_F(DeadLettersTest, AnExpiredLeaseAndABrokenStreamAreAttemptsAndAReleaseIsNot) {
  v1::QueueConfig config = QueueWithDeadLetters("q", "dead", 3);
  *config.mutable_lease() = ToProto(kShortestLease);
  Create(config);
  Send("q", MessageOf("m"));
  FailOnce("q", v1::NACK_ACTION_RELEASE);
  EXPECT_EQ(ReceiveAll("q", 1)[0].attempt(), 1);  // and its lease runs out
  {
    Subscription broken(*client_, SubscribeTo("q"));
    EXPECT_EQ(broken.Next()->attempt(), 2);
  }
  const v1::Delivery third = ReceiveAll("q", 1)[0];
  EXPECT_EQ(third.attempt(), 3);
  EXPECT_EQ(third.delivery_count(), 4);
  const v1::Delivery dead = ReceiveAll("dead", 1)[0];
  EXPECT_EQ(dead.deaths(0).attempts(), 3);
}

TEST_F(DeadLettersTest, TheWaitDoublesUpToItsBound) {
  v1::QueueConfig config = QueueNamed("q");
  *config.mutable_retry()->mutable_min_backoff() = ToProto(absl::Hours(1));
  *config.mutable_retry()->mutable_max_backoff() = ToProto(absl::Hours(3));
  Create(config);
  const std::string id = Send("q", MessageOf("m")).message_id();
  for (const int hours : {1, 2, 3, 3}) {
    const absl::Time before = absl::Now();
    FailOnce("q");
    const v1::StoredMessage waiting = Look("q", id);
    EXPECT_EQ(waiting.state(), v1::MESSAGE_STATE_DELAYED);
    EXPECT_EQ(waiting.waiting(), v1::WAIT_REASON_RETRY_BACKOFF);
    EXPECT_GE(FromProto(waiting.until()), before + absl::Hours(hours) - absl::Milliseconds(20));
    EXPECT_LE(FromProto(waiting.until()), absl::Now() + absl::Hours(hours) + absl::Seconds(1));
    ASSERT_EQ(Reschedule("q", id, absl::ZeroDuration()), 1);
  }
}

TEST_F(DeadLettersTest, ARejectedMessageGoesAtOnceAndTellsWhy) {
  Create(QueueWithDeadLetters("q", "dead", 5));
  Send("q", MessageOf("m"));
  const v1::Delivery delivery = ReceiveAll("q", 1)[0];
  const std::string longest(1024, 'r');
  EXPECT_THAT(Reject("q", delivery.receipt(), longest).failures(), IsEmpty());
  const v1::Delivery dead = ReceiveAll("dead", 1)[0];
  EXPECT_EQ(dead.deaths(0).reason(), v1::DEATH_REASON_REJECTED);
  EXPECT_EQ(dead.deaths(0).attempts(), 1);
  EXPECT_EQ(dead.deaths(0).detail(), longest);

  v1::NackRequest request;
  request.set_queue("q");
  request.add_items()->set_receipt(delivery.receipt());
  request.mutable_items(0)->set_reason(longest + "r");
  v1::NackResponse response;
  EXPECT_THAT(CallQueues(&QueueService::Stub::Nack, request, &response),
              FailsWithField(kInvalid, "INVALID_FIELD", "items[0].reason"));
}

TEST_F(DeadLettersTest, WithoutADeadLetterQueueItIsDropped) {
  v1::QueueConfig config = QueueNamed("q");
  config.mutable_retry()->set_max_attempts(1);
  config.mutable_retry()->set_discard_when_exhausted(true);
  Create(config);
  Send("q", MessageOf("m"));
  FailOnce("q");
  EXPECT_TRUE(WaitUntil([&] { return Total("discarded", "q") == 1; }));
  EXPECT_THAT(Receive("q", 1, absl::ZeroDuration()), IsEmpty());
  EXPECT_EQ(Stats("q").bytes(), 0);
  EXPECT_EQ(Total("retried", "q"), 0) << "it did not stay in the queue";
}

TEST_F(DeadLettersTest, UsedUpAttemptsCanBeDroppedWhereRejectsAreKept) {
  v1::QueueConfig config = QueueWithDeadLetters("q", "dead", 1);
  config.mutable_retry()->set_discard_when_exhausted(true);
  Create(config);
  Send("q", MessageOf("exhausted"));
  FailOnce("q");
  Send("q", MessageOf("rejected"));
  FailOnce("q", v1::NACK_ACTION_DEAD_LETTER);
  AwaitReady("dead", 1);
  EXPECT_THAT(Drain("dead"), ElementsAre("rejected"));
  EXPECT_EQ(Stats("q").ready(), 0);
}

TEST_F(DeadLettersTest, ConfigsThatCannotEndAreRefused) {
  v1::QueueConfig config = QueueNamed("q");
  config.mutable_retry()->set_max_attempts(1);
  EXPECT_THAT(TryCreate(config),
              FailsWithField(kInvalid, "INVALID_FIELD", "config.retry.max_attempts"));
  config.mutable_retry()->set_max_attempts(1'000'001);
  config.set_dead_letter_queue("dead");
  EXPECT_THAT(TryCreate(config),
              FailsWithField(kInvalid, "INVALID_FIELD", "config.retry.max_attempts"));
  config.mutable_retry()->set_max_attempts(-1);
  EXPECT_THAT(TryCreate(config),
              FailsWithField(kInvalid, "INVALID_FIELD", "config.retry.max_attempts"));
  config.mutable_retry()->set_max_attempts(1);
  config.set_dead_letter_queue("nowhere");
  EXPECT_THAT(TryCreate(config), FailsWithField(grpc::StatusCode::NOT_FOUND, "QUEUE_NOT_FOUND",
                                                "config.dead_letter_queue"));
  config.set_dead_letter_queue("q");
  EXPECT_THAT(TryCreate(config),
              FailsWithField(kInvalid, "INVALID_FIELD", "config.dead_letter_queue"));
  v1::QueueConfig backoff = QueueNamed("q");
  *backoff.mutable_retry()->mutable_min_backoff() = ToProto(absl::Seconds(2));
  *backoff.mutable_retry()->mutable_max_backoff() = ToProto(absl::Seconds(1));
  EXPECT_THAT(TryCreate(backoff),
              FailsWithField(kInvalid, "INVALID_FIELD", "config.retry.max_backoff"));

  // A circle over several queues.
  Create(QueueWithDeadLetters("q", "dead", 1));
  v1::UpdateQueueRequest circle;
  circle.mutable_config()->set_name("dead");
  circle.mutable_config()->set_dead_letter_queue("q");
  v1::UpdateQueueResponse response;
  EXPECT_THAT(CallAdmin(&AdminService::Stub::UpdateQueue, circle, &response),
              FailsWithField(kInvalid, "INVALID_FIELD", "config.dead_letter_queue"));
}

TEST_F(DeadLettersTest, ADeadLetterQueueCannotBeDeletedWhileItIsNamed) {
  Create(QueueWithDeadLetters("q", "dead", 1));
  v1::DeleteQueueRequest request;
  request.set_queue("dead");
  v1::DeleteQueueResponse response;
  EXPECT_THAT(CallAdmin(&AdminService::Stub::DeleteQueue, request, &response),
              FailsWith(grpc::StatusCode::FAILED_PRECONDITION, "IN_USE"));
  DeleteQueue("q");
  EXPECT_THAT(CallAdmin(&AdminService::Stub::DeleteQueue, request, &response), IsOk());
}

TEST_F(DeadLettersTest, AFullDeadLetterQueueMakesThemWaitInOrderAndSayWhy) {
  v1::QueueConfig dead = QueueNamed("small");
  dead.set_max_length(1);
  Create(dead);
  Create(QueueWithDeadLetters("q", "small", 1));
  std::vector<std::string> ids;
  for (const char* body : {"1", "2", "3"}) {
    ids.push_back(Send("q", MessageOf(body)).message_id());
    FailOnce("q");
  }
  AwaitReady("small", 1);
  EXPECT_TRUE(WaitUntil([&] { return Stats("q").blocked() == 2; }));
  const v1::StoredMessage waiting = Look("q", ids[2]);
  EXPECT_EQ(waiting.state(), v1::MESSAGE_STATE_BLOCKED);
  EXPECT_EQ(waiting.waiting(), v1::WAIT_REASON_DEAD_LETTER_QUEUE_FULL);
  EXPECT_THAT(Get("q").waiting(), ::testing::Contains(v1::WAIT_REASON_DEAD_LETTER_QUEUE_FULL));
  EXPECT_THAT(Receive("q", 1, absl::ZeroDuration()), IsEmpty()) << "never delivered again";
  EXPECT_EQ(Metric("sluice_queue_dead_letters_waiting", {"queue=\"q\""}), 2);

  KillAndRestart();
  EXPECT_EQ(Metric("sluice_queue_dead_letters_waiting", {"queue=\"q\""}), 2);
  std::vector<std::string> order;
  for (int i = 0; i < 3; ++i) {
    const v1::Delivery delivery = ReceiveAll("small", 1)[0];
    EXPECT_EQ(delivery.deaths(0).reason(), v1::DEATH_REASON_ATTEMPTS);
    order.push_back(delivery.message().body());
    Ack("small", {delivery.receipt()});
  }
  EXPECT_THAT(order, ElementsAre("1", "2", "3"));
  EXPECT_EQ(Stats("q").blocked(), 0);
}

TEST_F(DeadLettersTest, TheStoryGrowsWithEachDeathAndKeepsTheLastTen) {
  // A chain of queues, each the dead-letter queue of the one before.
  constexpr int kQueues = 12;
  for (int i = 0; i < kQueues; ++i) {
    Create(QueueWithDeadLetters(absl::StrCat("q", i), i == 0 ? "dead" : absl::StrCat("q", i - 1),
                                1));
  }
  Send(absl::StrCat("q", kQueues - 1), MessageOf("m"));
  for (int i = kQueues - 1; i >= 0; --i) FailOnce(absl::StrCat("q", i));
  const v1::Delivery dead = ReceiveAll("dead", 1)[0];
  std::vector<std::string> queues;
  for (const v1::Death& death : dead.deaths()) queues.push_back(death.queue());
  EXPECT_THAT(queues, ElementsAreArray(Numbered("q", 10))) << "newest first";
}

TEST_F(DeadLettersTest, TheMoveIsWholeWhereverACrashComes) {
  Create(QueueWithDeadLetters("q", "dead", 1));
  const std::vector<std::string> bodies = Numbered("m", 1000);
  Publish("q", bodies);
  const std::vector<v1::Delivery> deliveries = ReceiveAll("q", 1000);
  v1::NackRequest request;
  request.set_queue("q");
  for (const v1::Delivery& delivery : deliveries) {
    v1::NackItem& item = *request.add_items();
    item.set_receipt(delivery.receipt());
    item.set_action(v1::NACK_ACTION_DEAD_LETTER);
  }
  v1::NackResponse response;
  ASSERT_THAT(CallQueues(&QueueService::Stub::Nack, request, &response), IsOk());
  EXPECT_THAT(response.failures(), IsEmpty());
  KillAndRestart();
  // Answered is durable: none is in both queues, none in neither.
  AwaitReady("dead", 1000);
  EXPECT_THAT(Drain("dead"), ElementsAreArray(bodies));
  const v1::QueueStats stats = Stats("q");
  EXPECT_EQ(stats.ready() + stats.leased() + stats.delayed() + stats.blocked(), 0);
}

}  // namespace
}  // namespace sluice::testing
