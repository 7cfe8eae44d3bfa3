// Time to live: what is not delivered in time is never delivered.
#include "absl/time/clock.h"
#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr grpc::StatusCode kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
constexpr absl::Duration kShort = absl::Milliseconds(100);

class TtlTest : public FeatureTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    MakeQueue("dead");
    v1::QueueConfig config = QueueNamed("q");
    config.set_dead_letter_queue("dead");
    Create(config);
  }
  // A queue with a time of its own, and where it sends what has expired.
  v1::QueueConfig Expiring(const std::string& name, absl::Duration ttl) {
    v1::QueueConfig config = QueueNamed(name);
    config.set_dead_letter_queue("dead");
    *config.mutable_ttl() = ToProto(ttl);
    return config;
  }
};

TEST_F(TtlTest, WhatExpiresGoesToTheDeadLetterQueueWithoutAnyConsumer) {
  const std::string id = Send("q", ExpiringIn("m", kShort)).message_id();
  Send("q", MessageOf("stays"));
  const v1::Delivery dead = ReceiveAll("dead", 1)[0];
  EXPECT_EQ(dead.message().body(), "m");
  EXPECT_EQ(dead.message().id(), id);
  ASSERT_THAT(dead.deaths(), SizeIs(1));
  EXPECT_EQ(dead.deaths(0).queue(), "q");
  EXPECT_EQ(dead.deaths(0).reason(), v1::DEATH_REASON_EXPIRED);
  EXPECT_EQ(dead.deaths(0).count(), 1);
  EXPECT_EQ(dead.deaths(0).attempts(), 0);
  EXPECT_THAT(Drain("q"), ElementsAre("stays"));
  EXPECT_EQ(Total("expired", "q"), 1);
  EXPECT_EQ(Total("dead_lettered", "q"), 1);
}

TEST_F(TtlTest, AMoveToTheDeadLetterQueueAndBackClearsIt) {
  Send("q", ExpiringIn("m", kShort));
  AwaitReady("dead", 1);
  v1::RedriveMessagesRequest request;
  request.set_queue("dead");
  auto context = NewContext();
  auto reader = client_->admin->RedriveMessages(context.get(), request);
  for (v1::RedriveMessagesResponse response; reader->Read(&response);) {
  }
  ASSERT_THAT(reader->Finish(), IsOk());
  // Another one that expires later tells when its own time would have been over.
  Send("q", ExpiringIn("later", 2 * kShort));
  AwaitReady("dead", 1);
  EXPECT_THAT(Drain("q"), ElementsAre("m"));
}

TEST_F(TtlTest, WithoutADeadLetterQueueItGoesAway) {
  MakeQueue("plain");
  Send("plain", ExpiringIn("m", kShort));
  EXPECT_TRUE(WaitUntil([&] { return Stats("plain").ready() == 0; }));
  EXPECT_EQ(Stats("plain").bytes(), 0);
  EXPECT_EQ(Total("expired", "plain"), 1);
  EXPECT_EQ(Total("dead_lettered", "plain"), 0);
}

TEST_F(TtlTest, TheShorterOfTheQueuesAndTheMessagesTimeCounts) {
  Create(Expiring("short", kShort));
  Create(Expiring("long", absl::Hours(1)));
  Send("short", ExpiringIn("message longer", absl::Hours(1)));
  Send("short", ExpiringIn("zero is not set", absl::ZeroDuration()));
  Send("long", ExpiringIn("message shorter", kShort));
  Send("long", MessageOf("neither"));
  AwaitReady("dead", 3);
  EXPECT_EQ(Stats("short").ready(), 0);
  EXPECT_THAT(Drain("long"), ElementsAre("neither"));
}

TEST_F(TtlTest, AChangeConcernsLaterMessagesOnly) {
  Create(Expiring("changed", absl::Hours(1)));
  Send("changed", MessageOf("before"));
  Update(Expiring("changed", kShort));
  Send("changed", MessageOf("after"));
  AwaitReady("dead", 1);
  EXPECT_THAT(Drain("dead"), ElementsAre("after"));
  EXPECT_THAT(Drain("changed"), ElementsAre("before"));
}

TEST_F(TtlTest, HasItsBounds) {
  constexpr absl::Duration kLongest = absl::Hours(366 * 24);
  Send("q", ExpiringIn("longest", kLongest));
  EXPECT_THAT(TrySend("q", ExpiringIn("longer", kLongest + absl::Milliseconds(1))),
              FailsWithField(kInvalid, "INVALID_FIELD", "messages[0].ttl"));
  EXPECT_THAT(TrySend("q", ExpiringIn("negative", -absl::Milliseconds(1))),
              FailsWithField(kInvalid, "INVALID_FIELD", "messages[0].ttl"));
  EXPECT_THAT(TryCreate(Expiring("longest", kLongest)), IsOk());
  EXPECT_THAT(TryCreate(Expiring("longer", kLongest + absl::Milliseconds(1))),
              FailsWithField(kInvalid, "INVALID_FIELD", "config.ttl"));
}

TEST_F(TtlTest, IsNeverDeliveredLateToAConsumerThatGetsCreditAfterwards) {
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_max_in_flight(1);
  Send("q", MessageOf("first"));
  ConsumeStream stream(*client_, request);
  const v1::Delivery first = stream.Next().value();
  Send("q", ExpiringIn("late", kShort));
  Send("q", MessageOf("second"));
  AwaitReady("dead", 1);
  stream.Ack(1, {first.receipt()});
  EXPECT_EQ(stream.Next()->message().body(), "second");
  EXPECT_THAT(Drain("dead"), ElementsAre("late"));
}

TEST_F(TtlTest, WhatIsLeasedWhenItExpiresMayBeSettledAndIsNotDeliveredAgain) {
  SendAll("q", {ExpiringIn("acked", kShort), ExpiringIn("failed", kShort)});
  const std::vector<v1::Delivery> deliveries = ReceiveAll("q", 2);
  const absl::Time taken = absl::Now();
  ASSERT_TRUE(WaitUntil([&] { return absl::Now() > taken + 2 * kShort; }));
  EXPECT_EQ(Stats("q").leased(), 2) << "its consumer keeps it";
  EXPECT_EQ(Ack("q", {deliveries[0].receipt()}).acked(), 1);
  Nack("q", deliveries[1].receipt(), v1::NACK_ACTION_RETRY);
  const v1::Delivery dead = ReceiveAll("dead", 1)[0];
  EXPECT_EQ(dead.message().body(), "failed");
  EXPECT_EQ(dead.deaths(0).reason(), v1::DEATH_REASON_EXPIRED);
  EXPECT_EQ(dead.deaths(0).attempts(), 1);
  EXPECT_THAT(Receive("q", 1, absl::ZeroDuration()), IsEmpty());
}

TEST_F(TtlTest, CountsFromWhenADelayedMessageIsDue) {
  v1::Message message = After("m", absl::Milliseconds(500));
  *message.mutable_ttl() = ToProto(kShort);
  const absl::Time sent = absl::Now();
  Send("q", message);
  const v1::Delivery dead = ReceiveAll("dead", 1)[0];
  EXPECT_GE(absl::Now(), sent + absl::Milliseconds(600) - absl::Milliseconds(20));
  EXPECT_EQ(dead.deaths(0).reason(), v1::DEATH_REASON_EXPIRED);
}

TEST_F(TtlTest, OutlastsRestartsAlsoWhatExpiresWhileTheServerIsDown) {
  const absl::Time sent = absl::Now();
  SendAll("q", {ExpiringIn("soon", kShort), ExpiringIn("later", absl::Hours(1))});
  server_.Kill();
  ASSERT_TRUE(WaitUntil([&] { return absl::Now() > sent + 2 * kShort; }));
  StartServer();
  // Asked for at once: it must not slip through before the first sweep.
  EXPECT_THAT(BodiesOf(Receive("q", 10)), ElementsAre("later"));
  AwaitReady("dead", 1);
  TerminateAndRestart();
  EXPECT_THAT(Drain("dead"), ElementsAre("soon"));
}

}  // namespace
}  // namespace sluice::testing
