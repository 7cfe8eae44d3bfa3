// Idempotent producers: sequences, fencing, and what is remembered.
#include <gtest/gtest.h>

#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::MakePublish;
using ::sluice::testing::ShardHarness;
using ::sluice::testing::TestMessage;
using Bodies = std::vector<std::string>;

class ProducersTest : public ::testing::Test {
 protected:
  ProducersTest() { EXPECT_TRUE(shard_.CreateQueue("q").ok()); }
  ProducerOpened Open(const std::string& id = "p") {
    const auto opened = shard_.OpenProducer("q", id);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return opened.ok() ? *opened : ProducerOpened();
  }
  // Publishes the sequences from..to; which were duplicates.
  absl::StatusOr<std::vector<bool>> Send(uint64_t stream, int64_t from, int64_t to) {
    std::vector<TestMessage> messages;
    for (int64_t i = from; i <= to; ++i) messages.push_back({std::to_string(i)});
    const auto result = shard_.Publish(MakePublish("q", messages), stream, from);
    if (!result.ok()) return result.status();
    std::vector<bool> duplicates;
    for (const auto& message : *result) duplicates.push_back(message.duplicate);
    return duplicates;
  }
  ShardHarness shard_;
};

TEST_F(ProducersTest, NoSequenceIsStoredTwice) {
  const auto opened = Open();
  EXPECT_EQ(opened.last_sequence, 0);
  EXPECT_EQ(*Send(opened.stream, 1, 3), std::vector<bool>(3, false));
  EXPECT_EQ(*Send(opened.stream, 2, 5), (std::vector<bool>{true, true, false, false}));
  EXPECT_EQ(*Send(opened.stream, 1, 5), std::vector<bool>(5, true));
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"1", "2", "3", "4", "5"}));
}

TEST_F(ProducersTest, ARepeatOfOldSequencesDoesNotSetTheLastOneBack) {
  const auto opened = Open();
  ASSERT_TRUE(Send(opened.stream, 1, 10).ok());
  ASSERT_TRUE(Send(opened.stream, 3, 5).ok());
  EXPECT_EQ(*Send(opened.stream, 9, 11), (std::vector<bool>{true, true, false}));
  shard_.Crash();
  EXPECT_EQ(Open().last_sequence, 11);
}

TEST_F(ProducersTest, ANewStreamGoesOnWhereTheLastStoredOneWasAlsoAfterACrash) {
  ASSERT_TRUE(Send(Open().stream, 1, 3).ok());
  EXPECT_EQ(Open().last_sequence, 3);
  shard_.Crash();
  auto opened = Open();
  EXPECT_EQ(opened.last_sequence, 3);
  shard_.StartPublish(MakePublish("q", {{"lost"}}), opened.stream, 4);
  shard_.Crash();
  opened = Open();
  EXPECT_EQ(opened.last_sequence, 3);
  EXPECT_EQ(*Send(opened.stream, 4, 4), std::vector<bool>{false});
}

TEST_F(ProducersTest, ANewerStreamFencesTheOlderOfTheSameTargetAndIdOnly) {
  const auto old = Open();
  const auto other = Open("other");
  const auto newer = Open();
  EXPECT_EQ(ReasonOf(Send(old.stream, 1, 1).status()), ErrorReason::kProducerFenced);
  EXPECT_TRUE(Send(newer.stream, 1, 1).ok());
  EXPECT_TRUE(Send(other.stream, 1, 1).ok());
  EXPECT_EQ(ReasonOf(Send(old.stream, 1, 1).status()), ErrorReason::kProducerFenced);
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"1", "1"}));
}

TEST_F(ProducersTest, WhatAFencedStreamHasWaitingForRoomIsRefusedAtOnce) {
  QueueConfigChange change;
  change.name = "q";
  change.max_length = 1;
  ASSERT_TRUE(shard_.UpdateQueue(change).ok());
  const auto old = Open();
  ASSERT_TRUE(Send(old.stream, 1, 1).ok());
  Publish two = MakePublish("q", {{"2"}});
  Publish three = MakePublish("q", {{"3"}});
  two.wait_when_full_ms = three.wait_when_full_ms = 60'000;
  const auto second = shard_.StartPublish(std::move(two), old.stream, 2);
  const auto third = shard_.StartPublish(std::move(three), old.stream, 3);
  const auto newer = Open();
  ASSERT_TRUE(second.answered() && third.answered());
  EXPECT_EQ(ReasonOf((*second).status()), ErrorReason::kProducerFenced);
  EXPECT_EQ(ReasonOf((*third).status()), ErrorReason::kProducerFenced);
  ASSERT_TRUE(shard_.Purge("q", false).ok());
  EXPECT_TRUE(Send(newer.stream, 2, 2).ok()) << "nobody is before it";
  EXPECT_EQ(shard_.Totals().producers_fenced, 1u);
}

TEST_F(ProducersTest, NothingAfterARefusedSequenceIsStored) {
  QueueConfigChange change;
  change.name = "q";
  change.max_length = 2;
  ASSERT_TRUE(shard_.UpdateQueue(change).ok());
  const auto opened = Open();
  ASSERT_TRUE(Send(opened.stream, 1, 1).ok());
  EXPECT_EQ(ReasonOf(Send(opened.stream, 2, 3).status()), ErrorReason::kQueueFull);
  EXPECT_EQ(ReasonOf(Send(opened.stream, 4, 4).status()), ErrorReason::kSequenceRefused);
  const auto newer = Open();
  EXPECT_EQ(newer.last_sequence, 1);
  EXPECT_TRUE(Send(newer.stream, 2, 2).ok());
}

TEST_F(ProducersTest, WaitingForRoomKeepsTheSequence) {
  QueueConfigChange change;
  change.name = "q";
  change.max_length = 1;
  ASSERT_TRUE(shard_.UpdateQueue(change).ok());
  const auto opened = Open();
  ASSERT_TRUE(Send(opened.stream, 1, 1).ok());
  Publish two = MakePublish("q", {{"2"}});
  Publish three = MakePublish("q", {{"3"}});
  two.wait_when_full_ms = three.wait_when_full_ms = 1000;
  const auto second = shard_.StartPublish(std::move(two), opened.stream, 2);
  const auto third = shard_.StartPublish(std::move(three), opened.stream, 3);
  shard_.Pass(1000);
  ASSERT_TRUE(second.answered() && third.answered());
  EXPECT_EQ(ReasonOf((*second).status()), ErrorReason::kQueueFull);
  EXPECT_FALSE((*third).ok());
  ASSERT_TRUE(shard_.Purge("q", false).ok());
  EXPECT_FALSE(Send(opened.stream, 4, 4).ok());
  EXPECT_EQ(shard_.ListBodies("q"), Bodies());
}

TEST_F(ProducersTest, IsForgottenAfterAWeekWithoutAPublish) {
  ASSERT_TRUE(Send(Open().stream, 1, 3).ok());
  shard_.Advance(kProducerKeptMs - 1);
  EXPECT_EQ(Open().last_sequence, 3);
  shard_.Crash();
  shard_.Advance(1);
  EXPECT_EQ(Open().last_sequence, 0);
}

TEST_F(ProducersTest, TheQueueMustExist) {
  EXPECT_EQ(ReasonOf(shard_.OpenProducer("nowhere", "p").status()), ErrorReason::kQueueNotFound);
}

}  // namespace
}  // namespace sluice::broker
