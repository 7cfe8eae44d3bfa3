#include "server/storage/wal_scan.h"

#include <fstream>
#include <map>

#include "rocksdb/write_batch.h"
#include "server/storage/crc32c.h"
#include "server/storage/wal_record.h"
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
  // Where the records end and the room for further ones begins, if there is any.
  uint64_t End() {
    std::ifstream file(Wal(), std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    return bytes.find_last_not_of('\0') + 1;
  }
  void Truncate(uint64_t bytes_off) { std::filesystem::resize_file(Wal(), End() - bytes_off); }
  void Zero(uint64_t begin, uint64_t bytes) {
    std::fstream file(Wal(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(begin));
    file << std::string(bytes, '\0');
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
  // The last of so many messages is dropped as torn, and the store goes on in its place.
  void ExpectTornTailOfOne(Seq messages) {
    const auto scan = ScanWal(options_.dir);
    ASSERT_TRUE(scan.ok()) << scan.status();
    EXPECT_TRUE(scan->torn_tail);
    ASSERT_TRUE(Open().ok());
    EXPECT_EQ(Stored().size(), messages - 1);
    WriteMessages(messages, messages + 5);
    Crash();
    ASSERT_TRUE(Open().ok());
    EXPECT_EQ(Stored().size(), messages + 4);
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
  const uint64_t size = End();
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
  ExpectTornTailOfOne(100);
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

TEST_F(WalScanTest, RoomBehindTheRecordsIsTheirEnd) {
  MakeLog(100);
  ASSERT_GT(std::filesystem::file_size(Wal()), End()) << "commits this small make room";
  const auto scan = ScanWal(options_.dir);
  ASSERT_TRUE(scan.ok()) << scan.status();
  EXPECT_FALSE(scan->torn_tail);
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(Stored().size(), 100u);
}

TEST_F(WalScanTest, ARecordTornWithinTheRoomIsATornTail) {
  MakeLog(100);
  const uint64_t end = End();
  Zero(end - 400, 400);  // the marker and part of the last record did not get there
  ExpectTornTailOfOne(100);
}

TEST_F(WalScanTest, ZerosInFrontOfRecordsAreDamage) {
  MakeLog(100);
  constexpr uint64_t kBlock = 32 * 1024;  // of RocksDB's log format
  for (const uint64_t bytes : {uint64_t{8 * 1024}, kBlock}) {
    const std::string intact = root_ + "/intact";
    std::filesystem::copy_file(Wal(), intact, std::filesystem::copy_options::overwrite_existing);
    Zero(kBlock, bytes);
    EXPECT_EQ(Open().code(), absl::StatusCode::kDataLoss) << bytes;
    std::filesystem::copy_file(intact, Wal(), std::filesystem::copy_options::overwrite_existing);
  }
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(Stored().size(), 100u);
}

// A loss of power may keep a later page of what was not synced and lose an earlier one. RocksDB would
// go on behind the zeros where a block begins with a record: here each one does.
TEST_F(WalScanTest, UnsyncedRecordsBehindAGapAreDroppedWithIt) {
  constexpr uint64_t kBlock = 32 * 1024;  // of RocksDB's log format
  constexpr uint64_t kRecord = 1024;
  ASSERT_TRUE(Open().ok());
  log_->Stop();
  size_t body_bytes = kRecord / 2;
  const auto write = [&](Seq seq) {
    Batch batch;
    batch.SetHeader({.term = 1, .lsn = seq});
    const auto note = WalNote(batch, 0);  // names nothing durable
    rocksdb::WriteBatch rows;
    ASSERT_TRUE(rows.PutLogData({note.data(), note.size()}).ok());
    const auto key = MessageKey({0, kQid, kLaneUsed, seq});
    std::string value;
    EncodeMessageHeader({.publish_ms = 100}, &value);
    value += std::string(body_bytes, 'x');
    ASSERT_TRUE(rows.Put(store_->messages(), {key.data(), key.size()}, value).ok());
    ASSERT_TRUE(store_->db()->Write(rocksdb::WriteOptions(), &rows).ok());
  };
  write(1);
  const uint64_t around_body = End() - body_bytes;
  body_bytes = 2 * kRecord - End() - around_body;
  write(2);  // the two of them are as long as two of the others
  body_bytes = kRecord - around_body;
  for (Seq seq = 3; seq <= 100; ++seq) write(seq);
  ASSERT_EQ(End(), 100 * kRecord);
  Crash();
  Zero(kBlock, kBlock);
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(Stored().size(), kBlock / kRecord) << "nothing from behind the gap";
  WriteMessages(kBlock / kRecord + 1, 100);
  Crash();
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(Stored().size(), 99u);
}

TEST_F(WalScanTest, LargeCommitsMakeNoRoom) {
  ASSERT_TRUE(Open().ok());
  for (Seq seq = 1; seq <= 20; ++seq) {
    Batch batch;
    PutMessage(&batch, kQid, seq, std::string(40'000, 'x'));
    ASSERT_TRUE(Commit(std::move(batch)).ok());
  }
  EXPECT_EQ(std::filesystem::file_size(Wal()), End());
}

TEST_F(WalScanTest, AClosedLogHasNoRoomLeft) {
  ASSERT_TRUE(Open().ok());
  WriteMessages(1, 100);
  ASSERT_GT(std::filesystem::file_size(Wal()), End());
  Close();
  if (!Wal().empty()) EXPECT_EQ(std::filesystem::file_size(Wal()), End());
}

TEST_F(WalScanTest, AnOlderLogThatIsMissingOrShortIsRefused) {
  ASSERT_TRUE(Open().ok());
  Batch queue;
  PutQueue(&queue, kQid);
  ASSERT_TRUE(Commit(std::move(queue)).ok());
  WriteMessages(1, 50);
  const std::string older = Wal();
  // The messages go to a file of the store; the meta rows are in the log only.
  ASSERT_TRUE(store_->db()->Flush(rocksdb::FlushOptions(), store_->messages()).ok());
  WriteMessages(50, 100);
  ASSERT_NE(Wal(), older);
  Crash();
  const std::string path = options_.dir + "/" + std::filesystem::path(older).filename().string();
  const std::string intact = root_ + "/intact";
  std::filesystem::copy_file(path, intact);
  std::filesystem::resize_file(path, 0);
  EXPECT_EQ(Open().code(), absl::StatusCode::kDataLoss) << Open();
  std::filesystem::remove(path);
  EXPECT_EQ(Open().code(), absl::StatusCode::kDataLoss) << Open();
  std::filesystem::copy_file(intact, path);
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(Stored().size(), 99u);
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
