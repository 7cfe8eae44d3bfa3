#include "server/storage/rocks_store.h"

#include <algorithm>
#include <fstream>
#include <random>

#include "rocksdb/db.h"
#include "server/storage/fail_stop_files.h"
#include "tests/support/fault_env.h"
#include "tests/unit/storage/rocks_fixture.h"

namespace sluice::storage {
namespace {

class RocksStoreTest : public RocksFixture {
 protected:
  Batch Message(Seq seq, std::string_view body = "body") {
    Batch batch;
    PutMessage(&batch, kQid, seq, body);
    PutLane(&batch, kQid, 1, seq + 1);
    return batch;
  }
  absl::Status MakeQueue(QueueId qid = kQid) {
    Batch batch;
    PutQueue(&batch, qid);
    return Commit(std::move(batch));
  }
};

TEST_F(RocksStoreTest, AnsweredBatchesSurviveACrash) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(MakeQueue().ok());
  for (Seq seq = 1; seq <= 50; ++seq) Append(Message(seq));
  AwaitAnswers();
  Crash();
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(Stored().size(), 50u);
  EXPECT_EQ(ReadAt(kQid, kLaneUsed, {7, 99})->size(), 1u);
  ASSERT_TRUE(Commit(Message(51)).ok());
  Close();
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(Stored().size(), 51u);
}

TEST_F(RocksStoreTest, AnswersComeInLsnOrder) {
  ASSERT_TRUE(Open().ok());
  for (Seq seq = 1; seq <= 1000; ++seq) Append(Message(seq));
  AwaitAnswers();
  ASSERT_EQ(answers_.size(), 1000u);
  for (size_t i = 0; i < answers_.size(); ++i) EXPECT_EQ(answers_[i].first, i + 1);
}

TEST_F(RocksStoreTest, MetaRowsAreDeletedAloneAndByRange) {
  ASSERT_TRUE(Open().ok());
  Batch batch;
  PutQueue(&batch, 1);
  PutQueue(&batch, 2);
  PutLane(&batch, 1, 1, 1);
  PutLane(&batch, 2, 1, 1);
  ASSERT_TRUE(Commit(std::move(batch)).ok());
  Batch gone;
  gone.Delete(Family::kMeta, QueueKey(0, 1));
  const KeyRange lanes = MetaRangeOfQueue(0, MetaType::kLane, 1);
  gone.DeleteMetaRange(lanes.begin, lanes.end);
  ASSERT_TRUE(Commit(std::move(gone)).ok());
  std::vector<QueueId> left;
  ASSERT_TRUE(store_->ScanMeta([&](std::string_view key, std::string_view) {
    left.push_back(ParseMetaKey(key)->qid);
    return absl::OkStatus();
  }).ok());
  EXPECT_EQ(left, (std::vector<QueueId>{2, 2}));
}

// RocksDB keeps hints where to insert by the prefix of a key, and mixes up those of rows and ranges.
TEST_F(RocksStoreTest, RowsOfALaneAreDeletedByRangeBesideOthersThatAreWritten) {
  ASSERT_TRUE(Open().ok());
  const auto key = [](Seq seq) { return HistoryKey({0, kQid, kLaneUsed, seq}); };
  constexpr Seq kRows = 20;
  for (Seq round = 0; round < 5; ++round) {
    Batch batch;
    PutQueue(&batch, kQid);
    PutLane(&batch, kQid, 1, kRows);
    for (Seq seq = 1; seq <= kRows; ++seq) batch.Put(Family::kMeta, key(seq), EncodeHistory({}));
    ASSERT_TRUE(Commit(std::move(batch)).ok());
    Batch gone;
    gone.DeleteMetaRange(key(3 + round), key(9));
    gone.DeleteMetaRange(key(10), key(kRows));
    gone.Put(Family::kMeta, key(12), EncodeHistory({}));
    ASSERT_TRUE(Commit(std::move(gone)).ok());
    if (round != 3) continue;
    Crash();
    ASSERT_TRUE(Open().ok());
  }
  std::vector<Seq> left;
  ASSERT_TRUE(store_->ScanMeta([&](std::string_view bytes, std::string_view) {
    const auto parsed = ParseMetaKey(bytes);
    if (parsed->type == MetaType::kHistory) left.push_back(parsed->number);
    return absl::OkStatus();
  }).ok());
  EXPECT_EQ(left, (std::vector<Seq>{1, 2, 3, 4, 5, 6, 9, 12, kRows}));
}

TEST_F(RocksStoreTest, ReadsStayInTheirLane) {
  ASSERT_TRUE(Open().ok());
  Batch batch;
  for (QueueId qid = 1; qid <= 3; ++qid) {
    PutQueue(&batch, qid);
    PutMessage(&batch, qid, 1, "x");
    PutLane(&batch, qid, 1, 2);
  }
  ASSERT_TRUE(Commit(std::move(batch)).ok());
  EXPECT_EQ(Stored(2), std::vector<Seq>{1});
  EXPECT_TRUE(store_->ReadMessages({2, kLaneUsed, 5, 5, 10, 10})->empty());
}

TEST_F(RocksStoreTest, ASecondServerIsToldThatTheDirectoryIsInUse) {
  ASSERT_TRUE(Open().ok());
  const auto second = RocksStore::Open(options_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(second.status().message().find("another sluiced is using"), absl::string_view::npos);
}

TEST_F(RocksStoreTest, ADirectoryThatCannotBeWrittenIsNotCalledInUse) {
  // A lock file that cannot be opened for writing, also not by root.
  std::filesystem::create_directories(options_.dir + "/LOCK");
  const absl::Status refused = Open();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(refused.message().find("another sluiced"), absl::string_view::npos) << refused;
  EXPECT_NE(refused.message().find("cannot be written to"), absl::string_view::npos) << refused;
}

TEST_F(RocksStoreTest, ADiskThatIsTooSmallIsRefusedBeforeAnythingIsWritten) {
  options_.disk_bytes = 100 * kMiB;
  EXPECT_EQ(Open().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(std::filesystem::is_empty(options_.dir));
}

TEST_F(RocksStoreTest, ADamagedBlockIsDataLossAndNamesTheFile) {
  ASSERT_TRUE(Open().ok());
  std::string body(10'000, '\0');  // does not compress
  std::mt19937 random(1);
  for (char& c : body) c = static_cast<char>(random());
  ASSERT_TRUE(Commit(Message(1, body)).ok());
  Close();
  ASSERT_TRUE(Open().ok());  // the log has become files
  Close();
  std::string damaged;
  for (const auto& entry : std::filesystem::directory_iterator(options_.dir)) {
    if (entry.path().extension() != ".sst" || entry.file_size() < body.size()) continue;
    damaged = entry.path().filename();
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(200);
    file.write("garbage!", 8);
  }
  ASSERT_FALSE(damaged.empty());
  ASSERT_TRUE(Open().ok());
  const absl::Status status =
      store_->ReadMessages({kQid, kLaneUsed, 0, ~Seq{0}, 1'000'000, ~0ull}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_NE(status.message().find(damaged), absl::string_view::npos) << status;
  EXPECT_NE(status.message().find("backup"), absl::string_view::npos) << status;
}

TEST_F(RocksStoreTest, AStoreOfALaterFormatIsRefused) {
  ASSERT_TRUE(Open().ok());
  BootRow row;
  row.format_version = kStoreFormatVersion + 1;
  Batch batch;
  batch.Put(Family::kMeta, BootKey(0), EncodeBoot(row));
  EXPECT_FALSE(Commit(std::move(batch)).ok());
  Close();
  EXPECT_EQ(Open().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(RocksStoreTest, AppendsAfterAStopFail) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Commit(Message(1)).ok());
  log_->Stop();
  EXPECT_EQ(Commit(Message(2)).code(), absl::StatusCode::kUnavailable);
}

class FaultTest : public RocksStoreTest {
 protected:
  void SetUp() override {
    RocksStoreTest::SetUp();
    file_system_ = std::make_shared<testing::FaultFileSystem>();
    env_ = rocksdb::NewCompositeEnv(file_system_);
    options_.env = env_.get();
    log_options_.idle_marker_after = absl::Hours(1);  // its syncs would be counted too
  }
  void TearDown() override {
    Close();
    RocksStoreTest::TearDown();
  }

  // Every OK comes before every failure, and what was answered OK is there after a restart.
  void ExpectNothingClaimedThatIsNotThere() {
    size_t durable = 0;
    for (const auto& [lsn, status] : answers_) {
      if (status.ok()) {
        EXPECT_EQ(durable, lsn - 1);
        durable = lsn;
      } else {
        EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
      }
    }
    EXPECT_LT(durable, answers_.size());
    Crash();
    options_.env = nullptr;
    ASSERT_TRUE(Open().ok());
    EXPECT_GE(Stored().size(), durable);
  }

  std::shared_ptr<testing::FaultFileSystem> file_system_;
  std::unique_ptr<rocksdb::Env> env_;
};

TEST_F(FaultTest, AFailedWriteFailsEveryLaterBatch) {
  for (const int64_t nth : {1, 2, 7}) {
    SCOPED_TRACE(nth);
    Close();
    options_.dir = root_ + "/w" + std::to_string(nth);
    options_.env = env_.get();
    lsn_ = 0;
    answers_.clear();
    ASSERT_TRUE(Open().ok());
    file_system_->FailAppend(nth);
    for (Seq seq = 1; seq <= 20; ++seq) {
      Append(Message(seq));
      AwaitAnswers();
    }
    EXPECT_EQ(answers_.size(), 20u);
    ExpectNothingClaimedThatIsNotThere();
  }
}

TEST_F(FaultTest, AFailedSyncFailsEveryLaterBatchAndIsNotRetried) {
  for (const int64_t nth : {1, 2, 7}) {
    SCOPED_TRACE(nth);
    Close();
    options_.dir = root_ + "/s" + std::to_string(nth);
    options_.env = env_.get();
    lsn_ = 0;
    answers_.clear();
    ASSERT_TRUE(Open().ok());
    file_system_->FailSync(nth);
    for (Seq seq = 1; seq <= 20; ++seq) {
      Append(Message(seq));
      AwaitAnswers();
    }
    EXPECT_EQ(answers_.size(), 20u);
    // One sync per batch, as each waits for its answer: the one whose sync failed is not OK.
    const auto ok = std::count_if(answers_.begin(), answers_.end(),
                                  [](const auto& answer) { return answer.second.ok(); });
    EXPECT_EQ(ok, nth - 1);
    ExpectNothingClaimedThatIsNotThere();
  }
}

// RocksDB's own writer aborts when it is synced after a write that failed.
TEST_F(FaultTest, ASyncThatMeetsAFailedWriteIsAnOrderlyEnd) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Commit(Message(1)).ok());
  file_system_->FailAppend(1);
  EXPECT_EQ(Commit(Message(2)).code(), absl::StatusCode::kUnavailable);
  store_->db()->SyncWAL().PermitUncheckedError();
  EXPECT_EQ(store_->Failure().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(file_system_->appends_after_failure(), 0);
  EXPECT_EQ(file_system_->syncs_after_failure(), 0);
  // Nor may what was not logged get into files.
  store_->db()->Flush(rocksdb::FlushOptions(), store_->messages()).PermitUncheckedError();
  ExpectNothingClaimedThatIsNotThere();
  EXPECT_EQ(Stored(), std::vector<Seq>{1});
}

TEST_F(FaultTest, WhicheverOfWriteAndSyncFailsFirstTheEndIsOrderly) {
  for (int round = 1; round <= 16; ++round) {
    SCOPED_TRACE(round);
    Close();
    file_system_ = std::make_shared<testing::FaultFileSystem>();
    env_ = rocksdb::NewCompositeEnv(file_system_);
    options_.dir = root_ + "/r" + std::to_string(round);
    options_.env = env_.get();
    lsn_ = 0;
    answers_.clear();
    ASSERT_TRUE(Open().ok());
    // Appends are under way all the time, so that writes and syncs overlap.
    file_system_->FailAppend(round % 2 == 0 ? round * 7 : 0);
    file_system_->FailSync(round % 2 == 1 ? 1 + round / 4 : 0);
    for (Seq seq = 1; seq <= 200; ++seq) {
      Append(Message(seq));
      if (seq % 20 == 0) AwaitAnswers();
    }
    AwaitAnswers();
    EXPECT_EQ(answers_.size(), 200u);
    // A failed sync is not asked for again; beside a failed write one may have been on its way.
    EXPECT_LE(file_system_->syncs_after_failure(), round % 2 == 0 ? 1 : 0);
    ExpectNothingClaimedThatIsNotThere();
  }
}

TEST_F(FaultTest, AfterAFailureTheLogTouchesTheDiskNoMore) {
  ASSERT_TRUE(Open().ok());
  file_system_->FailSync(1);
  EXPECT_FALSE(Commit(Message(1)).ok());
  const int64_t appends = file_system_->appends_after_failure();
  for (Seq seq = 2; seq <= 10; ++seq) EXPECT_FALSE(Commit(Message(seq)).ok());
  log_->Stop();
  EXPECT_EQ(file_system_->appends_after_failure(), appends);
  EXPECT_EQ(file_system_->syncs_after_failure(), 0);
}

}  // namespace
}  // namespace sluice::storage
