// Acks, nacks and publishes in one batch: all or none.
#include <gtest/gtest.h>

#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::MakePublish;
using ::sluice::testing::Reply;
using ::sluice::testing::ShardHarness;
using Bodies = std::vector<std::string>;
using Outcome = absl::StatusOr<std::vector<std::vector<PublishedMessage>>>;

class TransactTest : public ::testing::Test {
 protected:
  TransactTest() {
    for (const char* name : {"in", "out"}) EXPECT_TRUE(shard_.CreateQueue(name).ok());
    QueueConfigChange config;
    config.name = "limited";
    config.max_length = 1;
    EXPECT_TRUE(shard_.CreateQueue(config).ok());
    shard_.Publish("in", {"a", "b"});
    got_ = shard_.Receive("in", 2);
  }
  Reply<Outcome> Start(TransactCommand command) {
    Reply<Outcome> reply;
    command.done = reply.Done();
    shard_.Start(std::move(command));
    return reply;
  }
  Outcome Run(TransactCommand command) {
    const auto reply = Start(std::move(command));
    shard_.RunUntilQuiet();
    EXPECT_EQ(reply.calls(), 1);
    return *reply;
  }
  TransactCommand Forward() {
    TransactCommand command;
    command.acks.push_back({"in", {{got_[0].receipt}}});
    command.nacks.push_back({"in", {{got_[1].receipt, SettleAction::kRelease}}});
    command.publishes.push_back(MakePublish("out", {{"x"}, {"y"}}));
    return command;
  }
  ShardHarness shard_;
  std::vector<OutgoingDelivery> got_;
};

TEST_F(TransactTest, DoesAllOfItInOneBatch) {
  const auto reply = Start(Forward());
  EXPECT_FALSE(reply.answered());
  EXPECT_EQ(shard_.pending_batches(), 1u);
  shard_.RunUntilQuiet();
  ASSERT_TRUE(reply.answered() && (*reply).ok());
  ASSERT_EQ((**reply).size(), 1u);
  EXPECT_EQ((**reply)[0].size(), 2u);
  EXPECT_EQ(shard_.ListBodies("in"), Bodies{"b"});
  EXPECT_EQ(shard_.ListBodies("out"), (Bodies{"x", "y"}));
}

TEST_F(TransactTest, ACrashBeforeTheBatchUndoesAllOfIt) {
  Start(Forward());
  shard_.Crash();
  EXPECT_EQ(shard_.ListBodies("in"), (Bodies{"a", "b"}));
  EXPECT_TRUE(shard_.List("out").empty());
}

TEST_F(TransactTest, OneBadPartRefusesTheWhole) {
  TransactCommand bad = Forward();
  bad.nacks[0].items[0].receipt.delivery_count = 9;
  EXPECT_EQ(ReasonOf(Run(std::move(bad)).status()), ErrorReason::kLeaseExpired);
  bad = Forward();
  bad.publishes.push_back(MakePublish("nowhere", {{"z"}}));
  EXPECT_EQ(ReasonOf(Run(std::move(bad)).status()), ErrorReason::kQueueNotFound);
  bad = Forward();
  bad.publishes.push_back(MakePublish("limited", {{"1"}, {"2"}}));
  EXPECT_EQ(ReasonOf(Run(std::move(bad)).status()), ErrorReason::kQueueFull);
  EXPECT_EQ(shard_.Stats("in").leased, 2);
  EXPECT_TRUE(shard_.List("out").empty());
  EXPECT_TRUE(Run(Forward()).ok());
}

// Nothing may be dropped for a publish that another queue refuses, whichever is looked at first.
TEST_F(TransactTest, ARefusalDropsNoHeads) {
  std::vector<std::string> names;
  for (int i = 0; i < 8; ++i) {
    QueueConfigChange config;
    config.name = names.emplace_back("drop" + std::to_string(i));
    config.max_length = 1;
    config.overflow = Overflow::kDropHead;
    ASSERT_TRUE(shard_.CreateQueue(config).ok());
    shard_.Publish(config.name, {"kept"});
  }
  shard_.Publish("limited", {"full"});
  TransactCommand command;
  for (const auto& name : names) command.publishes.push_back(MakePublish(name, {{"new"}}));
  command.publishes.push_back(MakePublish("limited", {{"new"}}));
  EXPECT_EQ(ReasonOf(Run(std::move(command)).status()), ErrorReason::kQueueFull);
  for (const auto& name : names) EXPECT_EQ(shard_.ListBodies(name), Bodies{"kept"});
}

TEST_F(TransactTest, WhatItSettlesMakesRoomOnce) {
  shard_.Publish("limited", {"1"});
  const auto got = shard_.Receive("limited", 1);
  ASSERT_EQ(got.size(), 1u);
  const auto command = [&](int publishes) {
    TransactCommand command;
    SettleItem item;
    item.receipt = got[0].receipt;
    item.action = SettleAction::kAck;
    command.acks.push_back({"limited", {item, item}});
    for (int i = 0; i < publishes; ++i) {
      command.publishes.push_back(MakePublish("limited", {{"new"}}));
    }
    return command;
  };
  EXPECT_EQ(ReasonOf(Run(command(2)).status()), ErrorReason::kQueueFull);
  EXPECT_TRUE(Run(command(1)).ok());
  EXPECT_EQ(ReasonOf(Run(command(1)).status()), ErrorReason::kQueueFull) << "it is settled";
  EXPECT_EQ(shard_.ListBodies("limited"), Bodies{"new"});
}

TEST_F(TransactTest, WhatItAcksByAReceiptFromBeforeACrashMakesRoomAsWell) {
  QueueConfigChange config;
  config.name = "bytes";
  config.max_bytes = 110'000;
  ASSERT_TRUE(shard_.CreateQueue(config).ok());
  const std::string large(100'000, 'x');
  shard_.Send("bytes", {{large}, {"small"}});
  const auto got = shard_.Receive("bytes", 1);
  shard_.Crash();
  TransactCommand command;
  command.acks.push_back({"bytes", {{got.at(0).receipt}}});
  command.publishes.push_back(MakePublish("bytes", {{large}}));
  const auto done = Run(std::move(command));
  EXPECT_TRUE(done.ok()) << done.status();
}

TEST_F(TransactTest, DeduplicatesAndAnEmptyOneIsOk) {
  for (const bool duplicate : {false, true}) {
    TransactCommand command;
    ::sluice::testing::TestMessage message{"x"};
    message.dedup = "1";
    command.publishes.push_back(MakePublish("out", {message}));
    const auto outcome = Run(std::move(command));
    ASSERT_TRUE(outcome.ok());
    EXPECT_EQ((*outcome)[0][0].duplicate, duplicate);
  }
  EXPECT_TRUE(Run({}).ok());
}

}  // namespace
}  // namespace sluice::broker
