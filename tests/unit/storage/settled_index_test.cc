#include "server/storage/settled_index.h"

#include "gtest/gtest.h"

namespace sluice::storage {
namespace {

constexpr Lane kOneLane = 5;

class SettledIndexTest : public ::testing::Test {
 protected:
  void Apply(Batch batch) { ASSERT_TRUE(index_.Apply(batch.record(), ++store_seq_).ok()); }
  static void Queue(Batch* batch, QueueId qid) {
    batch->Put(Family::kMeta, QueueKey(0, qid), EncodeQueue({}));
  }
  static void LaneIs(Batch* batch, QueueId qid, Seq head, Seq next_seq) {
    batch->Put(Family::kMeta, LaneKey(0, qid, kOneLane),
               EncodeLane({.head = head, .next_seq = next_seq}));
  }
  static void Acks(Batch* batch, QueueId qid, uint64_t block, const AcksRow& row) {
    batch->Put(Family::kMeta, AcksKey(0, qid, kOneLane, block), EncodeAcks(row));
  }

  SettledIndex index_{0};
  uint64_t store_seq_ = 0;
};

TEST_F(SettledIndexTest, NothingIsSettledBeforeLoadingHasEnded) {
  Batch batch;
  Queue(&batch, 1);
  LaneIs(&batch, 1, 100, 200);
  Apply(std::move(batch));
  SettledLane lane;
  EXPECT_EQ(index_.Copy(0, 1, kOneLane, &lane), SettledIndex::Verdict::kUnknown);
  EXPECT_EQ(index_.CountUnsettled({0, 1, kOneLane, 1}, {0, 1, kOneLane, 50}, 9), 9u);
  index_.FinishLoad(1);
  EXPECT_EQ(index_.Copy(0, 1, kOneLane, &lane), SettledIndex::Verdict::kLane);
  EXPECT_EQ(lane.NextUnsettled(1), 100u);
  EXPECT_EQ(index_.CountUnsettled({0, 1, kOneLane, 1}, {0, 1, kOneLane, 50}, 9), 0u);
}

TEST_F(SettledIndexTest, OneMessageIsJudgedWithoutACopy) {
  AcksRow acks;
  acks.bits[0] = 1ull << 30;
  Batch batch;
  Queue(&batch, 1);
  Queue(&batch, 3);
  LaneIs(&batch, 1, 10, 40);
  Acks(&batch, 1, 0, acks);
  Apply(std::move(batch));
  EXPECT_FALSE(index_.IsSettled({0, 1, kOneLane, 9})) << "not loaded";
  EXPECT_FALSE(index_.IsDead(0, 2));
  index_.FinishLoad(1);
  EXPECT_TRUE(index_.IsSettled({0, 1, kOneLane, 9}));
  EXPECT_FALSE(index_.IsSettled({0, 1, kOneLane, 10}));
  EXPECT_TRUE(index_.IsSettled({0, 1, kOneLane, 30}));
  EXPECT_FALSE(index_.IsSettled({0, 1, kOneLane, 31}));
  EXPECT_FALSE(index_.IsSettled({0, 1, kOneLane, 40})) << "does not exist yet";
  EXPECT_FALSE(index_.IsSettled({0, 1, kDelayedLane, 1})) << "a lane without a row";
  EXPECT_FALSE(index_.IsSettled({7, 1, kOneLane, 9})) << "another shard";
  EXPECT_TRUE(index_.IsSettled({0, 2, kOneLane, 9})) << "a queue that is gone";
  EXPECT_FALSE(index_.IsSettled({0, 4, kOneLane, 9})) << "a queue that is still to come";
  EXPECT_TRUE(index_.IsDead(0, 2));
  EXPECT_FALSE(index_.IsDead(0, 3));
  EXPECT_FALSE(index_.IsDead(0, 4));
}

TEST_F(SettledIndexTest, TheTimeOfTheLogNeverFalls) {
  index_.FinishLoad(0);
  for (const int64_t time_ms : {5, 9, 7}) {
    Batch batch;
    batch.SetHeader({.lsn = 1, .log_time_ms = time_ms});
    Apply(std::move(batch));
  }
  EXPECT_EQ(index_.log_time_ms(), 9);
  Batch foreign;
  foreign.SetHeader({.shard = 4, .lsn = 1, .log_time_ms = 100});
  Apply(std::move(foreign));
  EXPECT_EQ(index_.log_time_ms(), 9);
}

TEST_F(SettledIndexTest, DeletedIndexRowsAreNotTakenForMetaRows) {
  index_.FinishLoad(0);
  Batch batch;
  Queue(&batch, 1);
  // The same bytes in another family.
  batch.Delete(Family::kIndex, QueueKey(0, 1));
  Apply(std::move(batch));
  EXPECT_FALSE(index_.IsDead(0, 1));
}

TEST_F(SettledIndexTest, BlocksAndRunsAgreeWithAModel) {
  index_.FinishLoad(0);
  // Head 700; block 1 has a few bits, block 2 alternates, 3 to 5 are a run, 6 has its first word.
  AcksRow few;
  AcksRow alternating;
  AcksRow first_word;
  few.bits[3] = 0xf0;
  alternating.bits.fill(0x5555555555555555);
  first_word.bits[0] = ~uint64_t{0};
  Batch batch;
  Queue(&batch, 1);
  Acks(&batch, 1, 1, few);
  Acks(&batch, 1, 2, alternating);
  Acks(&batch, 1, 3, {.run = 3});
  Acks(&batch, 1, 6, first_word);
  LaneIs(&batch, 1, 700, 4000);
  Apply(std::move(batch));
  const auto settled = [](Seq seq) {
    const uint64_t block = seq / kSeqsPerBlock;
    const uint64_t bit = seq % kSeqsPerBlock;
    return seq < 700 || (block == 1 && bit >= 196 && bit < 200) || (block == 2 && bit % 2 == 0) ||
           (block >= 3 && block <= 5) || (block == 6 && bit < 64);
  };
  SettledLane lane;
  ASSERT_EQ(index_.Copy(0, 1, kOneLane, &lane), SettledIndex::Verdict::kLane);
  Seq expected = 4000;
  for (Seq seq = 3999; seq > 0; --seq) {
    if (!settled(seq)) expected = seq;
    ASSERT_EQ(lane.NextUnsettled(seq), expected) << seq;
  }
  for (Seq begin = 1; begin < 4200; begin += 37) {
    uint64_t unsettled = 0;
    for (Seq end = begin; end < 4200; ++end) {
      ASSERT_EQ(lane.CountUnsettled(begin, end), unsettled) << begin << " " << end;
      if (end < 4000 && !settled(end)) ++unsettled;
    }
  }
}

TEST_F(SettledIndexTest, ADeletedQueueIsDeadAndOneNotYetSeenIsNot) {
  index_.FinishLoad(0);
  Batch batch;
  Queue(&batch, 4);
  LaneIs(&batch, 4, 1, 10);
  Apply(std::move(batch));
  SettledLane lane;
  EXPECT_EQ(index_.Copy(0, 3, kOneLane, &lane), SettledIndex::Verdict::kDead);
  EXPECT_EQ(index_.Copy(0, 5, kOneLane, &lane), SettledIndex::Verdict::kUnknown);
  EXPECT_EQ(index_.CountUnsettled({0, 1, 0, 1}, {0, 9, 0, 1}, 100), 9u);
  Batch gone;
  gone.Delete(Family::kMeta, QueueKey(0, 4));
  Apply(std::move(gone));
  EXPECT_EQ(index_.Copy(0, 4, kOneLane, &lane), SettledIndex::Verdict::kDead);
  EXPECT_EQ(index_.CountUnsettled({0, 1, 0, 1}, {0, 9, 0, 1}, 100), 0u);
}

TEST_F(SettledIndexTest, WaitingEndsWhenABatchHasBeenApplied) {
  index_.FinishLoad(0);
  EXPECT_FALSE(index_.AwaitApplied(1, absl::ZeroDuration()));
  Batch batch;
  Queue(&batch, 1);
  Apply(std::move(batch));
  EXPECT_TRUE(index_.AwaitApplied(1, absl::ZeroDuration()));
}

}  // namespace
}  // namespace sluice::storage
