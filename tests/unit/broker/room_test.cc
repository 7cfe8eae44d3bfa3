// Limits of queues: refusing, and dropping heads.
#include "tests/unit/broker/room_fixture.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::BodiesOf;
using ::sluice::testing::MakePublish;
using ::sluice::testing::TestMessage;
using Bodies = std::vector<std::string>;

constexpr int64_t kEnvelope = 64;  // more than what the server adds to a message

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
  std::vector<Reply> replies;
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
  std::vector<Reply> replies;
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

}  // namespace
}  // namespace sluice::broker
