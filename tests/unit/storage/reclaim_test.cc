#include <random>

#include "tests/unit/storage/rocks_fixture.h"

namespace sluice::storage {
namespace {

constexpr Seq kMessages = 40'000;
constexpr Seq kPerBatch = 500;
constexpr size_t kBodyBytes = 1000;
constexpr size_t kBodyPoolBytes = 1 << 20;
constexpr Seq kStragglerEvery = 1000;
// A fifth of what was published; the WAL and the small files of RocksDB are in it.
constexpr uint64_t kLittle = 8 * kMiB;

// Small memtables, so that messages reach files of several levels quickly.
class ReclaimTest : public RocksFixture {
 protected:
  void SetUp() override {
    RocksFixture::SetUp();
    options_.sizes.message_memtable_bytes = 2 * kMiB;
    options_.sizes.memtables_bytes_max = 8 * kMiB;
    options_.sizes.wal_bytes_max = 8 * kMiB;
    std::mt19937_64 random(1);
    pool_.resize(kBodyPoolBytes);
    for (char& byte : pool_) byte = static_cast<char>(random());
  }

  // Does not compress: a body comes again only behind more bytes than a block has.
  std::string_view Body(Seq seq) const {
    return std::string_view(pool_).substr(seq * kBodyBytes % (kBodyPoolBytes - kBodyBytes),
                                          kBodyBytes);
  }

  void Publish(QueueId qid) {
    Batch queue;
    PutQueue(&queue, qid);
    Append(std::move(queue));
    for (Seq seq = 1; seq <= kMessages; seq += kPerBatch) {
      Batch batch;
      for (Seq i = seq; i < seq + kPerBatch; ++i) PutMessage(&batch, qid, i, Body(i));
      PutLane(&batch, qid, 1, seq + kPerBatch);
      Append(std::move(batch));
      AwaitAnswers();
    }
  }

  // Settles all but one in a thousand: the head stays at the first of them.
  std::vector<Seq> SettleAllButStragglers(QueueId qid) {
    std::vector<Seq> stragglers;
    Batch batch;
    for (uint64_t block = 0; block * kSeqsPerBlock <= kMessages; ++block) {
      AcksRow row;
      for (uint64_t bit = 0; bit < kSeqsPerBlock; ++bit) {
        const Seq seq = block * kSeqsPerBlock + bit;
        if (seq == 0 || seq > kMessages) continue;
        if (seq % kStragglerEvery == 0) {
          stragglers.push_back(seq);
        } else {
          row.bits[bit / 64] |= uint64_t{1} << (bit % 64);
        }
      }
      batch.Put(Family::kMeta, AcksKey(0, qid, kLaneUsed, block), EncodeAcks(row));
    }
    PutLane(&batch, qid, kStragglerEvery, kMessages + 1);
    EXPECT_TRUE(Commit(std::move(batch)).ok());
    return stragglers;
  }

  std::string pool_;
};

TEST_F(ReclaimTest, ADrainedQueueGivesItsSpaceBack) {
  ASSERT_TRUE(Open().ok());
  Publish(kQid);
  EXPECT_GT(store_->Stats().disk_bytes, kMessages * kBodyBytes * 3 / 4);
  Batch batch;
  PutLane(&batch, kQid, kMessages + 1, kMessages + 1);
  ASSERT_TRUE(Commit(std::move(batch)).ok());
  ASSERT_TRUE(store_->ReclaimNow().ok());
  Close();
  ASSERT_TRUE(Open().ok());
  EXPECT_TRUE(Stored().empty());
  EXPECT_LT(store_->Stats().disk_bytes, kLittle);
}

TEST_F(ReclaimTest, StragglersStayWhileTheirNeighboursGo) {
  ASSERT_TRUE(Open().ok());
  Publish(kQid);
  const std::vector<Seq> stragglers = SettleAllButStragglers(kQid);
  ASSERT_TRUE(store_->ReclaimNow().ok());
  EXPECT_EQ(Stored(), stragglers);
  EXPECT_EQ(ReadAt(kQid, kLaneUsed, stragglers)->size(), stragglers.size());
  Crash();
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(store_->ReclaimNow().ok());
  EXPECT_EQ(ReadAt(kQid, kLaneUsed, stragglers)->size(), stragglers.size());
  Close();
  ASSERT_TRUE(Open().ok());
  EXPECT_LT(store_->Stats().disk_bytes, kLittle);
}

TEST_F(ReclaimTest, ADeletedQueueGoesAndItsNeighboursStay) {
  ASSERT_TRUE(Open().ok());
  Publish(1);
  Publish(2);
  Publish(3);
  Batch gone;
  gone.Delete(Family::kMeta, QueueKey(0, 2));
  ASSERT_TRUE(Commit(std::move(gone)).ok());
  ASSERT_TRUE(store_->ReclaimNow().ok());
  EXPECT_EQ(Stored(1).size(), kMessages);
  EXPECT_EQ(Stored(3).size(), kMessages);
  // Its first and last may share a file with a neighbour.
  EXPECT_TRUE(ReadAt(2, kLaneUsed, {kMessages / 2})->empty());
  EXPECT_LT(store_->Stats().disk_bytes, 5 * kMessages * kBodyBytes / 2);
}

TEST_F(ReclaimTest, TheBackgroundThreadNeedsNoAsking) {
  options_.reclaim_period = absl::Milliseconds(5);
  ASSERT_TRUE(Open().ok());
  Publish(kQid);
  Batch batch;
  PutLane(&batch, kQid, kMessages + 1, kMessages + 1);
  ASSERT_TRUE(Commit(std::move(batch)).ok());
  while (!ReadAt(kQid, kLaneUsed, {1})->empty()) {
  }
}

}  // namespace
}  // namespace sluice::storage
