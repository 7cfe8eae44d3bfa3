// What becomes of a granted message: ack, nack, expiry, extension, and which receipts are good.
#include <gtest/gtest.h>

#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::BodiesOf;
using ::sluice::testing::Reply;
using ::sluice::testing::ShardHarness;

class Settle : public ::testing::Test {
 protected:
  Settle() {
    EXPECT_TRUE(shard_.CreateQueue("q").ok());
    EXPECT_TRUE(shard_.CreateQueue("other").ok());
  }
  OutgoingDelivery Get() {
    auto got = shard_.Receive("q");
    EXPECT_EQ(got.size(), 1u);
    return got.empty() ? OutgoingDelivery() : got[0];
  }
  // Runs until `ms` have passed, in steps that let leases and retries fall due on time.
  void Pass(int64_t ms) {
    shard_.Advance(ms);
    shard_.RunUntilQuiet();
  }
  absl::StatusOr<ExtendOutcome> Extend(const Receipt& receipt, int64_t lease_ms) {
    Reply<absl::StatusOr<ExtendOutcome>> reply;
    shard_.Run(ExtendLeaseCommand{"q", {receipt}, lease_ms, reply.Done()});
    return *reply;
  }
  ShardHarness shard_;
};

TEST_F(Settle, TheSameReceiptTwiceIsOk) {
  shard_.Publish("q", {"a"});
  const auto got = Get();
  EXPECT_TRUE(shard_.Ack("q", got.receipt).ok());
  EXPECT_TRUE(shard_.Ack("q", got.receipt).ok());
  EXPECT_TRUE(shard_.Settle("q", got.receipt, SettleAction::kRetry).ok());
  EXPECT_EQ(shard_.GetQueue("q").counters.acked, 1u);
  EXPECT_EQ(shard_.Stats("q").ready, 0);
}

TEST_F(Settle, ReceiptsOfOtherQueuesAndOfNothingAreInvalid) {
  shard_.Publish("q", {"a"});
  const auto got = Get();
  EXPECT_EQ(ReasonOf(shard_.Ack("other", got.receipt)), ErrorReason::kReceiptInvalid);
  Receipt wrong = got.receipt;
  wrong.position.seq = 2;
  EXPECT_EQ(ReasonOf(shard_.Ack("q", wrong)), ErrorReason::kReceiptInvalid);
  wrong = got.receipt;
  wrong.position.lane = 200;
  EXPECT_EQ(ReasonOf(shard_.Ack("q", wrong)), ErrorReason::kReceiptInvalid);
  wrong = got.receipt;
  wrong.position.seq = 0;
  EXPECT_EQ(ReasonOf(shard_.Ack("q", wrong)), ErrorReason::kReceiptInvalid);
  wrong = got.receipt;
  wrong.position.shard = 7;
  EXPECT_EQ(ReasonOf(shard_.Ack("q", wrong)), ErrorReason::kReceiptInvalid);
  EXPECT_EQ(ReasonOf(shard_.Ack("nowhere", got.receipt)), ErrorReason::kQueueNotFound);
  EXPECT_TRUE(shard_.Ack("q", got.receipt).ok());
}

TEST_F(Settle, OneBadReceiptDoesNotFailItsNeighbours) {
  shard_.Publish("q", {"a", "b"});
  const auto got = shard_.Receive("q", 2);
  ASSERT_EQ(got.size(), 2u);
  Receipt wrong = got[0].receipt;
  wrong.delivery_count = 9;
  Reply<absl::StatusOr<SettleOutcome>> reply;
  shard_.Run(SettleCommand{
      "q", {{got[0].receipt}, {wrong}, {got[1].receipt}, {got[1].receipt}}, reply.Done()});
  ASSERT_TRUE((*reply).ok());
  EXPECT_EQ((**reply).settled, 4) << "the message of the bad receipt is settled anyway";
  EXPECT_EQ(shard_.Stats("q").ready + shard_.Stats("q").leased, 0);
}

TEST_F(Settle, AnExpiredLeaseCountsAnAttemptAndItsReceiptIsGoodUntilTheNextGrant) {
  shard_.Publish("q", {"a", "b"});
  const auto got = shard_.Receive("q", 2);
  Pass(kLeaseMsDefault - 1);
  EXPECT_EQ(shard_.Stats("q").leased, 2);
  Pass(1);
  EXPECT_EQ(shard_.Stats("q").leased, 0);
  EXPECT_EQ(shard_.GetQueue("q").counters.leases_expired, 2u);
  EXPECT_TRUE(shard_.Ack("q", got[0].receipt).ok()) << "not granted again yet";
  const auto again = Get();
  EXPECT_EQ(again.attempt, 2);
  EXPECT_EQ(again.receipt.delivery_count, 2u);
  EXPECT_EQ(ReasonOf(shard_.Ack("q", got[1].receipt)), ErrorReason::kLeaseExpired);
  EXPECT_EQ(ReasonOf(shard_.Settle("q", got[1].receipt, SettleAction::kRelease)),
            ErrorReason::kLeaseExpired);
  EXPECT_TRUE(shard_.Ack("q", again.receipt).ok());
}

TEST_F(Settle, RetryWaitsTwiceAsLongEachTimeWithinItsBounds) {
  QueueConfigChange config;
  config.name = "backoff";
  config.min_backoff_ms = 1000;
  config.max_backoff_ms = 5000;
  ASSERT_TRUE(shard_.CreateQueue(config).ok());
  shard_.Publish("backoff", {"a"});
  const auto sink = shard_.Subscribe("backoff");
  int32_t attempt = 1;
  for (const int64_t backoff_ms : {1000, 2000, 4000, 5000, 5000}) {
    const auto got = sink->Take();
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0].attempt, attempt++);
    ASSERT_TRUE(shard_.Settle("backoff", got[0].receipt, SettleAction::kRetry).ok());
    EXPECT_EQ(shard_.Stats("backoff").delayed, 1);
    Pass(backoff_ms - 1);
    EXPECT_EQ(sink->waiting(), 0u) << "early";
    Pass(1);
  }
  EXPECT_EQ(sink->waiting(), 1u);
}

TEST_F(Settle, RetryWithoutBackoffIsReadyAtOnce) {
  QueueConfigChange config;
  config.name = "eager";
  config.min_backoff_ms = 0;
  config.max_backoff_ms = 0;
  ASSERT_TRUE(shard_.CreateQueue(config).ok());
  shard_.Publish("eager", {"a"});
  const auto sink = shard_.Subscribe("eager");
  for (int32_t attempt = 1; attempt < 5; ++attempt) {
    const auto got = sink->Take();
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0].attempt, attempt);
    ASSERT_TRUE(shard_.Settle("eager", got[0].receipt, SettleAction::kRetry).ok());
  }
}

TEST_F(Settle, ARepeatedRetryIsNotASecondFailure) {
  shard_.Publish("q", {"a"});
  const auto got = Get();
  ASSERT_TRUE(shard_.Settle("q", got.receipt, SettleAction::kRetry).ok());
  ASSERT_TRUE(shard_.Settle("q", got.receipt, SettleAction::kRetry).ok());
  Pass(kMinBackoffMsDefault);
  EXPECT_EQ(Get().attempt, 2);
}

TEST_F(Settle, DelayIsExactAndCountsAndCanBeChangedOrAcked) {
  shard_.Publish("q", {"a"});
  auto got = Get();
  ASSERT_TRUE(shard_.Settle("q", got.receipt, SettleAction::kDelay, 10'000).ok());
  ASSERT_TRUE(shard_.Settle("q", got.receipt, SettleAction::kDelay, 20'000).ok());
  Pass(19'999);
  EXPECT_EQ(shard_.Stats("q").delayed, 1);
  EXPECT_EQ(shard_.Stats("q").ready, 0);
  Pass(1);
  EXPECT_EQ(shard_.Stats("q").ready, 1);
  got = Get();
  EXPECT_EQ(got.attempt, 2);
  ASSERT_TRUE(shard_.Settle("q", got.receipt, SettleAction::kDelay, 10'000).ok());
  EXPECT_TRUE(shard_.Ack("q", got.receipt).ok()) << "acked while it waits";
  Pass(10'000);
  EXPECT_EQ(shard_.Stats("q").ready + shard_.Stats("q").delayed, 0);
  EXPECT_EQ(shard_.Totals().open_messages, 0u);
}

TEST_F(Settle, ADelayWhileTheReturnIsBeingWrittenHolds) {
  shard_.Publish("q", {"a"});
  const auto got = Get();
  shard_.StartSettle("q", got.receipt, SettleAction::kRelease);
  shard_.StartSettle("q", got.receipt, SettleAction::kDelay, 5000);
  shard_.RunUntilQuiet();
  EXPECT_EQ(shard_.Stats("q").delayed, 1);
  EXPECT_TRUE(shard_.Receive("q").empty());
}

TEST_F(Settle, ReleaseIsNotAFailure) {
  shard_.Publish("q", {"a"});
  const auto got = Get();
  ASSERT_TRUE(shard_.Settle("q", got.receipt, SettleAction::kRelease).ok());
  const auto again = Get();
  EXPECT_EQ(again.attempt, 1);
  EXPECT_EQ(again.receipt.delivery_count, 2u);
  EXPECT_FALSE(again.maybe_redelivered);
}

TEST_F(Settle, DiscardRemovesForGood) {
  shard_.Publish("q", {"a"});
  const auto got = Get();
  ASSERT_TRUE(shard_.Settle("q", got.receipt, SettleAction::kDiscard).ok());
  EXPECT_EQ(shard_.GetQueue("q").counters.discarded, 1u);
  shard_.Crash();
  EXPECT_TRUE(shard_.Receive("q").empty());
}

TEST_F(Settle, AnAckLeavesNoRowsBehind) {
  shard_.Publish("q", {"a", "b", "c"});
  const auto sink = shard_.Subscribe("q");
  for (const auto& delivery : sink->Take()) {
    ASSERT_TRUE(shard_.Settle("q", delivery.receipt, SettleAction::kRelease).ok());
  }
  for (const auto& delivery : sink->Take()) ASSERT_TRUE(shard_.Ack("q", delivery.receipt).ok());
  for (const auto& [key, value] : shard_.store().rows()) {
    if (key.first != storage::Family::kMeta) continue;
    const auto type = storage::ParseMetaKey(key.second)->type;
    EXPECT_NE(type, storage::MetaType::kHistory);
    EXPECT_NE(type, storage::MetaType::kAcks);
  }
}

TEST_F(Settle, ExtendingMovesTheDeadlineAndKeepsTheReceipt) {
  shard_.Publish("q", {"a"});
  const auto got = Get();
  Pass(20'000);
  const auto extended = Extend(got.receipt, 60'000);
  ASSERT_TRUE(extended.ok());
  EXPECT_TRUE(extended->failures.empty());
  EXPECT_EQ(extended->lease_expires_at_ms, shard_.now().engine_ms + 60'000);
  Pass(59'999);
  EXPECT_EQ(shard_.Stats("q").leased, 1);
  Pass(1);
  EXPECT_EQ(shard_.Stats("q").leased, 0);
  const auto late = Extend(got.receipt, 60'000);
  ASSERT_EQ(late->failures.size(), 1u);
  EXPECT_EQ(ReasonOf(late->failures[0].status), ErrorReason::kLeaseExpired);
  EXPECT_TRUE(shard_.Ack("q", got.receipt).ok());
  EXPECT_EQ(Extend(got.receipt, 0)->failures.size(), 1u) << "settled";
}

TEST_F(Settle, ManyFailuresOfManyMessagesLeaveConsistentCounts) {
  shard_.Publish("q", std::vector<std::string>(100, "x"));
  const auto sink = shard_.Subscribe("q", 10);
  constexpr SettleAction kActions[] = {SettleAction::kAck, SettleAction::kRetry,
                                       SettleAction::kDelay, SettleAction::kDiscard,
                                       SettleAction::kRelease};
  for (int round = 0; round < 60; ++round) {
    int i = 0;
    for (const auto& delivery : sink->Take()) {
      const SettleAction action = kActions[(round + i++) % std::size(kActions)];
      ASSERT_TRUE(shard_.Settle("q", delivery.receipt, action, 100).ok());
    }
    Pass(500);
    const QueueStats stats = shard_.Stats("q");
    ASSERT_GE(stats.ready, 0);
    ASSERT_LE(stats.leased, 10);
  }
}

// The lane is never empty here, so nothing sets the sum right.
TEST(SettleAfterACrash, WhatLeavesByAnOldReceiptTakesItsOwnBytesAlong) {
  for (const SettleAction action :
       {SettleAction::kAck, SettleAction::kDiscard, SettleAction::kDeadLetter}) {
    ShardHarness shard;
    ASSERT_TRUE(shard.CreateQueue("dead").ok());
    QueueConfigChange config;
    config.name = "q";
    config.dead_letter_queue = "dead";
    ASSERT_TRUE(shard.CreateQueue(config).ok());
    shard.Publish("q", {std::string(100'000, 'x'), "small", "small"});
    const auto got = shard.Receive("q");
    shard.Crash();
    ASSERT_TRUE(shard.Settle("q", got.at(0).receipt, action).ok());
    EXPECT_EQ(shard.Stats("q").ready, 2);
    EXPECT_LT(shard.Stats("q").bytes, 1000);
  }
}

}  // namespace
}  // namespace sluice::broker
