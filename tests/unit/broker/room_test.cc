// Limits of queues: refusing, dropping heads, waiting for room.
#include <gtest/gtest.h>

#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::BodiesOf;
using ::sluice::testing::MakePublish;
using ::sluice::testing::ShardHarness;
using ::sluice::testing::TestMessage;
using Bodies = std::vector<std::string>;

constexpr int64_t kEnvelope = 64;  // more than what the server adds to a message

QueueConfigChange Limited(int64_t max_length, Overflow overflow = Overflow::kReject) {
  QueueConfigChange config;
  config.name = "q";
  config.max_length = max_length;
  config.overflow = overflow;
  return config;
}
std::vector<TestMessage> Many(int count, const std::string& prefix = "") {
  std::vector<TestMessage> messages;
  for (int i = 0; i < count; ++i) messages.push_back({prefix + std::to_string(i)});
  return messages;
}
Publish Waiting(const std::vector<TestMessage>& messages, int64_t wait_ms) {
  Publish publish = MakePublish("q", messages);
  publish.wait_when_full_ms = wait_ms;
  return publish;
}

class Room : public ::testing::Test {
 protected:
  void Create(const QueueConfigChange& config) {
    const auto created = shard_.CreateQueue(config);
    ASSERT_TRUE(created.ok()) << created.status();
  }
  // kUnspecified: it was taken.
  ErrorReason Refused(const std::vector<TestMessage>& messages) {
    const auto result = shard_.Publish(MakePublish("q", messages));
    return result.ok() ? ErrorReason::kUnspecified : ReasonOf(result.status());
  }
  ShardHarness shard_;
};

TEST_F(Room, MaxLengthCountsEveryUnsettledMessage) {
  Create(Limited(4));
  TestMessage delayed{"late"};
  delayed.delay_ms = 100'000;
  shard_.Send("q", {{"leased"}, {"waiting"}, delayed});
  const auto got = shard_.Receive("q", 2);
  ASSERT_TRUE(shard_.Settle("q", got[1].receipt, SettleAction::kDelay, 50'000).ok());
  EXPECT_EQ(Refused({{"a"}, {"b"}}), ErrorReason::kQueueFull) << "all or none";
  EXPECT_EQ(shard_.Stats("q").ready, 0);
  shard_.Send("q", {{"a"}});
  const auto full = shard_.Publish(MakePublish("q", {{"b"}}));
  EXPECT_EQ(ReasonOf(full.status()), ErrorReason::kQueueFull);
  EXPECT_TRUE(RetryAfterMsOf(full.status())) << "room may come";
  shard_.Crash();
  EXPECT_EQ(Refused({{"b"}}), ErrorReason::kQueueFull) << "also after a crash";
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  shard_.Send("q", {{"b"}});
}

TEST_F(Room, MoreThanTheQueueMayEverHoldIsRefusedForGood) {
  Create(Limited(3));
  shard_.Send("q", {{"kept"}});
  Publish publish = Waiting(Many(4), 1000);
  const auto result = shard_.Publish(std::move(publish));
  EXPECT_EQ(ReasonOf(result.status()), ErrorReason::kQueueFull);
  EXPECT_FALSE(RetryAfterMsOf(result.status()));
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"kept"});
}

TEST_F(Room, MaxBytesCountsWholeMessages) {
  QueueConfigChange config;
  config.name = "q";
  config.max_bytes = 3 * (1000 + kEnvelope);
  Create(config);
  for (int i = 0; i < 3; ++i) shard_.Send("q", {{std::string(1000, 'x')}});
  EXPECT_EQ(Refused({{std::string(1000, 'x')}}), ErrorReason::kQueueFull);
  const int64_t left = *config.max_bytes - shard_.Stats("q").bytes;
  const int64_t envelope = shard_.Stats("q").bytes / 3 - 1000;
  ASSERT_GT(left, envelope);
  EXPECT_EQ(Refused({{std::string(static_cast<size_t>(left - envelope + 1), 'x')}}),
            ErrorReason::kQueueFull);
  shard_.Send("q", {{std::string(static_cast<size_t>(left - envelope), 'x')}});
  EXPECT_EQ(shard_.Stats("q").bytes, *config.max_bytes);
}

TEST_F(Room, TheLimitCanBeLiftedAndLowered) {
  Create(Limited(1));
  shard_.Send("q", {{"a"}});
  EXPECT_EQ(Refused({{"b"}}), ErrorReason::kQueueFull);
  ASSERT_TRUE(shard_.UpdateQueue(Limited(0)).ok());
  shard_.Send("q", Many(10));
  ASSERT_TRUE(shard_.UpdateQueue(Limited(5)).ok());
  EXPECT_EQ(Refused({{"b"}}), ErrorReason::kQueueFull);
  EXPECT_EQ(shard_.Stats("q").ready, 11) << "what is there stays";
}

// ---- DROP_HEAD

TEST_F(Room, DropHeadDropsTheOldestOfTheLowestPriority) {
  Create(Limited(4, Overflow::kDropHead));
  shard_.Send("q", {{"h0", 9}, {"l0", 1}, {"l1", 1}, {"m0", 4}});
  shard_.Send("q", {{"m1", 4}});
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"h0", "m0", "m1", "l1"}));
  shard_.Send("q", {{"h1", 9}, {"h2", 9}});
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"h0", "h1", "h2", "m1"}));
  EXPECT_EQ(shard_.GetQueue("q").counters.dropped, 3u);
  shard_.Send("q", Many(4));
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"0", "1", "2", "3"}));
}

TEST_F(Room, DropHeadKeepsTheEndOfAPublishThatIsLargerThanTheQueue) {
  Create(Limited(3, Overflow::kDropHead));
  shard_.Send("q", {{"old", 9}, {"leased"}});
  const auto leased = shard_.Receive("q", 1);
  ASSERT_EQ(BodiesOf(leased), Bodies{"old"});
  shard_.Send("q", {{"h", 9}, {"0"}, {"l", 1}, {"1"}, {"2"}});
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"old", "h", "2"})) << "as if they came one by one";
  EXPECT_EQ(shard_.GetQueue("q").counters.dropped, 4u);
  shard_.Crash();
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"old", "h", "2"}));
  shard_.Send("q", Many(1000));
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"997", "998", "999"}))
      << "the crash has ended the lease";
}

TEST_F(Room, DropHeadKeepsTheEndWithinItsBytesToo) {
  QueueConfigChange config = Limited(0, Overflow::kDropHead);
  config.max_bytes = 3000;
  Create(config);
  shard_.Send("q", {{std::string(900, 'o')}});
  shard_.Send("q", {{std::string(1000, 'a')}, {std::string(1000, 'b')}, {std::string(1000, 'c')}});
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{std::string(1000, 'b'), std::string(1000, 'c')}));
  EXPECT_EQ(Refused({{"small"}, {std::string(3000, 'd')}}), ErrorReason::kQueueFull)
      << "one of it could never be taken";
}

TEST_F(Room, WhatAPublishPushesOutNeedsRoomInTheDeadLetterQueue) {
  QueueConfigChange dead = Limited(4);
  dead.name = "dead";
  ASSERT_TRUE(shard_.CreateQueue(dead).ok());
  QueueConfigChange config = Limited(2, Overflow::kDropHead);
  config.dead_letter_queue = "dead";
  Create(config);
  shard_.Send("q", Many(6));
  EXPECT_EQ(shard_.ListBodies("dead"), (Bodies{"0", "1", "2", "3"}));
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"4", "5"}));
  EXPECT_EQ(Refused({{"6"}, {"7"}, {"8"}}), ErrorReason::kQueueFull);
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"4", "5"}));
}

// Also where the publish goes to that queue itself.
TEST_F(Room, APublishToAQueueAndToItsDeadLetterQueueFitsBothOrIsRefusedWhole) {
  for (const bool dead_comes_first : {true, false}) {
    SCOPED_TRACE(dead_comes_first);
    QueueConfigChange queue = Limited(5, Overflow::kDropHead);
    QueueConfigChange dead = Limited(5, Overflow::kDropHead);
    queue.name = dead_comes_first ? "q1" : "q2";
    dead.name = dead_comes_first ? "dead1" : "dead2";
    if (!dead_comes_first) Create(queue);
    Create(dead);
    queue.dead_letter_queue = dead.name;
    if (dead_comes_first) {
      Create(queue);
    } else {
      ASSERT_TRUE(shard_.UpdateQueue(queue).ok());
    }
    const std::string fan = "fan of " + queue.name;
    ExchangeChange exchange;
    exchange.name = fan;
    exchange.type = ExchangeType::kFanout;
    testing::Reply<absl::StatusOr<CreateExchangeCommand::Outcome>> created;
    shard_.Run(CreateExchangeCommand{exchange, created.Done()});
    ASSERT_TRUE((*created).ok()) << (*created).status();
    for (const std::string& to : {queue.name, dead.name}) {
      testing::Reply<absl::StatusOr<bool>> bound;
      shard_.Run(CreateBindingCommand{{fan, to, "", "", {}, HeaderMatch::kAll}, bound.Done()});
      ASSERT_TRUE((*bound).ok()) << (*bound).status();
    }
    Publish publish = MakePublish("", Many(9));
    publish.exchange = fan;
    // Nine push four of the one into the other, which may have pushed out its own before.
    const bool taken = shard_.Publish(std::move(publish)).ok();
    EXPECT_EQ(taken, !dead_comes_first);
    EXPECT_EQ(shard_.ListBodies(queue.name).size(), taken ? 5u : 0u);
    EXPECT_EQ(shard_.ListBodies(dead.name).size(), taken ? 5u : 0u);
    publish = MakePublish("", Many(5));
    publish.exchange = fan;
    EXPECT_TRUE(shard_.Publish(std::move(publish)).ok());
    EXPECT_EQ(shard_.ListBodies(queue.name).size(), 5u);
    EXPECT_EQ(shard_.ListBodies(dead.name).size(), 5u);
  }
}

TEST_F(Room, DropHeadTakesDelayedMessagesLast) {
  Create(Limited(3, Overflow::kDropHead));
  TestMessage delayed{"d0", 9};
  delayed.delay_ms = 100'000;
  shard_.Send("q", {delayed});
  delayed.body = "d1";
  shard_.Send("q", {delayed, {"a"}});
  shard_.Send("q", {{"b"}});
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"b", "d0", "d1"}));
  const auto got = shard_.Receive("q", 1);
  shard_.Send("q", {{"c"}});
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"b", "c", "d1"}));
  shard_.Pass(200'000);
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"d1", "b", "c"})) << "what was dropped never joins";
}

TEST_F(Room, DropHeadLeavesWhatIsLeasedAndRejectsWhereThereIsNoneElse) {
  Create(Limited(2, Overflow::kDropHead));
  shard_.Send("q", {{"a"}, {"b"}});
  const auto got = shard_.Receive("q", 2);
  EXPECT_EQ(Refused({{"c"}}), ErrorReason::kQueueFull);
  ASSERT_TRUE(shard_.Settle("q", got[1].receipt, SettleAction::kRelease).ok());
  shard_.Send("q", {{"c"}});
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"a", "c"}));
  EXPECT_EQ(ReasonOf(shard_.Ack("q", got[1].receipt)), ErrorReason::kLeaseExpired);
  EXPECT_TRUE(shard_.Ack("q", got[0].receipt).ok());
}

TEST_F(Room, DropHeadDropsWhatIsOnDiskOnly) {
  Create(Limited(1000, Overflow::kDropHead));
  shard_.Send("q", Many(1000));
  shard_.Crash();
  ASSERT_EQ(shard_.Totals().window_bytes, 0u);
  shard_.Send("q", Many(300, "new"));
  const Bodies bodies = shard_.ListBodies("q");
  ASSERT_EQ(bodies.size(), 1000u);
  EXPECT_EQ(bodies.front(), "300");
  EXPECT_EQ(bodies.back(), "new299");
  EXPECT_EQ(shard_.GetQueue("q").counters.dropped, 300u);
}

TEST_F(Room, DropHeadKeepsTheOrderOfPublishesThatWaitForReads) {
  Create(Limited(100, Overflow::kDropHead));
  shard_.Send("q", Many(100));
  shard_.Crash();
  std::vector<ShardHarness::PublishReply> replies;
  for (int i = 0; i < 5; ++i) {
    replies.push_back(shard_.StartPublish(MakePublish("q", {{"n" + std::to_string(i)}})));
  }
  shard_.RunUntilQuiet();
  for (const auto& reply : replies) {
    ASSERT_TRUE(reply.answered());
    EXPECT_TRUE((*reply).ok()) << (*reply).status();
  }
  const Bodies bodies = shard_.ListBodies("q");
  ASSERT_EQ(bodies.size(), 100u);
  EXPECT_EQ(Bodies(bodies.end() - 5, bodies.end()), (Bodies{"n0", "n1", "n2", "n3", "n4"}));
  EXPECT_EQ(bodies.front(), "5");
}

// Messages that ride the same sync may drop each other.
TEST_F(Room, DropHeadNeverRefusesForWhatIsNotDurableYet) {
  Create(Limited(10, Overflow::kDropHead));
  std::vector<ShardHarness::PublishReply> replies;
  for (int i = 0; i < 5; ++i) {
    replies.push_back(
        shard_.StartPublish(MakePublish("q", Many(6, std::to_string(i) + "."))));
  }
  shard_.RunUntilQuiet();
  for (const auto& reply : replies) {
    ASSERT_TRUE(reply.answered());
    EXPECT_TRUE((*reply).ok()) << (*reply).status();
  }
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"3.2", "3.3", "3.4", "3.5", "4.0", "4.1", "4.2",
                                            "4.3", "4.4", "4.5"}));
  shard_.Crash();
  EXPECT_EQ(shard_.Drain("q").size(), 10u);
}

TEST_F(Room, DropHeadTakesFromTheGroupsAndOrderHolds) {
  Create(Limited(100, Overflow::kDropHead));
  std::vector<TestMessage> messages = Many(100);
  for (auto& message : messages) message.group = "g";
  shard_.Send("q", messages);
  const auto sink = shard_.Subscribe("q");
  ASSERT_EQ(sink->waiting(), 1u);
  for (int i = 0; i < 90; ++i) shard_.Send("q", {{"n" + std::to_string(i), 4, "g"}});
  Bodies expected{"0"};
  for (int i = 91; i < 100; ++i) expected.push_back(std::to_string(i));
  for (int i = 0; i < 90; ++i) expected.push_back("n" + std::to_string(i));
  EXPECT_EQ(shard_.AckAll("q", *sink), expected);
}

TEST_F(Room, WhatIsDroppedGoesToTheDeadLetterQueueAndWhenThatIsFullThePublishIsRefused) {
  QueueConfigChange dlq;
  dlq.name = "dlq";
  dlq.max_length = 2;
  Create(dlq);
  QueueConfigChange config = Limited(2, Overflow::kDropHead);
  config.dead_letter_queue = "dlq";
  Create(config);
  shard_.Send("q", Many(2));
  shard_.Send("q", {{"2"}, {"3"}});
  EXPECT_EQ(shard_.ListBodies("dlq"), (Bodies{"0", "1"}));
  EXPECT_EQ(shard_.List("dlq")[0].deaths->front().reason, DeathReason::kOverflow);
  EXPECT_EQ(Refused({{"4"}}), ErrorReason::kQueueFull) << "nothing is lost";
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"2", "3"}));
  ASSERT_TRUE(shard_.Purge("dlq", false).ok());
  shard_.Send("q", {{"4"}});
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"3", "4"}));
}

// To read the heads again would go on for ever.
TEST_F(Room, HeadsOnDiskForWhichTheDeadLetterQueueHasNoRoomAreReadOnce) {
  QueueConfigChange dead = Limited(1);
  dead.name = "dead";
  Create(dead);
  QueueConfigChange config = Limited(2, Overflow::kDropHead);
  config.dead_letter_queue = "dead";
  Create(config);
  shard_.Send("dead", {{"x"}});
  shard_.Send("q", Many(2));
  shard_.Crash();
  const auto late = shard_.StartPublish(MakePublish("q", {{"late"}}));
  int reads = 0;
  const auto run = [&] {
    for (int i = 0; i < 20; ++i) {
      if (shard_.ServeReads()) ++reads;
      shard_.Commit();
      shard_.Turn();
    }
  };
  run();
  EXPECT_LE(reads, 2);
  ASSERT_TRUE(late.answered());
  EXPECT_EQ(ReasonOf((*late).status()), ErrorReason::kQueueFull);
  const auto waiting = shard_.StartPublish(Waiting({{"waiting"}}, 60'000));
  run();
  EXPECT_LE(reads, 3);
  EXPECT_FALSE(waiting.answered());
  ASSERT_TRUE(shard_.Purge("dead", false).ok());
  ASSERT_TRUE(waiting.answered());
  EXPECT_TRUE((*waiting).ok());
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"1", "waiting"}));
  EXPECT_EQ(shard_.ListBodies("dead"), Bodies{"0"});
}

TEST_F(Room, DropHeadWaitsForADeadLetterQueueThatDropsItsOwnHeadsFromDisk) {
  QueueConfigChange dead = Limited(2, Overflow::kDropHead);
  dead.name = "dead";
  Create(dead);
  QueueConfigChange config = Limited(2, Overflow::kDropHead);
  config.dead_letter_queue = "dead";
  Create(config);
  shard_.Send("dead", {{"x"}, {"y"}});
  shard_.Send("q", Many(2));
  shard_.Crash();
  EXPECT_EQ(Refused({{"2"}}), ErrorReason::kUnspecified);
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"1", "2"}));
  EXPECT_EQ(shard_.ListBodies("dead"), (Bodies{"y", "0"}));
}

// ---- wait_when_full

TEST_F(Room, APublishWaitsForRoomAndKeepsItsPlace) {
  Create(Limited(2));
  shard_.Send("q", {{"a"}, {"b"}});
  const auto first = shard_.StartPublish(Waiting({{"c"}}, 5000));
  const auto second = shard_.StartPublish(Waiting({{"d"}}, 5000));
  shard_.Pass(1000);
  EXPECT_FALSE(first.answered());
  const auto got = shard_.Receive("q", 2);
  ASSERT_EQ(got.size(), 2u);
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  EXPECT_TRUE(first.answered());
  EXPECT_TRUE((*first).ok());
  EXPECT_FALSE(second.answered());
  ASSERT_TRUE(shard_.Ack("q", got[1].receipt).ok());
  ASSERT_TRUE(second.answered());
  EXPECT_TRUE((*second).ok());
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"c", "d"}));
}

TEST_F(Room, WhoHasGoneTakesItsWaitingPublishesWithIt) {
  Create(Limited(1));
  shard_.Send("q", {{"a"}});
  const auto wait = [&](const std::string& body, uint64_t caller) {
    ShardHarness::PublishReply reply;
    PublishCommand command;
    command.publish = Waiting({{body}}, 60'000);
    command.caller = caller;
    command.done = reply.Done();
    shard_.Start(std::move(command));
    return reply;
  };
  const auto first = wait("gone", 7);
  const auto second = wait("stays", 8);
  const auto third = wait("gone as well", 7);
  shard_.Run(AbandonPublishesCommand{7});
  for (const auto& gone : {first, third}) {
    ASSERT_TRUE(gone.answered());
    EXPECT_TRUE(absl::IsCancelled((*gone).status())) << (*gone).status();
  }
  EXPECT_FALSE(second.answered());
  const auto got = shard_.Receive("q");
  ASSERT_TRUE(shard_.Ack("q", got.at(0).receipt).ok());
  ASSERT_TRUE(second.answered());
  EXPECT_TRUE((*second).ok()) << "nothing is left before it";
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"stays"});
  shard_.Run(AbandonPublishesCommand{8});
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"stays"}) << "what is stored stays";
}

// Callers of an exchange that wait for one full queue.
class RoomOfAnExchange : public Room {
 protected:
  using Reply = testing::Reply<absl::StatusOr<std::vector<PublishedMessage>>>;
  void SetUp() override {
    Create(Limited(2));
    shard_.Fanout("x", {"q"});
    shard_.Send("q", {{"1"}, {"2"}});
  }
  Reply Wait(uint64_t caller, const std::vector<TestMessage>& messages, int64_t wait_ms = 60'000) {
    PublishCommand command;
    command.publish = Waiting(messages, wait_ms);
    command.publish.queue.clear();
    command.publish.exchange = "x";
    command.caller = caller;
    Reply reply;
    command.done = reply.Done();
    shard_.Start(std::move(command));
    shard_.RunUntilQuiet();
    return reply;
  }
  void AckOne() {
    const auto got = shard_.Receive("q");
    ASSERT_EQ(got.size(), 1u);
    EXPECT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  }
};

TEST_F(RoomOfAnExchange, WhoCameFirstIsServedFirst) {
  const Reply a1 = Wait(1, {{"a1"}});
  const Reply a2 = Wait(1, {{"a2"}});
  const Reply b1 = Wait(2, {{"b1"}});
  const Reply c1 = Wait(3, {{"c1"}});
  for (int i = 0; i < 6; ++i) AckOne();
  for (const Reply* reply : {&a1, &a2, &b1, &c1}) EXPECT_TRUE(reply->answered());
  EXPECT_EQ((*a1)->front().id.seq, 3u);
  EXPECT_EQ((*a2)->front().id.seq, 4u);
  EXPECT_EQ((*b1)->front().id.seq, 5u);
  EXPECT_EQ((*c1)->front().id.seq, 6u);
}

TEST_F(RoomOfAnExchange, WhoNeedsMoreKeepsItsTurnUntilItsTimeIsOver) {
  const Reply two = Wait(1, {{"a"}, {"b"}}, 50);
  const Reply one = Wait(2, {{"c"}});
  AckOne();
  EXPECT_FALSE(two.answered());
  EXPECT_FALSE(one.answered()) << "it would overtake";
  shard_.Pass(50);
  EXPECT_EQ(ReasonOf((*two).status()), ErrorReason::kQueueFull);
  EXPECT_TRUE(one.answered()) << "it need not wait for more room to be made";
}

TEST_F(RoomOfAnExchange, WhoComesLaterAndDoesNotWaitOvertakesNobody) {
  const Reply two = Wait(1, {{"a"}, {"b"}});
  AckOne();
  EXPECT_EQ(Refused({{"late"}}), ErrorReason::kQueueFull);
  const Reply late = Wait(2, {{"late"}}, 0);
  EXPECT_EQ(ReasonOf((*late).status()), ErrorReason::kQueueFull);
  AckOne();
  EXPECT_TRUE((*two).ok());
  AckOne();
  EXPECT_EQ(Refused({{"late"}}), ErrorReason::kUnspecified);
}

TEST_F(RoomOfAnExchange, WhoGoesMakesWay) {
  const Reply two = Wait(1, {{"a"}, {"b"}});
  const Reply one = Wait(2, {{"c"}});
  AckOne();
  EXPECT_FALSE(one.answered());
  shard_.Run(AbandonPublishesCommand{1});
  EXPECT_TRUE(one.answered());
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"2", "c"}));
}

TEST_F(Room, TheAnswerOfAWaitingPublishWaitsForTheDisk) {
  Create(Limited(1));
  shard_.Send("q", {{"a"}});
  const auto reply = shard_.StartPublish(Waiting({{"b"}}, 5000));
  const auto got = shard_.Receive("q");
  shard_.StartSettle("q", got[0].receipt, SettleAction::kAck);
  shard_.Turn();
  EXPECT_FALSE(reply.answered());
  shard_.Crash();
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"a"});
}

TEST_F(Room, AWaitEndsOnTimeForEveryoneInTheLine) {
  Create(Limited(1));
  shard_.Send("q", {{"a"}});
  std::vector<ShardHarness::PublishReply> replies;
  for (int i = 0; i < 3; ++i) replies.push_back(shard_.StartPublish(Waiting({{"x"}}, 5000)));
  const auto short_wait = shard_.StartPublish(Waiting({{"y"}}, 1000));
  const auto no_wait = shard_.StartPublish(Waiting({{"z"}}, 0));
  shard_.RunUntilQuiet();
  ASSERT_TRUE(no_wait.answered()) << "it did not ask to wait";
  EXPECT_EQ(ReasonOf((*no_wait).status()), ErrorReason::kQueueFull);
  shard_.Pass(1000);
  EXPECT_TRUE(short_wait.answered());
  shard_.Pass(3999);
  for (const auto& reply : replies) EXPECT_FALSE(reply.answered());
  shard_.Pass(1);
  for (const auto& reply : replies) {
    ASSERT_TRUE(reply.answered());
    EXPECT_EQ(ReasonOf((*reply).status()), ErrorReason::kQueueFull);
  }
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"a"});
}

TEST_F(Room, PurgeLimitExpiryAndDeleteEndTheWait) {
  Create(Limited(1));
  TestMessage expiring{"a"};
  expiring.ttl_ms = 2000;
  shard_.Send("q", {expiring});
  auto reply = shard_.StartPublish(Waiting({{"b"}}, 60'000));
  shard_.Pass(3000);
  EXPECT_TRUE(reply.answered()) << "expiry makes room";
  reply = shard_.StartPublish(Waiting({{"c"}}, 60'000));
  ASSERT_TRUE(shard_.Purge("q", true).ok());
  EXPECT_TRUE(reply.answered()) << "a purge makes room";
  reply = shard_.StartPublish(Waiting({{"d"}}, 60'000));
  ASSERT_TRUE(shard_.UpdateQueue(Limited(2)).ok());
  EXPECT_TRUE(reply.answered()) << "a larger limit makes room";
  reply = shard_.StartPublish(Waiting({{"e"}}, 60'000));
  ASSERT_TRUE(shard_.DeleteQueue("q").ok());
  ASSERT_TRUE(reply.answered());
  EXPECT_EQ(ReasonOf((*reply).status()), ErrorReason::kQueueNotFound);
}

TEST_F(Room, DrainingEndsTheWait) {
  Create(Limited(1));
  shard_.Send("q", {{"a"}});
  const auto reply = shard_.StartPublish(Waiting({{"b"}}, 60'000));
  shard_.Run(DrainCommand{[] {}});
  ASSERT_TRUE(reply.answered());
  EXPECT_EQ(ReasonOf((*reply).status()), ErrorReason::kDraining);
}

TEST_F(Room, APlainPublishDoesNotOvertakeOneThatWaits) {
  Create(Limited(1));
  ASSERT_TRUE(shard_.CreateQueue("other").ok());
  shard_.Send("q", {{"a"}});
  const auto waiting = shard_.StartPublish(Waiting({{"b"}}, 60'000));
  shard_.Publish("other", {"x"});
  EXPECT_FALSE(waiting.answered()) << "and other queues do not wait for it";
  ASSERT_TRUE(shard_.UpdateQueue(Limited(0)).ok());
  shard_.Publish("q", {"c"});
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"a", "b", "c"}));
}

TEST_F(Room, WhatOnePartOfATransactionPushesOutCountsWhereAnotherPartGoes) {
  Create(Limited(2, Overflow::kDropHead));
  QueueConfigChange dead = Limited(3, Overflow::kDropHead);
  dead.name = "dead";
  Create(dead);
  QueueConfigChange to_dead;
  to_dead.name = "q";
  to_dead.dead_letter_queue = "dead";
  ASSERT_TRUE(shard_.UpdateQueue(to_dead).ok());
  TransactCommand command;
  command.publishes.push_back(MakePublish("q", Many(4, "q")));
  command.publishes.push_back(MakePublish("dead", Many(4, "d")));
  command.done = [](const auto& result) { EXPECT_TRUE(result.ok()) << result.status(); };
  shard_.Run(std::move(command));
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"q2", "q3"}));
  EXPECT_EQ(shard_.ListBodies("dead").size(), 3u);
}

// Publishes that wait for several queues, or for one in several ways.
class RoomOfSeveral : public Room {
 protected:
  using Reply = testing::Reply<absl::StatusOr<std::vector<PublishedMessage>>>;
  void Make(const std::string& name) {
    QueueConfigChange config = Limited(1);
    config.name = name;
    Create(config);
    shard_.Send(name, {{"0"}});
  }
  static Binding To(const std::string& queue) {
    Binding binding;
    binding.exchange = "x";
    binding.queue = queue;
    return binding;
  }
  // To a queue, or, if there is none, to the exchange. By another caller each time.
  Reply Wait(const std::string& queue, const std::string& body, int64_t wait_ms = 300'000) {
    PublishCommand command;
    command.publish = Waiting({{body}}, wait_ms);
    command.publish.queue = queue;
    if (queue.empty()) command.publish.exchange = "x";
    command.caller = next_caller_++;
    Reply reply;
    command.done = reply.Done();
    shard_.Start(std::move(command));
    shard_.RunUntilQuiet();
    return reply;
  }
  void AckOne(const std::string& queue) {
    const auto got = shard_.Receive(queue);
    ASSERT_EQ(got.size(), 1u);
    EXPECT_TRUE(shard_.Ack(queue, got[0].receipt).ok());
  }
  uint64_t next_caller_ = 1;
};

TEST_F(RoomOfSeveral, OneThatGoesToTwoFullQueuesIsServedThoughBothStayInDemand) {
  Make("a");
  Make("b");
  shard_.Fanout("x", {"a", "b"});
  const Reply both = Wait("", "both");
  std::vector<Reply> later;
  for (int i = 0; i < 4 && !both.answered(); ++i) {
    for (const char* queue : {"a", "b"}) {
      later.push_back(Wait(queue, "later"));
      AckOne(queue);
    }
  }
  ASSERT_TRUE(both.answered());
  EXPECT_TRUE((*both).ok());
  EXPECT_FALSE(later.back().answered());
}

TEST_F(RoomOfSeveral, WhoWaitsForAnotherQueueHoldsUpNobody) {
  Make("a");
  Make("b");
  shard_.Fanout("x", {"a", "b"});
  AckOne("a");
  const Reply both = Wait("", "both");  // finds room in a
  const auto direct = shard_.Publish(MakePublish("a", {{"direct"}}));
  EXPECT_TRUE(direct.ok()) << direct.status();
  EXPECT_FALSE(both.answered());
}

TEST_F(RoomOfSeveral, DirectAndRoutedOnesAreServedInOrderOfArrival) {
  Make("q");
  shard_.Fanout("x", {"q"});
  std::vector<std::string> bodies;
  std::vector<Reply> replies;
  for (int i = 0; i < 6; ++i) {
    bodies.push_back((i % 3 == 1 ? "routed " : "direct ") + std::to_string(i));
    replies.push_back(Wait(i % 3 == 1 ? "" : "q", bodies.back()));
  }
  for (const std::string& body : bodies) {
    AckOne("q");
    EXPECT_EQ(shard_.ListBodies("q"), Bodies{body});
  }
}

TEST_F(RoomOfSeveral, RoomForSeveralGoesToTheFirstOnesOfAllLines) {
  Create(Limited(3));
  shard_.Send("q", Many(3));
  shard_.Fanout("x", {"q"});
  const std::vector<Reply> replies = {Wait("q", "direct 0"), Wait("", "routed 1"),
                                      Wait("q", "direct 2"), Wait("q", "direct 3")};
  ASSERT_TRUE(shard_.Purge("q", /*include_leased=*/false).ok());
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"direct 0", "routed 1", "direct 2"}));
}

TEST_F(RoomOfSeveral, AWaiterWhoseRouteIsGoneGoesWhereItsExchangeLeadsNow) {
  Make("a");
  Make("free");
  AckOne("free");
  shard_.Fanout("x", {"a"});
  const Reply rerouted = Wait("", "m");
  shard_.Run(CreateBindingCommand{To("free"), [](const auto& made) { EXPECT_TRUE(made.ok()); }});
  EXPECT_FALSE(rerouted.answered());
  shard_.Run(DeleteBindingCommand{To("a"), [](const auto& gone) { EXPECT_TRUE(gone.ok()); }});
  shard_.RunUntilQuiet();
  ASSERT_TRUE(rerouted.answered());
  EXPECT_EQ(shard_.ListBodies("free"), Bodies{"m"});
  const Reply refused = Wait("", "n");
  shard_.Run(DeleteExchangeCommand{"x", false, [](const auto& gone) { EXPECT_TRUE(gone.ok()); }});
  shard_.RunUntilQuiet();
  ASSERT_TRUE(refused.answered());
  EXPECT_EQ(ReasonOf((*refused).status()), ErrorReason::kExchangeNotFound);
}

TEST_F(RoomOfSeveral, ThoseWhoseRoutesChangeStayInOrderOfArrival) {
  Make("a");
  QueueConfigChange free = Limited(8);
  free.name = "free";
  Create(free);
  shard_.Fanout("x", {"a"});
  Bodies bodies;
  for (int i = 0; i < 12; ++i) {
    bodies.push_back(std::to_string(i));
    Wait("", bodies.back());
  }
  const auto expect_ok = [](const auto& result) { EXPECT_TRUE(result.ok()); };
  shard_.Apply(CreateBindingCommand{To("free"), expect_ok});
  shard_.Run(DeleteBindingCommand{To("a"), expect_ok});
  EXPECT_EQ(shard_.ListBodies("free"), Bodies(bodies.begin(), bodies.begin() + 8));
}

TEST_F(RoomOfSeveral, AMoveTakesNoRoomThatSomebodyWaitsFor) {
  Create(Limited(2));
  Make("other");
  shard_.Send("q", Many(2));
  const auto two = shard_.StartPublish(Waiting({{"a"}, {"b"}}, 60'000));
  AckOne("q");
  const auto move = [&] {
    EditMessagesCommand command;
    command.queue = "other";
    command.to_queue = "q";
    command.action = EditMessagesCommand::Action::kMove;
    command.positions = {shard_.List("other").at(0).position};
    return *shard_.Edit(std::move(command));
  };
  EXPECT_EQ(move(), 0);
  AckOne("q");
  ASSERT_TRUE(two.answered());
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"a", "b"}));
  AckOne("q");
  EXPECT_EQ(move(), 1);
}

// Where nothing can be dropped, as the dead-letter queue is full.
class RoomWithoutAWayOut : public RoomOfSeveral {
 protected:
  void SetUp() override {
    Make("dead");
    QueueConfigChange config = Limited(2, Overflow::kDropHead);
    config.dead_letter_queue = "dead";
    Create(config);
    shard_.Send("q", Many(2));
    shard_.Fanout("x", {"q"});
  }
};

TEST_F(RoomWithoutAWayOut, WhoComesLaterOvertakesNobody) {
  const auto two = shard_.StartPublish(Waiting({{"a"}, {"b"}}, 60'000));
  AckOne("q");
  const Reply late = Wait("", "late", 0);
  ASSERT_TRUE(late.answered());
  EXPECT_EQ(ReasonOf((*late).status()), ErrorReason::kQueueFull);
  const Reply later = Wait("", "later");
  EXPECT_FALSE(later.answered());
  AckOne("q");
  EXPECT_TRUE(two.answered());
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"a", "b"}));
  AckOne("dead");
  EXPECT_TRUE(later.answered());
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"b", "later"}));
}

TEST_F(RoomWithoutAWayOut, WhoDoesNotWaitIsAnsweredThoughItCameBehindOneThatDoes) {
  shard_.Crash();
  const auto waits = shard_.StartPublish(Waiting({{"waits"}}, 60'000));
  ASSERT_GT(shard_.pending_reads(), 0u);
  PublishCommand command;
  command.publish = MakePublish("", {{"does not"}});
  command.publish.exchange = "x";
  command.caller = 100;
  Reply does_not;
  command.done = does_not.Done();
  shard_.Start(std::move(command));
  EXPECT_FALSE(does_not.answered());
  shard_.RunUntilQuiet();
  ASSERT_TRUE(does_not.answered());
  EXPECT_EQ(ReasonOf((*does_not).status()), ErrorReason::kQueueFull);
  EXPECT_FALSE(waits.answered());
}

TEST_F(RoomOfSeveral, WhoDoesNotWaitIsRefusedBehindALookupThatFindsNoRoom) {
  QueueConfigChange config = Limited(1);
  config.dedup_window_ms = 60'000;
  Create(config);
  shard_.Send("q", {{"0"}});
  TestMessage known{"known"};
  known.dedup = "1";
  PublishCommand command;
  command.publish = Waiting({known}, 60'000);
  command.caller = 1;
  Reply first;
  command.done = first.Done();
  shard_.Apply(std::move(command));  // asks the store
  const Reply second = shard_.StartPublish(MakePublish("q", {{"impatient"}}));
  EXPECT_FALSE(second.answered());
  shard_.RunUntilQuiet();
  ASSERT_TRUE(second.answered());
  EXPECT_EQ(ReasonOf((*second).status()), ErrorReason::kQueueFull);
  EXPECT_FALSE(first.answered());
}

}  // namespace
}  // namespace sluice::broker
