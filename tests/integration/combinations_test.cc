// Features together: groups, retries, delays, priorities, time to live and dead letters.
#include <map>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;

constexpr absl::Duration kShort = absl::Milliseconds(150);

class CombinationsTest : public FeatureTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    MakeQueue("dead");
    Create(QueueWithDeadLetters("q", "dead", 2));
  }
};

TEST_F(CombinationsTest, AGroupGoesOnWhenItsHeadIsDeadLettered) {
  SendAll("q", {InGroup("a1", "a"), InGroup("a2", "a"), InGroup("a3", "a")});
  FailOnce("q");
  EXPECT_EQ(Stats("q").blocked(), 2) << "it keeps its place while it may be tried again";
  FailOnce("q");
  const v1::Delivery a2 = ReceiveAll("q", 1)[0];
  EXPECT_EQ(a2.message().body(), "a2");
  EXPECT_THAT(BodiesOf(List("dead")), ElementsAre("a1")) << "shown once that is durable";
  KillAndRestart();
  Ack("q", {a2.receipt()});
  EXPECT_THAT(Drain("q"), ElementsAre("a3"));
}

TEST_F(CombinationsTest, AGroupStaysClosedWhileItsDeadHeadFindsNoRoom) {
  v1::QueueConfig small = QueueNamed("small");
  small.set_max_length(1);
  Create(small);
  Create(QueueWithDeadLetters("strict", "small", 1));
  Send("small", MessageOf("in the way"));
  SendAll("strict", {InGroup("a1", "a"), InGroup("a2", "a"), InGroup("b1", "b")});
  FailOnce("strict");
  EXPECT_THAT(BodiesOf(Receive("strict", 10)), ElementsAre("b1"));
  KillAndRestart();
  EXPECT_THAT(Drain("strict"), ElementsAre("b1"));
  Ack("small", ReceiptsOf(ReceiveAll("small", 1)));
  EXPECT_EQ(ReceiveAll("strict", 1)[0].message().body(), "a2");
  EXPECT_THAT(BodiesOf(List("small")), ElementsAre("a1"));
}

TEST_F(CombinationsTest, AGroupGoesOnWhenItsHeadExpiresBetweenTwoAttempts) {
  v1::Message head = InGroup("a1", "a");
  *head.mutable_ttl() = ToProto(kShort);
  SendAll("q", {head, InGroup("a2", "a")});
  const v1::Delivery a1 = ReceiveAll("q", 1)[0];
  Nack("q", a1.receipt(), v1::NACK_ACTION_DELAY, absl::Hours(1));
  const v1::Delivery a2 = ReceiveAll("q", 1)[0];
  EXPECT_EQ(a2.message().body(), "a2");
  const v1::Delivery dead = ReceiveAll("dead", 1)[0];
  EXPECT_EQ(dead.deaths(0).reason(), v1::DEATH_REASON_EXPIRED);
  EXPECT_EQ(dead.deaths(0).attempts(), 1);
}

TEST_F(CombinationsTest, ADelayedMessageOfAGroupExpiresWhileItsGroupIsClosed) {
  v1::Message delayed = After("late", absl::Milliseconds(50));
  delayed.set_group("a");
  *delayed.mutable_ttl() = ToProto(kShort);
  SendAll("q", {InGroup("a1", "a"), delayed, InGroup("a2", "a")});
  const v1::Delivery a1 = ReceiveAll("q", 1)[0];
  AwaitReady("dead", 1);
  EXPECT_EQ(ReceiveAll("dead", 1)[0].message().body(), "late");
  Ack("q", {a1.receipt()});
  EXPECT_THAT(Drain("q"), ElementsAre("a2"));
}

TEST_F(CombinationsTest, ARetryOfAHighPriorityDoesNotHoldUpLowOnesOfOtherGroups) {
  v1::Message high = InGroup("high", "a");
  high.set_priority(9);
  v1::Message low = InGroup("low of a", "a");
  low.set_priority(0);
  v1::Message other = InGroup("low of b", "b");
  other.set_priority(0);
  SendAll("q", {low, other, high});
  const v1::Delivery first = ReceiveAll("q", 1)[0];
  ASSERT_EQ(first.message().body(), "high");
  Nack("q", first.receipt(), v1::NACK_ACTION_DELAY, absl::Milliseconds(300));
  EXPECT_THAT(Drain("q"), ElementsAre("low of b"));
  const v1::Delivery again = ReceiveAll("q", 1)[0];
  EXPECT_EQ(again.message().body(), "high");
  Ack("q", {again.receipt()});
  EXPECT_THAT(Drain("q"), ElementsAre("low of a"));
}

TEST_F(CombinationsTest, DeadLettersKeepGroupPriorityAndOrderAndComeBackSo) {
  std::vector<v1::Message> messages;
  for (int i = 0; i < 6; ++i) {
    v1::Message message = InGroup(absl::StrCat("m", i), i % 2 == 0 ? "even" : "odd");
    message.set_priority(i < 4 ? 2 : 7);
    messages.push_back(message);
  }
  SendAll("q", messages);
  for (int i = 0; i < 6; ++i) {
    FailOnce("q", v1::NACK_ACTION_DEAD_LETTER);
  }
  AwaitReady("dead", 6);
  const std::vector<v1::Delivery> open = Receive("dead", 10);
  EXPECT_THAT(BodiesOf(open), ElementsAre("m4", "m5")) << "one of each group, high ones first";
  for (const v1::Delivery& delivery : open) {
    Nack("dead", delivery.receipt(), v1::NACK_ACTION_RELEASE);
  }
  EXPECT_EQ(Redrive("dead").moved(), 6);
  KillAndRestart();
  EXPECT_THAT(Drain("q"), ElementsAre("m4", "m5", "m0", "m1", "m2", "m3"));
}

TEST_F(CombinationsTest, AMessageThatWasRescheduledKeepsItsTimeToLive) {
  v1::Message message = ExpiringIn("m", kShort);
  const std::string id = Send("q", message).message_id();
  const absl::Time moved = absl::Now();
  if (Reschedule("q", id, absl::Milliseconds(400)) == 0) GTEST_SKIP() << "too slow: it had expired already";
  const v1::Delivery dead = ReceiveAll("dead", 1)[0];
  EXPECT_GE(absl::Now(), moved + absl::Milliseconds(400) + kShort - absl::Milliseconds(30))
      << "counted from when it is due";
  EXPECT_EQ(dead.deaths(0).reason(), v1::DEATH_REASON_EXPIRED);
}

// Everything at once, with a crash and a stop on the way. What must hold at the end: each message
// was acked once or lies in the dead-letter queue once, for a reason that is true of it, and what
// was acked of a group came in its order.
TEST_F(CombinationsTest, EverythingTogetherEndsWithEachMessageInOnePlace) {
  constexpr int kMessages = 600;
  constexpr int kGroups = 20;
  const auto seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  const auto one_in = [&](int n) { return random() % static_cast<unsigned>(n) == 0; };

  struct Sent {
    std::string group;
    int priority = 4;
    bool delayed = false;
    bool expires = false;
    bool rejected = false;
    int failures = 0;
  };
  std::map<std::string, Sent> sent;
  std::vector<v1::Message> batch;
  for (int i = 0; i < kMessages; ++i) {
    const std::string body = absl::StrCat(100'000 + i);
    Sent& one = sent[body];
    v1::Message message = MessageOf(body);
    one.group = one_in(4) ? "" : absl::StrCat("g", random() % kGroups);
    message.set_group(one.group);
    if (one_in(3)) one.priority = static_cast<int>(random() % 10);
    message.set_priority(one.priority);
    if (one_in(5)) {
      one.delayed = true;
      *message.mutable_delay() = ToProto(absl::Milliseconds(1 + random() % 500));
    }
    if (one_in(10)) {
      one.expires = true;
      *message.mutable_ttl() = ToProto(absl::Milliseconds(1 + random() % 100));
    }
    if (one_in(8)) one.failures = 1 + static_cast<int>(random() % 2);  // the second is the last
    one.rejected = one_in(20);
    batch.push_back(message);
    if (batch.size() == 50) {
      SendAll("q", batch);
      batch.clear();
    }
  }

  std::vector<std::string> acked;
  int rounds = 0;
  while (true) {
    const std::vector<v1::Delivery> some = Receive("q", 40, absl::Milliseconds(200));
    std::vector<std::string> done;
    std::set<std::string> open_groups;
    for (const v1::Delivery& delivery : some) {
      const std::string& body = delivery.message().body();
      Sent& one = sent.at(body);
      if (!one.group.empty()) {
        EXPECT_TRUE(open_groups.insert(one.group).second) << "two of a group at a time: " << body;
      }
      if (one.rejected) {
        Nack("q", delivery.receipt(), v1::NACK_ACTION_DEAD_LETTER);
      } else if (delivery.attempt() <= one.failures) {
        if (one_in(2)) {
          Nack("q", delivery.receipt(), v1::NACK_ACTION_RETRY);
        } else {
          Nack("q", delivery.receipt(), v1::NACK_ACTION_DELAY, absl::Milliseconds(20));
        }
      } else {
        done.push_back(delivery.receipt());
        acked.push_back(body);
      }
    }
    if (!done.empty()) {
      ASSERT_EQ(Ack("q", done).acked(), static_cast<int>(done.size()));
    }
    ++rounds;
    if (rounds == 5) KillAndRestart();
    if (rounds == 10) TerminateAndRestart();
    const v1::QueueStats stats = Stats("q");
    if (some.empty() && stats.ready() + stats.leased() + stats.delayed() + stats.blocked() == 0) {
      break;
    }
    ASSERT_LT(rounds, 10 * kMessages) << stats.ShortDebugString();
  }

  std::set<std::string> settled;
  std::map<std::pair<std::string, int>, std::string> last_of;
  for (const std::string& body : acked) {
    const Sent& one = sent.at(body);
    EXPECT_TRUE(settled.insert(body).second) << body << " was acked twice";
    EXPECT_LT(one.failures, 2) << body << " had used up its attempts";
    if (one.group.empty() || one.delayed) continue;
    std::string& last = last_of[{one.group, one.priority}];
    EXPECT_LT(last, body) << "out of order in " << one.group;
    last = body;
  }
  for (const v1::StoredMessage& dead : List("dead")) {
    const std::string& body = dead.message().body();
    const Sent& one = sent.at(body);
    EXPECT_TRUE(settled.insert(body).second) << body << " is in two places";
    ASSERT_EQ(dead.deaths_size(), 1);
    switch (dead.deaths(0).reason()) {
      case v1::DEATH_REASON_ATTEMPTS:
        EXPECT_EQ(one.failures, 2) << body;
        EXPECT_EQ(dead.deaths(0).attempts(), 2) << body;
        break;
      case v1::DEATH_REASON_REJECTED: EXPECT_TRUE(one.rejected) << body; break;
      case v1::DEATH_REASON_EXPIRED: EXPECT_TRUE(one.expires) << body; break;
      default: ADD_FAILURE() << dead.ShortDebugString();
    }
  }
  EXPECT_EQ(settled.size(), sent.size()) << "none is lost";
}

}  // namespace
}  // namespace sluice::testing
