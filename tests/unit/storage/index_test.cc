// The index family on disk: looked up, scanned, and rid of what nobody needs.
#include <optional>
#include <string>
#include <vector>

#include "rocksdb/compaction_filter.h"
#include "rocksdb/db.h"
#include "server/storage/index_filter.h"
#include "tests/unit/storage/rocks_fixture.h"

namespace sluice::storage {
namespace {

constexpr QueueId kOther = 2;
constexpr QueueId kUnborn = 9;
const std::string kAllBegin(1, '\0');
const std::string kAllEnd(1, '\xff');

Hash128 HashOf(uint8_t n) { return Hash128{n}; }

class IndexTest : public RocksFixture {
 protected:
  void SetUp() override {
    RocksFixture::SetUp();
    ASSERT_TRUE(Open().ok());
    Batch batch;
    PutQueue(&batch, kQid);
    PutQueue(&batch, kOther);
    ASSERT_TRUE(Commit(std::move(batch)).ok());
  }
  static MessagePosition At(Seq seq, QueueId qid = kQid, Lane lane = kLaneUsed) {
    return {0, qid, lane, seq};
  }
  // One row of every kind that names a message.
  static void PutRows(Batch* batch, const MessagePosition& at) {
    batch->Put(Family::kIndex, DueKey(at, 1000), EmptyIndexValue());
    batch->Put(Family::kIndex, ExpiryKey(at, 1000), EmptyIndexValue());
    batch->Put(Family::kIndex, GroupKey(at, 7), EmptyIndexValue());
    batch->Put(Family::kIndex, IdKey(0, at.qid, {0, 99, 0, at.seq}),
               EncodeId({.lane = at.lane, .seq = at.seq}));
  }
  static void PutDedup(Batch* batch, QueueId qid, uint8_t n, int64_t expire_ms) {
    batch->Put(Family::kIndex, DedupKey(0, qid, HashOf(n)),
               EncodeDedup({.id = {0, qid, 5, n}, .expire_ms = expire_ms}));
  }
  static void PutDelayedLane(Batch* batch, Seq head, Seq next_seq) {
    batch->Put(Family::kMeta, LaneKey(0, kQid, kDelayedLane),
               EncodeLane({.head = head, .next_seq = next_seq}));
  }
  void FlushIndex() {
    ASSERT_TRUE(store_->db()->Flush(rocksdb::FlushOptions(), store_->index()).ok());
  }
  void CompactIndex() {
    rocksdb::CompactRangeOptions options;
    options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForce;
    ASSERT_TRUE(store_->db()->CompactRange(options, store_->index(), nullptr, nullptr).ok());
  }
  std::vector<std::string> Keys() {
    std::vector<std::string> keys;
    const auto rows = store_->ScanIndex(kAllBegin, kAllEnd, 1'000'000);
    EXPECT_TRUE(rows.ok()) << rows.status();
    for (const IndexRow& row : *rows) keys.push_back(row.key);
    return keys;
  }
  // Rows that PutRows has written for this message and that are still there.
  size_t RowsOf(const MessagePosition& at) {
    size_t rows = 0;
    for (const std::string& key : Keys()) {
      const auto parsed = ParseIndexKey(key);
      EXPECT_TRUE(parsed.ok());
      rows += parsed->type == IndexType::kId
                  ? parsed->position.qid == at.qid && parsed->id.seq == at.seq
                  : parsed->position == at;
    }
    return rows;
  }
  bool HasDedup(uint8_t n, QueueId qid = kQid) {
    const auto found = store_->GetIndex({DedupKey(0, qid, HashOf(n))});
    EXPECT_TRUE(found.ok());
    return found->front().has_value();
  }
};

TEST_F(IndexTest, RowsAreScannedWithinTheirBoundsAndSurviveARestart) {
  Batch batch;
  for (Seq seq = 1; seq <= 5; ++seq) {
    batch.Put(Family::kIndex, DueKey(At(seq), static_cast<int64_t>(seq) * 10), EmptyIndexValue());
  }
  batch.Put(Family::kIndex, DueKey(At(1, kOther), 1), EmptyIndexValue());
  ASSERT_TRUE(Commit(std::move(batch)).ok());
  for (const bool flushed : {false, true}) {
    const auto rows = store_->ScanIndex(DueKey(At(0), 20), DueKey(At(0), 50), 10);
    ASSERT_TRUE(rows.ok());
    ASSERT_EQ(rows->size(), 3u);
    EXPECT_EQ(rows->front().key, DueKey(At(2), 20));
    EXPECT_EQ(rows->front().value, EmptyIndexValue());
    EXPECT_EQ(store_->ScanIndex(DueKey(At(0), 20), DueKey(At(0), 50), 2)->size(), 2u);
    EXPECT_TRUE(store_->ScanIndex(DueKey(At(0), 20), DueKey(At(0), 50), 0)->empty());
    EXPECT_TRUE(store_->ScanIndex(DueKey(At(0), 50), DueKey(At(0), 20), 9)->empty());
    EXPECT_EQ(store_->ScanIndex(DueKey(At(0), 0), DueKey(At(0, kOther), 0), 99)->size(), 5u)
        << "not into the neighbour queue";
    if (flushed) break;
    FlushIndex();
    Crash();
    ASSERT_TRUE(Open().ok());
  }
}

TEST_F(IndexTest, LookupsAnswerInTheOrderOfTheirKeys) {
  constexpr int kRows = 300;  // more than one lookup takes at once
  Batch batch;
  for (int i = 0; i < kRows; i += 2) {
    batch.Put(Family::kIndex, IdKey(0, kQid, At(i)), EncodeId({.lane = 1, .seq = Seq(i)}));
  }
  ASSERT_TRUE(Commit(std::move(batch)).ok());
  FlushIndex();
  std::vector<std::string> keys;
  for (int i = kRows - 1; i >= 0; --i) keys.push_back(IdKey(0, kQid, At(i)));
  const auto found = store_->GetIndex(keys);
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_EQ(found->size(), keys.size());
  for (int i = 0; i < kRows; ++i) {
    const auto& value = (*found)[kRows - 1 - i];
    ASSERT_EQ(value.has_value(), i % 2 == 0) << i;
    EXPECT_EQ(value.value_or(""), value ? EncodeId({.lane = 1, .seq = Seq(i)}) : "");
  }
  EXPECT_TRUE(store_->GetIndex({})->empty());
}

TEST_F(IndexTest, DeletedRowsAreGone) {
  Batch batch;
  PutDedup(&batch, kQid, 1, 100);
  ASSERT_TRUE(Commit(std::move(batch)).ok());
  EXPECT_TRUE(HasDedup(1));
  Batch gone;
  gone.Delete(Family::kIndex, DedupKey(0, kQid, HashOf(1)));
  ASSERT_TRUE(Commit(std::move(gone)).ok());
  EXPECT_FALSE(HasDedup(1));
}

TEST_F(IndexTest, ManyMessagesAreReadByTheirSeqs) {
  Batch batch;
  std::vector<Seq> seqs;
  for (Seq seq = 1; seq <= 300; ++seq) {
    if (seq % 3 != 0) PutMessage(&batch, kQid, seq, "body " + std::to_string(seq));
    seqs.push_back(seq);
  }
  PutLane(&batch, kQid, 1, 301);
  ASSERT_TRUE(Commit(std::move(batch)).ok());
  const auto messages = ReadAt(kQid, kLaneUsed, seqs);
  ASSERT_TRUE(messages.ok());
  ASSERT_EQ(messages->size(), 200u);
  Seq last = 0;
  for (const StoredMessage& message : *messages) {
    EXPECT_GT(message.seq, last);
    last = message.seq;
    EXPECT_EQ(message.payload.view(), "body " + std::to_string(message.seq));
  }
  EXPECT_TRUE(ReadAt(kQid, kLaneUsed, {})->empty());
}

TEST_F(IndexTest, CompactionsDropRowsOfSettledMessagesOnly) {
  Batch batch;
  for (Seq seq = 1; seq <= 3; ++seq) {
    PutRows(&batch, At(seq));
    PutRows(&batch, At(seq + 10, kQid, kDelayedLane));
  }
  PutLane(&batch, kQid, 1, 4);
  PutDelayedLane(&batch, 1, 14);
  ASSERT_TRUE(Commit(std::move(batch)).ok());
  FlushIndex();
  EXPECT_EQ(Keys().size(), 24u);
  Batch settled;
  PutLane(&settled, kQid, 2, 4);
  AcksRow acks;
  acks.bits[0] = 1ull << 3;
  settled.Put(Family::kMeta, AcksKey(0, kQid, kLaneUsed, 0), EncodeAcks(acks));
  PutDelayedLane(&settled, 13, 14);
  ASSERT_TRUE(Commit(std::move(settled)).ok());
  EXPECT_EQ(Keys().size(), 24u) << "rows may outlive their messages";
  CompactIndex();
  EXPECT_EQ(RowsOf(At(1)), 0u);
  EXPECT_EQ(RowsOf(At(2)), 4u);
  EXPECT_EQ(RowsOf(At(3)), 0u);
  EXPECT_EQ(RowsOf(At(12, kQid, kDelayedLane)), 0u);
  EXPECT_EQ(RowsOf(At(13, kQid, kDelayedLane)), 4u);
}

TEST_F(IndexTest, ARowOfAMovedMessageGoesByWhereItIsNow) {
  Batch batch;
  batch.Put(Family::kIndex, IdKey(0, kQid, At(1)), EncodeId({.lane = kLaneUsed, .seq = 2}));
  PutLane(&batch, kQid, 2, 3);
  ASSERT_TRUE(Commit(std::move(batch)).ok());
  CompactIndex();
  EXPECT_EQ(Keys().size(), 1u) << "the id's own place is settled, not this one";
  Batch settled;
  PutLane(&settled, kQid, 3, 3);
  ASSERT_TRUE(Commit(std::move(settled)).ok());
  CompactIndex();
  EXPECT_TRUE(Keys().empty());
}

TEST_F(IndexTest, WhatIsSettledBeforeTheFlushNeverReachesAFile) {
  Batch batch;
  PutRows(&batch, At(1));
  PutRows(&batch, At(2));
  PutLane(&batch, kQid, 2, 3);
  ASSERT_TRUE(Commit(std::move(batch)).ok());
  FlushIndex();
  EXPECT_EQ(RowsOf(At(1)), 0u);
  EXPECT_EQ(RowsOf(At(2)), 4u);
}

TEST_F(IndexTest, RowsOfADeletedQueueGoAndThoseOfAnUnknownOneStay) {
  Batch batch;
  for (const QueueId qid : {kQid, kOther, kUnborn}) {
    PutRows(&batch, At(1, qid));
    PutDedup(&batch, qid, 1, 1000);
    PutLane(&batch, qid, 1, 2);
  }
  batch.Delete(Family::kMeta, QueueKey(0, kQid));
  ASSERT_TRUE(Commit(std::move(batch)).ok());
  CompactIndex();
  EXPECT_EQ(RowsOf(At(1)), 0u);
  EXPECT_FALSE(HasDedup(1));
  for (const QueueId qid : {kOther, kUnborn}) {
    EXPECT_EQ(RowsOf(At(1, qid)), 4u) << qid;
    EXPECT_TRUE(HasDedup(1, qid)) << qid;
  }
}

TEST_F(IndexTest, DedupRowsGoWhenTheTimeOfTheLogHasPassedThem) {
  Batch batch;
  PutDedup(&batch, kQid, 1, 999);
  PutDedup(&batch, kQid, 2, 1000);
  PutDedup(&batch, kQid, 3, 1001);
  ASSERT_TRUE(Commit(std::move(batch)).ok());
  CompactIndex();
  EXPECT_TRUE(HasDedup(1)) << "the log has not got there";
  log_time_ms_ = 1000;
  BootRow boot;
  boot.next_qid = 3;
  boot.engine_ms = log_time_ms_;
  Batch later;
  later.Put(Family::kMeta, BootKey(0), EncodeBoot(boot));
  ASSERT_TRUE(Commit(std::move(later)).ok());
  CompactIndex();
  EXPECT_FALSE(HasDedup(1));
  EXPECT_TRUE(HasDedup(2));
  EXPECT_TRUE(HasDedup(3));
  // A restart knows the time of the log from the boot row.
  Close();
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(store_->settled()->log_time_ms(), 1000);
}

TEST_F(IndexTest, AnOverwrittenDedupRowDoesNotComeBack) {
  Batch first;
  PutDedup(&first, kQid, 1, 5000);
  ASSERT_TRUE(Commit(std::move(first)).ok());
  CompactIndex();  // down to the last level
  Batch second;
  PutDedup(&second, kQid, 1, 100);
  ASSERT_TRUE(Commit(std::move(second)).ok());
  log_time_ms_ = 1000;
  Batch later;
  PutDedup(&later, kQid, 2, 9000);
  ASSERT_TRUE(Commit(std::move(later)).ok());
  FlushIndex();
  EXPECT_FALSE(HasDedup(1));
  EXPECT_TRUE(HasDedup(2));
}

TEST(IndexFilterTest, NothingGoesBeforeTheSettledIndexIsLoadedNorWhatCannotBeRead) {
  const auto settled = std::make_shared<SettledIndex>(0);
  ASSERT_TRUE(settled->LoadRow(QueueKey(0, kQid), EncodeQueue({})).ok());
  ASSERT_TRUE(settled->LoadRow(LaneKey(0, kQid, kLaneUsed),
                               EncodeLane({.head = 5, .next_seq = 9})).ok());
  BootRow boot;
  boot.engine_ms = 1000;
  boot.next_qid = 3;
  ASSERT_TRUE(settled->LoadRow(BootKey(0), EncodeBoot(boot)).ok());
  IndexFilterFactory factory(settled);
  const auto filter = factory.CreateCompactionFilter({});
  const auto keeps = [&](const std::string& key, std::string_view value) {
    std::string unused;
    std::string skip_until;
    return filter->FilterV2(0, key, rocksdb::CompactionFilter::ValueType::kValue,
                            rocksdb::Slice(value.data(), value.size()), &unused, &skip_until) ==
           rocksdb::CompactionFilter::Decision::kKeep;
  };
  const MessagePosition at{0, kQid, kLaneUsed, 1};
  const std::string id = EncodeId({.lane = kLaneUsed, .seq = 1});
  const std::string dedup = EncodeDedup({.id = at, .expire_ms = 1});
  EXPECT_TRUE(keeps(DueKey(at, 1), EmptyIndexValue()));
  EXPECT_TRUE(keeps(IdKey(0, kQid, at), id));
  EXPECT_TRUE(keeps(DedupKey(0, kQid, HashOf(1)), dedup));
  EXPECT_TRUE(keeps(DedupKey(0, kOther, HashOf(1)), dedup));
  settled->FinishLoad(1);
  EXPECT_FALSE(keeps(DueKey(at, 1), EmptyIndexValue()));
  EXPECT_FALSE(keeps(IdKey(0, kQid, at), id));
  EXPECT_FALSE(keeps(DedupKey(0, kQid, HashOf(1)), dedup));
  EXPECT_FALSE(keeps(DedupKey(0, kOther, HashOf(1)), dedup)) << "its queue was deleted";
  EXPECT_TRUE(keeps("?", ""));
  EXPECT_TRUE(keeps(IdKey(0, kQid, at), "garbled"));
  EXPECT_TRUE(keeps(DedupKey(0, kQid, HashOf(1)), "garbled"));
}

}  // namespace
}  // namespace sluice::storage
