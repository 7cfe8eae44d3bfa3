// Message groups: strictly one after the other within a group, side by side otherwise.
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class GroupsTest : public FeatureTest {};

TEST_F(GroupsTest, OneOfAGroupIsOpenAtATimeAndOthersGoOn) {
  MakeQueue("q");
  SendAll("q", {InGroup("a1", "a"), InGroup("a2", "a"), InGroup("b1", "b"), MessageOf("free")});
  const std::vector<v1::Delivery> first = Receive("q", 10);
  EXPECT_THAT(BodiesOf(first), ElementsAre("a1", "b1", "free"));
  EXPECT_EQ(first[0].message().group(), "a");
  EXPECT_THAT(Receive("q", 10, absl::ZeroDuration()), IsEmpty());
  EXPECT_EQ(Stats("q").blocked(), 1);
  Ack("q", {first[0].receipt()});
  EXPECT_THAT(BodiesOf(Receive("q", 10)), ElementsAre("a2"));
}

TEST_F(GroupsTest, ABlockedMessageSaysForWhichItWaits) {
  MakeQueue("q");
  const std::vector<v1::PublishResult> results =
      SendAll("q", {InGroup("a1", "a"), InGroup("a2", "a")});
  ReceiveAll("q", 1);
  const v1::StoredMessage blocked = Look("q", results[1].message_id());
  EXPECT_EQ(blocked.state(), v1::MESSAGE_STATE_BLOCKED);
  EXPECT_EQ(blocked.waiting(), v1::WAIT_REASON_GROUP_BLOCKED);
  EXPECT_EQ(blocked.blocked_by_id(), results[0].message_id());
  EXPECT_THAT(Get("q").waiting(),
              ElementsAre(v1::WAIT_REASON_LEASED, v1::WAIT_REASON_GROUP_BLOCKED));
}

TEST_F(GroupsTest, ARetryKeepsItsPlaceInItsGroup) {
  MakeQueue("q");
  SendAll("q", {InGroup("a1", "a"), InGroup("a2", "a"), InGroup("b1", "b")});
  const v1::Delivery a1 = ReceiveAll("q", 1)[0];
  Nack("q", a1.receipt(), v1::NACK_ACTION_DELAY, absl::Milliseconds(300));
  // The other group is not held up, and nothing of this one passes what waits.
  const v1::Delivery b1 = ReceiveAll("q", 1)[0];
  EXPECT_EQ(b1.message().body(), "b1");
  EXPECT_EQ(Stats("q").delayed(), 1);
  EXPECT_EQ(Stats("q").blocked(), 1);
  const v1::Delivery again = ReceiveAll("q", 1)[0];
  EXPECT_EQ(again.message().body(), "a1");
  EXPECT_EQ(again.attempt(), 2);
  Ack("q", {again.receipt(), b1.receipt()});
  EXPECT_THAT(Drain("q"), ElementsAre("a2"));
}

TEST_F(GroupsTest, AHigherPriorityOvertakesWithinTheGroupStillOneAtATime) {
  MakeQueue("q");
  v1::Message urgent = InGroup("urgent", "a");
  urgent.set_priority(9);
  SendAll("q", {InGroup("a1", "a"), InGroup("a2", "a")});
  const v1::Delivery a1 = ReceiveAll("q", 1)[0];
  Send("q", urgent);
  EXPECT_THAT(Receive("q", 10, absl::ZeroDuration()), IsEmpty());
  Ack("q", {a1.receipt()});
  const std::vector<v1::Delivery> next = Receive("q", 10);
  EXPECT_THAT(BodiesOf(next), ElementsAre("urgent"));
  Ack("q", ReceiptsOf(next));
  EXPECT_THAT(Drain("q"), ElementsAre("a2"));
}

TEST_F(GroupsTest, ADelayedMessageJoinsItsGroupWhenItIsDue) {
  MakeQueue("q");
  // Comes due only when a1 is out, however slow the machine is.
  v1::Message delayed = After("delayed", absl::Hours(1));
  delayed.set_group("a");
  const std::string id = SendAll("q", {delayed, InGroup("a1", "a")})[0].message_id();
  const v1::Delivery a1 = ReceiveAll("q", 1)[0];
  EXPECT_EQ(a1.message().body(), "a1") << "what is not due holds up nobody";
  Reschedule("q", id, absl::Milliseconds(100));
  EXPECT_TRUE(WaitUntil([&] { return Stats("q").delayed() == 0; }));
  EXPECT_EQ(Look("q", id).state(), v1::MESSAGE_STATE_BLOCKED);
  EXPECT_THAT(Receive("q", 1, absl::ZeroDuration()), IsEmpty());
  Ack("q", {a1.receipt()});
  EXPECT_THAT(Drain("q"), ElementsAre("delayed"));
}

TEST_F(GroupsTest, ADeepBlockedGroupHoldsUpNobody) {
  MakeQueue("q");
  for (int batch = 0; batch < 5; ++batch) {
    std::vector<v1::Message> messages;
    for (int i = 0; i < 1000; ++i) {
      messages.push_back(InGroup(absl::StrCat("deep ", batch * 1000 + i), "deep"));
    }
    SendAll("q", messages);
  }
  Send("q", InGroup("other 0", "other"));
  const std::vector<v1::Delivery> both = ReceiveAll("q", 2);
  EXPECT_THAT(BodiesOf(both), ElementsAre("deep 0", "other 0"));
  KillAndRestart();
  EXPECT_EQ(Ack("q", ReceiptsOf(both)).acked(), 2);
  Send("q", InGroup("other 1", "other"));
  EXPECT_THAT(BodiesOf(ReceiveAll("q", 2)), UnorderedElementsAre("deep 1", "other 1"));
}

TEST_F(GroupsTest, TheOrderOutlastsACrashInTheMiddle) {
  MakeQueue("q");
  SendAll("q", {InGroup("a1", "a"), InGroup("a2", "a"), InGroup("a3", "a")});
  Ack("q", ReceiptsOf(ReceiveAll("q", 1)));
  const v1::Delivery a2 = ReceiveAll("q", 1)[0];
  KillAndRestart();
  const std::vector<v1::Delivery> again = Receive("q", 10);
  ASSERT_THAT(BodiesOf(again), ElementsAre("a2")) << "its lease went with the crash";
  EXPECT_EQ(again[0].attempt(), 1);
  TerminateAndRestart();
  EXPECT_THAT(Receive("q", 10, absl::ZeroDuration()), IsEmpty())
      << "a clean stop keeps the lease, and with it the group closed";
  Ack("q", ReceiptsOf(again));
  EXPECT_THAT(Drain("q"), ElementsAre("a3"));
}

TEST_F(GroupsTest, ManyGroupsRunSideBySideEachInItsOrder) {
  constexpr int kGroups = 500;
  constexpr int kOfEach = 4;
  MakeQueue("q");
  for (int i = 0; i < kOfEach; ++i) {
    std::vector<v1::Message> messages;
    for (int group = 0; group < kGroups; ++group) {
      messages.push_back(InGroup(std::to_string(i), absl::StrCat("g", group)));
    }
    SendAll("q", messages);
  }
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_max_in_flight(kGroups);
  Subscription subscription(*client_, request);
  std::vector<v1::Delivery> held = subscription.Next(kGroups);
  std::map<std::string, int> next_of;
  std::map<std::string, bool> failed;
  const auto seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  for (int settled = 0; settled < kGroups * kOfEach;) {
    // Some fail once, and come again before anything else of their group.
    std::shuffle(held.begin(), held.end(), random);
    std::vector<std::string> acked;
    int returned = 0;
    for (const v1::Delivery& delivery : held) {
      const std::string& group = delivery.message().group();
      ASSERT_EQ(delivery.message().body(), std::to_string(next_of[group])) << group;
      if (!failed[group] && random() % 10 == 0) {
        failed[group] = true;
        Nack("q", delivery.receipt(), v1::NACK_ACTION_RETRY);
        ++returned;
        continue;
      }
      acked.push_back(delivery.receipt());
      ++next_of[group];
    }
    ASSERT_EQ(Ack("q", acked).acked(), static_cast<int>(acked.size()));
    settled += static_cast<int>(acked.size());
    int expected = returned;
    for (const v1::Delivery& delivery : held) {
      const int next = next_of[delivery.message().group()];
      if (delivery.message().body() != std::to_string(next) && next < kOfEach) ++expected;
    }
    held = subscription.Next(static_cast<size_t>(expected));
  }
  EXPECT_EQ(Stats("q").ready() + Stats("q").leased() + Stats("q").blocked(), 0);
}

}  // namespace
}  // namespace sluice::testing
