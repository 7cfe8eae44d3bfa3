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
  Start(800 * kMiB);
  EXPECT_EQ(gauge_->Read(), Pressure::kNone);
  EXPECT_EQ(With(800 * kMiB), Pressure::kNone);
  EXPECT_EQ(With(800 * kMiB - 1), Pressure::kRefuse);
  EXPECT_EQ(With(900 * kMiB - 1), Pressure::kRefuse) << "it would flap";
  EXPECT_EQ(With(900 * kMiB), Pressure::kNone);
}

TEST_F(PressureTest, AStartOnAFullDiskRefusesAtOnce) {
  disk_ = DiskSpace{100 * kGiB, 1};
  Start();
  EXPECT_EQ(gauge_->Read(), Pressure::kRefuse);
}

TEST_F(PressureTest, TheDefaultReserveIsAShareOfASmallDiskAndBoundedOnALargeOne) {
  Start();
  EXPECT_EQ(With(kGiB), Pressure::kNone);
  EXPECT_EQ(With(kGiB - 1), Pressure::kRefuse);
  disk_ = DiskSpace{2000 * kMiB, 500 * kMiB};
  gauge_->Poll();
  EXPECT_EQ(gauge_->Read(), Pressure::kNone);
  disk_->free_bytes = 100 * kMiB - 1;
  gauge_->Poll();
  EXPECT_EQ(gauge_->Read(), Pressure::kRefuse);
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
  options_.message_memtable_bytes = 1 * kMiB;
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
