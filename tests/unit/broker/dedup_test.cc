// Deduplication ids and idempotent producers.
#include <gtest/gtest.h>

#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::MakePublish;
using ::sluice::testing::ShardHarness;
using ::sluice::testing::TestMessage;
using Bodies = std::vector<std::string>;

TestMessage WithId(const std::string& body, const std::string& dedup) {
  TestMessage message{body};
  message.dedup = dedup;
  return message;
}

class Dedup : public ::testing::Test {
 protected:
  Dedup() { EXPECT_TRUE(shard_.CreateQueue("q").ok()); }
  std::vector<PublishedMessage> Sent(const std::vector<TestMessage>& messages) {
    const auto result = shard_.Publish(MakePublish("q", messages));
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : std::vector<PublishedMessage>();
  }
  ShardHarness shard_;
};

TEST_F(Dedup, ARepeatIsAnsweredWithTheFirstIdAndNotStored) {
  const auto first = Sent({WithId("a", "1"), WithId("b", "2"), {"plain"}});
  const auto again = Sent({WithId("A", "1"), WithId("c", "3"), {"plain"}});
  EXPECT_FALSE(first[0].duplicate);
  EXPECT_TRUE(again[0].duplicate);
  EXPECT_EQ(again[0].id, first[0].id);
  EXPECT_EQ(again[0].routed_queues, 1);
  EXPECT_FALSE(again[1].duplicate);
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"a", "b", "plain", "c", "plain"}));
}

TEST_F(Dedup, HoldsWithinOnePublishAndBeforeTheFirstIsDurable) {
  const auto one = shard_.StartPublish(MakePublish("q", {WithId("a", "1"), WithId("b", "1")}));
  const auto two = shard_.StartPublish(MakePublish("q", {WithId("c", "1")}));
  EXPECT_FALSE(two.answered());
  shard_.RunUntilQuiet();
  ASSERT_TRUE(one.answered() && two.answered());
  EXPECT_TRUE((**one)[1].duplicate);
  EXPECT_EQ((**one)[1].id, (**one)[0].id);
  EXPECT_TRUE((**two)[0].duplicate);
  EXPECT_EQ((**two)[0].id, (**one)[0].id);
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"a"});
}

TEST_F(Dedup, ARepeatIsNotAnsweredBeforeTheFirstIsDurable) {
  shard_.StartPublish(MakePublish("q", {WithId("a", "1")}));
  while (shard_.ServeReads()) {
  }
  ASSERT_EQ(shard_.pending_batches(), 1u);
  const auto repeat = shard_.StartPublish(MakePublish("q", {WithId("b", "1")}));
  while (shard_.ServeReads()) {
  }
  EXPECT_FALSE(repeat.answered());
  shard_.Crash();
  EXPECT_FALSE(Sent({WithId("c", "1")})[0].duplicate) << "nothing of it was durable";
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"c"});
}

TEST_F(Dedup, TheWindowCountsFromTheFirstMessageAndSurvivesRestarts) {
  const auto first = Sent({WithId("a", "1")});
  shard_.Pass(kDedupWindowMsDefault - 1);
  shard_.Crash();
  EXPECT_TRUE(Sent({WithId("b", "1")})[0].duplicate);
  shard_.Pass(1);
  const auto second = Sent({WithId("c", "1")});
  EXPECT_FALSE(second[0].duplicate);
  const auto third = Sent({WithId("d", "1")});
  EXPECT_TRUE(third[0].duplicate);
  EXPECT_EQ(third[0].id, second[0].id);
}

TEST_F(Dedup, RemembersWhatWasAckedAndIsPerQueue) {
  Sent({WithId("a", "1")});
  EXPECT_EQ(shard_.Drain("q"), Bodies{"a"});
  EXPECT_TRUE(Sent({WithId("b", "1")})[0].duplicate);
  ASSERT_TRUE(shard_.CreateQueue("other").ok());
  EXPECT_FALSE((*shard_.Publish(MakePublish("other", {WithId("a", "1")})))[0].duplicate);
  ASSERT_TRUE(shard_.DeleteQueue("q").ok());
  ASSERT_TRUE(shard_.CreateQueue("q").ok());
  EXPECT_FALSE(Sent({WithId("c", "1")})[0].duplicate) << "another queue of the same name";
}

TEST_F(Dedup, AWindowOfZeroTurnsItOff) {
  QueueConfigChange change;
  change.name = "q";
  change.dedup_window_ms = 0;
  ASSERT_TRUE(shard_.UpdateQueue(change).ok());
  Sent({WithId("a", "1"), WithId("b", "1")});
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"a", "b"}));
}

TEST_F(Dedup, IsCheckedBeforeLimits) {
  QueueConfigChange change;
  change.name = "q";
  change.max_length = 1;
  ASSERT_TRUE(shard_.UpdateQueue(change).ok());
  Sent({WithId("a", "1")});
  EXPECT_TRUE(Sent({WithId("a", "1"), WithId("a", "1")})[1].duplicate);
  const auto full = shard_.Publish(MakePublish("q", {WithId("b", "2")}));
  EXPECT_EQ(ReasonOf(full.status()), ErrorReason::kQueueFull);
  ASSERT_TRUE(shard_.Purge("q", false).ok());
  EXPECT_FALSE(Sent({WithId("b", "2")})[0].duplicate) << "a refused one is not remembered";
}

TEST_F(Dedup, PublishesBehindALookupKeepTheirOrder) {
  const auto one = shard_.StartPublish(MakePublish("q", {WithId("a", "1")}));
  const auto two = shard_.StartPublish(MakePublish("q", {{"b"}}));
  const auto three = shard_.StartPublish(MakePublish("q", {WithId("c", "3")}));
  shard_.RunUntilQuiet();
  EXPECT_TRUE(one.answered() && two.answered() && three.answered());
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"a", "b", "c"}));
}

TEST_F(Dedup, AMoveToTheDeadLetterQueueAndBackIsNotADuplicate) {
  ASSERT_TRUE(shard_.CreateQueue("dlq").ok());
  QueueConfigChange change;
  change.name = "q";
  change.dead_letter_queue = "dlq";
  ASSERT_TRUE(shard_.UpdateQueue(change).ok());
  const auto first = Sent({WithId("a", "1")});
  const auto got = shard_.Receive("q");
  ASSERT_TRUE(shard_.Settle("q", got[0].receipt, SettleAction::kDeadLetter).ok());
  EditMessagesCommand redrive;
  redrive.queue = "dlq";
  redrive.action = EditMessagesCommand::Action::kMove;
  redrive.positions = {shard_.List("dlq")[0].position};
  EXPECT_EQ(*shard_.Edit(std::move(redrive)), 1);
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"a"});
  EXPECT_EQ(Sent({WithId("b", "1")})[0].id, first[0].id);
}

}  // namespace
}  // namespace sluice::broker
