// The gauge speaks before the disk is full and before RocksDB slows down.
#include "server/storage/pressure.h"

#include <atomic>
#include <optional>

#include "absl/synchronization/notification.h"
#include "rocksdb/db.h"
#include "rocksdb/options.h"
#include "tests/unit/storage/rocks_fixture.h"

namespace sluice::storage {
namespace {

constexpr uint64_t kGiB = 1024 * kMiB;

class PressureTest : public RocksFixture {
 protected:
  void Start(std::optional<uint64_t> reserve = std::nullopt) {
    ASSERT_TRUE(Open().ok());
    PressureOptions options;
    options.dir = options_.dir;
    options.disk_reserve_bytes = reserve;
    // Tests look when they want to.
    options.period = absl::Hours(1);
    options.disk = [this] { return disk_; };
    gauge_ = std::make_unique<StorePressure>(store_.get(), options);
  }
  void TearDown() override {
    gauge_.reset();
    RocksFixture::TearDown();
  }
  Pressure With(std::optional<uint64_t> free_bytes) {
    disk_ = std::nullopt;
    if (free_bytes) disk_ = DiskSpace{100 * kGiB, *free_bytes};
    gauge_->Poll();
    return gauge_->Read();
  }

  std::optional<DiskSpace> disk_ = DiskSpace{100 * kGiB, 50 * kGiB};
  std::unique_ptr<StorePressure> gauge_;
};

TEST_F(PressureTest, PublishesAreRefusedBelowTheReserveAndTakenWellAboveIt) {
  Start(1600 * kMiB);
  EXPECT_EQ(gauge_->Read(), Pressure::kNone);
  EXPECT_EQ(With(1600 * kMiB), Pressure::kNone);
  EXPECT_EQ(With(1600 * kMiB - 1), Pressure::kRefuse);
  EXPECT_EQ(With(1800 * kMiB - 1), Pressure::kRefuse) << "it would flap";
  EXPECT_EQ(With(1800 * kMiB), Pressure::kNone);
}

TEST_F(PressureTest, AStartOnAFullDiskRefusesAtOnce) {
  disk_ = DiskSpace{100 * kGiB, 1};
  Start();
  EXPECT_EQ(gauge_->Read(), Pressure::kRefuse);
}

TEST_F(PressureTest, TheReserveIsNeverLessThanWhatMayStillHaveToBeWritten) {
  Start(/*reserve=*/16 * kMiB);
  EXPECT_EQ(store_->sizes().ReserveBytes(), kGiB);
  EXPECT_EQ(With(kGiB), Pressure::kNone);
  EXPECT_EQ(With(kGiB - 1), Pressure::kRefuse);
}

TEST_F(PressureTest, OnASmallDiskTheStoreNeedsAndReservesLess) {
  options_.disk_bytes = kGiB;
  Start();
  const uint64_t reserve = store_->sizes().ReserveBytes();
  EXPECT_LT(reserve, kGiB / 4);
  EXPECT_EQ(With(reserve), Pressure::kNone);
  EXPECT_EQ(With(reserve - 1), Pressure::kRefuse);
}

TEST_F(PressureTest, MemtablesBeyondTheirLimitAddToTheReserve) {
  options_.sizes.memtables_bytes_max = 1 * kMiB;
  options_.sizes.message_memtable_bytes = 64 * kMiB;
  Start();
  ASSERT_TRUE(store_->db()->PauseBackgroundWork().ok());
  const uint64_t reserve = store_->sizes().ReserveBytes();
  EXPECT_EQ(With(reserve), Pressure::kNone);
  for (Seq seq = 1; seq <= 20; ++seq) {
    Batch batch;
    PutMessage(&batch, kQid, seq, std::string(256 * kKiB, 'x'));
    ASSERT_TRUE(Commit(std::move(batch)).ok());
  }
  EXPECT_EQ(With(reserve + 2 * kMiB), Pressure::kRefuse);
  ASSERT_TRUE(store_->db()->ContinueBackgroundWork().ok());
}

TEST_F(PressureTest, FilesAreNotMergedWhileTheDiskIsFull) {
  Start();
  const auto merges = [this] {
    return !store_->db()->GetOptions(store_->messages()).disable_auto_compactions;
  };
  EXPECT_TRUE(merges());
  With(0);
  EXPECT_FALSE(merges());
  With(50 * kGiB);
  EXPECT_TRUE(merges());
}

TEST(StoreSizes, FitTheDiskAndNameTheSmallestOneThatWillDo) {
  const uint64_t full = StoreSizes().ReserveBytes();
  EXPECT_EQ(FitToDisk({}, 8 * kGiB, "d")->ReserveBytes(), full);
  EXPECT_LT(FitToDisk({}, 8 * kGiB - 1, "d")->ReserveBytes(), full);
  uint64_t last = 0;
  for (const uint64_t mib : {352, 512, 1024, 2048, 4096, 8192, 100'000}) {
    const auto sizes = FitToDisk({}, mib * kMiB, "d");
    ASSERT_TRUE(sizes.ok()) << mib << ": " << sizes.status();
    EXPECT_LE(sizes->ReserveBytes(), mib * kMiB / 2);
    EXPECT_GE(sizes->ReserveBytes(), last);
    last = sizes->ReserveBytes();
  }
  const absl::Status refused = FitToDisk({}, 200 * kMiB, "/data").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(refused.message().find("/data has 200 MiB in all; at least 288 MiB"),
            absl::string_view::npos)
      << refused;
  EXPECT_FALSE(FitToDisk({}, 288 * kMiB - 1, "d").ok());
  EXPECT_TRUE(FitToDisk({}, 288 * kMiB, "d").ok());
}

TEST_F(PressureTest, WhatIsNotKnownChangesNothing) {
  Start();
  EXPECT_EQ(With(std::nullopt), Pressure::kNone);
  EXPECT_EQ(With(0), Pressure::kRefuse);
  EXPECT_EQ(With(std::nullopt), Pressure::kRefuse);
}

TEST_F(PressureTest, TheRealFileSystemIsLookedAtByItself) {
  ASSERT_TRUE(Open().ok());
  PressureOptions options;
  options.dir = options_.dir;
  options.disk_reserve_bytes = ~uint64_t{0} / 2;  // no disk has that much
  options.period = absl::Milliseconds(1);
  gauge_ = std::make_unique<StorePressure>(store_.get(), options);
  EXPECT_EQ(gauge_->Read(), Pressure::kRefuse);
}

TEST_F(PressureTest, ItKeepsLooking) {
  ASSERT_TRUE(Open().ok());
  std::atomic<int> looks = 0;
  PressureOptions options;
  options.dir = options_.dir;
  options.period = absl::Milliseconds(1);
  absl::Notification third;
  options.disk = [&]() -> std::optional<DiskSpace> {
    if (++looks == 3) third.Notify();
    return std::nullopt;
  };
  gauge_ = std::make_unique<StorePressure>(store_.get(), options);
  EXPECT_TRUE(third.WaitForNotificationWithTimeout(absl::Seconds(30)));
  gauge_.reset();
}

TEST_F(PressureTest, PublishesAreThrottledBeforeRocksSlowsDownAndReleasedByAFlush) {
  options_.sizes.message_memtable_bytes = 1 * kMiB;
  Start();
  rocksdb::DB* db = store_->db();
  ASSERT_TRUE(db->PauseBackgroundWork().ok());
  const auto is_slow = [db] {
    uint64_t rate = 0;
    return db->GetIntProperty(rocksdb::DB::Properties::kActualDelayedWriteRate, &rate) && rate > 0;
  };
  const std::string body(16 * kKiB, 'x');
  Seq seq = 0;
  // More than the memtables hold before a write slows down.
  while (gauge_->Read() == Pressure::kNone && seq < 1000 && !is_slow()) {
    Batch batch;
    PutMessage(&batch, kQid, ++seq, body);
    ASSERT_TRUE(Commit(std::move(batch)).ok());
    gauge_->Poll();
  }
  EXPECT_EQ(gauge_->Read(), Pressure::kThrottle);
  EXPECT_FALSE(is_slow());
  EXPECT_GT(seq * body.size(), 1 * kMiB) << "one full memtable is everyday";
  EXPECT_EQ(With(0), Pressure::kRefuse) << "a full disk is the stronger reason";

  ASSERT_TRUE(db->ContinueBackgroundWork().ok());
  ASSERT_TRUE(db->Flush(rocksdb::FlushOptions(), store_->messages()).ok());
  EXPECT_EQ(With(50 * kGiB), Pressure::kNone);
}

}  // namespace
}  // namespace sluice::storage
