#include "server/storage/wal_scan.h"

#include <fstream>
#include <map>

#include "server/storage/crc32c.h"
#include "tests/unit/storage/rocks_fixture.h"

namespace sluice::storage {
namespace {

// A record of about this size, so that offsets in the file can be aimed at.
constexpr size_t kBodyBytes = 1000;

class WalScanTest : public RocksFixture {
 protected:
  void WriteMessages(Seq from, Seq to) {
    for (Seq seq = from; seq < to; ++seq) {
      Batch batch;
      PutMessage(&batch, kQid, seq, std::string(kBodyBytes, 'x'));
      PutLane(&batch, kQid, 1, seq + 1);
      ASSERT_TRUE(Commit(std::move(batch)).ok());
    }
  }
  std::string Wal() {
    std::map<std::string, std::string> logs;
    for (const auto& entry : std::filesystem::directory_iterator(options_.dir)) {
      if (entry.path().extension() == ".log" && entry.file_size() > 0) {
        logs[entry.path().filename()] = entry.path();
      }
    }
    return logs.empty() ? "" : logs.rbegin()->second;
  }
  void Flip(uint64_t offset) {
    std::fstream file(Wal(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const char byte = static_cast<char>(file.get() ^ 0x40);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
  }
  void Truncate(uint64_t bytes_off) {
    std::filesystem::resize_file(Wal(), std::filesystem::file_size(Wal()) - bytes_off);
  }
  void MakeLog(Seq messages) {
    ASSERT_TRUE(Open().ok());
    Batch queue;
    PutQueue(&queue, kQid);
    ASSERT_TRUE(Commit(std::move(queue)).ok());
    WriteMessages(1, messages + 1);
    log_->Stop();
    Crash();
  }
};

TEST_F(WalScanTest, AnIntactLogIsReadWholly) {
  MakeLog(100);
  const auto scan = ScanWal(options_.dir);
  ASSERT_TRUE(scan.ok()) << scan.status();
  EXPECT_GE(scan->records, 102u);  // with the marker of the stop
  EXPECT_EQ(scan->durable_store_seq, 201u);
  EXPECT_FALSE(scan->torn_tail);
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(Stored().size(), 100u);
}

TEST_F(WalScanTest, DamageBelowWhatIsNamedDurableIsRefusedByFileAndOffset) {
  MakeLog(100);
  const uint64_t size = std::filesystem::file_size(Wal());
  for (const uint64_t offset : {uint64_t{3}, uint64_t{300}, size / 2, size - 200, size - 1500}) {
    Flip(offset);
    const absl::Status status = Open();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << offset << " " << status;
    EXPECT_NE(status.message().find(Wal()), absl::string_view::npos) << status;
    Flip(offset);
  }
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(Stored().size(), 100u) << "a refusal must change nothing";
}

TEST_F(WalScanTest, ATornTailIsAcceptedAndTheRestIsThere) {
  MakeLog(100);
  // The marker and part of the last record, as if neither had been synced.
  Truncate(400);
  const auto scan = ScanWal(options_.dir);
  ASSERT_TRUE(scan.ok()) << scan.status();
  EXPECT_TRUE(scan->torn_tail);
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(Stored().size(), 99u);
  WriteMessages(100, 105);
  Crash();
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(Stored().size(), 104u);
}

TEST_F(WalScanTest, ALogLeftBehindATornTailDoesNotRefuseTheNextStart) {
  MakeLog(100);
  Truncate(400);
  const std::string torn = Wal();
  std::filesystem::copy_file(torn, root_ + "/torn");
  ASSERT_TRUE(Open().ok());
  WriteMessages(100, 105);
  log_->Stop();
  Crash();
  // The store had been opened and written to, but the old file had not been removed yet.
  std::filesystem::copy_file(root_ + "/torn",
                             options_.dir + "/" + std::filesystem::path(torn).filename().string());
  const auto scan = ScanWal(options_.dir);
  ASSERT_TRUE(scan.ok()) << scan.status();
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(Stored().size(), 104u);
}

TEST_F(WalScanTest, AnIdleLogEndsWithAMarkerThatGuardsTheLastBatch) {
  log_options_.idle_marker_after = absl::Milliseconds(1);
  ASSERT_TRUE(Open().ok());
  WriteMessages(1, 2);
  // Two rows: the marker names the second.
  while (true) {
    const auto scan = ScanWal(options_.dir);
    if (scan.ok() && scan->durable_store_seq == 2) break;
  }
  Crash();
  Flip(500);
  EXPECT_EQ(Open().code(), absl::StatusCode::kDataLoss);
}

TEST_F(WalScanTest, NoDirectoryIsAnEmptyLog) {
  const auto scan = ScanWal(root_ + "/none");
  ASSERT_TRUE(scan.ok());
  EXPECT_EQ(scan->records, 0u);
}

TEST(Crc32cTest, FastAndPortableAgreeAndMatchAKnownValue) {
  EXPECT_EQ(ExtendCrc32c(0, "123456789"), 0xe3069283u);
  std::string data;
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(ExtendCrc32c(7, data), ExtendCrc32cPortable(7, data)) << i;
    data.push_back(static_cast<char>(i * 37));
  }
}

}  // namespace
}  // namespace sluice::storage
