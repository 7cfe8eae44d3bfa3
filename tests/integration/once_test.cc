// Once only: deduplication by id, and idempotent producers.
#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

constexpr grpc::StatusCode kInvalid = grpc::StatusCode::INVALID_ARGUMENT;

class DedupTest : public FeatureTest {};

TEST_F(DedupTest, ARepeatIsAnsweredWithTheFirstIdAndNotStored) {
  MakeQueue("q");
  const v1::PublishResult first = Send("q", Once("first", "order-1"));
  EXPECT_FALSE(first.duplicate());
  const v1::PublishResult repeat = Send("q", Once("another body", "order-1"));
  EXPECT_TRUE(repeat.duplicate());
  EXPECT_EQ(repeat.message_id(), first.message_id());
  EXPECT_EQ(repeat.routed_queues(), 1);
  EXPECT_FALSE(Send("q", Once("third", "order-2")).duplicate());
  EXPECT_FALSE(Send("q", Once("no id", "")).duplicate());
  EXPECT_FALSE(Send("q", Once("no id", "")).duplicate());
  EXPECT_THAT(Drain("q"), ElementsAre("first", "third", "no id", "no id"));
  EXPECT_EQ(Total("duplicate", "q"), 1);
  EXPECT_EQ(Total("published", "q"), 4);
}

TEST_F(DedupTest, HoldsWithinOneCallAfterTheAckAndOverRestarts) {
  MakeQueue("q");
  const std::vector<v1::PublishResult> results =
      SendAll("q", {Once("m", "id"), Once("m", "id"), Once("m", "other")});
  EXPECT_FALSE(results[0].duplicate());
  EXPECT_TRUE(results[1].duplicate());
  EXPECT_EQ(results[1].message_id(), results[0].message_id());
  EXPECT_FALSE(results[2].duplicate());
  EXPECT_EQ(Drain("q").size(), 2u);
  EXPECT_TRUE(Send("q", Once("m", "id")).duplicate());
  KillAndRestart();
  EXPECT_EQ(Send("q", Once("m", "id")).message_id(), results[0].message_id());
  TerminateAndRestart();
  EXPECT_TRUE(Send("q", Once("m", "id")).duplicate());
  EXPECT_THAT(Drain("q"), IsEmpty());
}

TEST_F(DedupTest, TheWindowEndsAndZeroTurnsItOff) {
  v1::QueueConfig config = QueueNamed("short");
  *config.mutable_dedup_window() = ToProto(absl::Milliseconds(200));
  Create(config);
  config.set_name("off");
  *config.mutable_dedup_window() = ToProto(absl::ZeroDuration());
  Create(config);
  Send("short", Once("m", "id"));
  EXPECT_TRUE(WaitUntil([&] { return !Send("short", Once("m", "id")).duplicate(); }));
  EXPECT_EQ(Stats("short").ready(), 2);
  EXPECT_FALSE(Send("off", Once("m", "id")).duplicate());
  EXPECT_FALSE(Send("off", Once("m", "id")).duplicate());
  *config.mutable_dedup_window() = ToProto(absl::Hours(7 * 24) + absl::Milliseconds(1));
  config.set_name("longer");
  EXPECT_THAT(TryCreate(config), FailsWithField(kInvalid, "INVALID_FIELD", "config.dedup_window"));
}

TEST_F(DedupTest, IsPerQueueAndADuplicateOnlyWhereEveryQueueHadIt) {
  MakeQueue("a");
  MakeQueue("b");
  CreateExchange("both", v1::EXCHANGE_TYPE_FANOUT);
  Bind(ToQueue("both", "a"));
  Bind(ToQueue("both", "b"));
  const v1::PublishResult first = Send("a", Once("m", "id"));
  v1::PublishRequest request;
  request.set_exchange("both");
  *request.add_messages() = Once("m", "id");
  v1::PublishResponse response;
  ASSERT_THAT(CallQueues(&QueueService::Stub::Publish, request, &response), IsOk());
  EXPECT_FALSE(response.results(0).duplicate()) << "b did not have it";
  EXPECT_EQ(response.results(0).message_id(), first.message_id());
  EXPECT_EQ(response.results(0).routed_queues(), 2);
  ASSERT_THAT(CallQueues(&QueueService::Stub::Publish, request, &response), IsOk());
  EXPECT_TRUE(response.results(0).duplicate());
  EXPECT_EQ(Stats("a").ready(), 1);
  EXPECT_EQ(Stats("b").ready(), 1);
}

TEST_F(DedupTest, IsCheckedBeforeLimitsAndTheIdHasOne) {
  v1::QueueConfig config = QueueNamed("q");
  config.set_max_length(1);
  Create(config);
  Send("q", Once("m", "id"));
  EXPECT_TRUE(Send("q", Once("m", "id")).duplicate());
  EXPECT_THAT(TrySend("q", Once("m", "new")),
              FailsWith(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUEUE_FULL"));
  Drain("q");
  EXPECT_FALSE(Send("q", Once("m", "new")).duplicate()) << "a refused publish is not remembered";
  Drain("q");
  Send("q", Once("m", std::string(255, 'd')));
  EXPECT_THAT(TrySend("q", Once("m", std::string(256, 'd'))),
              FailsWithField(kInvalid, "INVALID_FIELD", "messages[0].dedup_id"));
}

TEST_F(DedupTest, DeadLetteringAndRedriveNeverDeduplicate) {
  MakeQueue("dead");
  Create(QueueWithDeadLetters("q", "dead", 1));
  Send("dead", Once("m", "id"));
  Send("q", Once("m", "id"));
  FailOnce("q");
  AwaitReady("dead", 2);
  EXPECT_EQ(Redrive("dead").moved(), 1);
  EXPECT_EQ(Stats("q").ready(), 1);
}

class ProducerTest : public FeatureTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    MakeQueue("q");
  }
  static v1::PublishStreamInit Producer(const std::string& id, const std::string& queue = "q") {
    v1::PublishStreamInit init;
    init.set_queue(queue);
    init.set_producer_id(id);
    return init;
  }
};

TEST_F(ProducerTest, SendsAllAgainAfterACrashAndNothingIsStoredTwice) {
  const std::vector<std::string> bodies = Numbered("m", 300);
  const auto part = [&](int from, int to) {
    return std::vector<std::string>(bodies.begin() + from, bodies.begin() + to);
  };
  {
    ProducerStream stream(*client_, Producer("p"));
    EXPECT_EQ(stream.started().last_sequence(), 0);
    ASSERT_TRUE(stream.Send(1, part(0, 100)));
    EXPECT_EQ(stream.AwaitStored(100), 0);
  }
  KillAndRestart();
  {
    ProducerStream stream(*client_, Producer("p"));
    EXPECT_EQ(stream.started().last_sequence(), 100);
    // A batch that it has in part, and one that is new.
    ASSERT_TRUE(stream.Send(51, part(50, 150)));
    ASSERT_TRUE(stream.Send(151, part(150, 200)));
    EXPECT_EQ(stream.AwaitStored(200), 50);
    stream.HalfClose();
    EXPECT_THAT(stream.Finish(), IsOk());
  }
  TerminateAndRestart();
  ProducerStream stream(*client_, Producer("p"));
  EXPECT_EQ(stream.started().last_sequence(), 200);
  ASSERT_TRUE(stream.Send(1, bodies));
  EXPECT_EQ(stream.AwaitStored(300), 200);
  EXPECT_THAT(Drain("q"), ElementsAreArray(bodies));
}

TEST_F(ProducerTest, ANewerStreamFencesTheOlderOneOfTheSameTargetOnly) {
  MakeQueue("other");
  ProducerStream older(*client_, Producer("p"));
  ProducerStream elsewhere(*client_, Producer("p", "other"));
  ProducerStream stranger(*client_, Producer("another"));
  ASSERT_TRUE(older.Send(1, {"one"}));
  older.AwaitStored(1);
  ProducerStream newer(*client_, Producer("p"));
  EXPECT_EQ(newer.started().last_sequence(), 1);
  EXPECT_THAT(older.Finish(), FailsWith(grpc::StatusCode::ABORTED, "PRODUCER_FENCED"))
      << "it need not send to be told";
  EXPECT_EQ(Metric("sluice_producers_fenced_total", {}), 1);
  ASSERT_TRUE(newer.Send(2, {"two"}));
  newer.AwaitStored(2);
  ASSERT_TRUE(elsewhere.Send(1, {"elsewhere"}));
  elsewhere.AwaitStored(1);
  ASSERT_TRUE(stranger.Send(1, {"stranger"}));
  stranger.AwaitStored(1);
  EXPECT_THAT(Drain("q"), ElementsAre("one", "two", "stranger"));
}

TEST_F(ProducerTest, DeletingTheQueueEndsTheStreamAndTheNextQueueOfThatNameKnowsNothing) {
  ProducerStream older(*client_, Producer("p"));
  ASSERT_TRUE(older.Send(1, {"one", "two"}));
  older.AwaitStored(2);
  DeleteQueue("q");
  EXPECT_THAT(older.Finish(), FailsWith(grpc::StatusCode::NOT_FOUND, "QUEUE_DELETED"))
      << "it need not send to be told";
  MakeQueue("q");
  ProducerStream newer(*client_, Producer("p"));
  EXPECT_EQ(newer.started().last_sequence(), 0);
  ASSERT_TRUE(newer.Send(1, {"one", "two"}));
  EXPECT_EQ(newer.AwaitStored(2), 0);
  KillAndRestart();
  ProducerStream later(*client_, Producer("p"));
  EXPECT_EQ(later.started().last_sequence(), 2);
  EXPECT_THAT(Drain("q"), ElementsAre("one", "two"));
}

TEST_F(ProducerTest, TheFirstRefusedSequenceEndsTheStreamAndNothingAfterItIsStored) {
  ProducerStream stream(*client_, Producer("p"));
  ASSERT_TRUE(stream.Send(1, {"one"}));
  stream.AwaitStored(1);
  stream.Send(2, {std::string((1 << 20) + 1, 'x')});
  stream.Send(3, {"three"});
  EXPECT_THAT(stream.Finish(), FailsWithField(kInvalid, "MESSAGE_TOO_LARGE", "messages[0].body"));
  EXPECT_THAT(Drain("q"), ElementsAre("one"));
  ProducerStream again(*client_, Producer("p"));
  EXPECT_EQ(again.started().last_sequence(), 1);
}

TEST_F(ProducerTest, AFullQueueEndsItAndALaterStreamGoesOnThere) {
  v1::QueueConfig config = QueueNamed("small");
  config.set_max_length(2);
  Create(config);
  {
    ProducerStream stream(*client_, Producer("p", "small"));
    ASSERT_TRUE(stream.Send(1, {"1", "2"}));
    stream.AwaitStored(2);
    stream.Send(3, {"3"});
    stream.Send(4, {"4"});
    EXPECT_THAT(stream.Finish(), FailsWith(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUEUE_FULL"));
  }
  EXPECT_THAT(Drain("small"), ElementsAre("1", "2"));
  ProducerStream stream(*client_, Producer("p", "small"));
  EXPECT_EQ(stream.started().last_sequence(), 2);
  ASSERT_TRUE(stream.Send(3, {"3", "4"}));
  stream.AwaitStored(4);
  EXPECT_THAT(Drain("small"), ElementsAre("3", "4"));
}

TEST_F(ProducerTest, TheNumbersMayHaveGapsAndMustRise) {
  ProducerStream stream(*client_, Producer("p"));
  ASSERT_TRUE(stream.Send(10, {"ten"}));
  stream.AwaitStored(10);
  ASSERT_TRUE(stream.Send(20, {"twenty"}));
  stream.AwaitStored(20);
  stream.Send(20, {"again"});
  EXPECT_THAT(stream.Finish(), FailsWithField(grpc::StatusCode::FAILED_PRECONDITION,
                                              "SEQUENCE_REFUSED", "batch.first_sequence"));
  EXPECT_THAT(Drain("q"), ElementsAre("ten", "twenty"));
}

TEST_F(ProducerTest, TheIdHasALimit) {
  ProducerStream longest(*client_, Producer(std::string(255, 'p')));
  EXPECT_GT(longest.started().max_in_flight(), 0);
  ProducerStream longer(*client_, Producer(std::string(256, 'p')));
  EXPECT_THAT(longer.Finish(), FailsWithField(kInvalid, "INVALID_FIELD", "init.producer_id"));
}

}  // namespace
}  // namespace sluice::testing
