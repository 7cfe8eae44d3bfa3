#include "server/storage/compression_choice.h"

#include <random>
#include <string>

#include "tests/unit/storage/rocks_fixture.h"

namespace sluice::storage {
namespace {

// So many blocks that most files have a sample, and some for sure.
constexpr int kBodies = 1000;
constexpr size_t kBodyBytes = 5000;  // more than a block
constexpr int kFilesMax = 50;

class CompressionChoiceTest : public RocksFixture {
 protected:
  void SetUp() override {
    RocksFixture::SetUp();
    ASSERT_TRUE(Open().ok());
    Batch batch;
    PutQueue(&batch, kQid);
    ASSERT_TRUE(Commit(std::move(batch)).ok());
  }

  std::string RandomBody() {
    std::string body(kBodyBytes, '\0');
    for (char& c : body) c = static_cast<char>(random_());
    return body;
  }

  // Writes one file of messages; how it is compressed.
  std::string WriteFile(bool text) {
    Batch batch;
    const Seq first = next_seq_;
    for (int i = 0; i < kBodies; ++i) {
      PutMessage(&batch, kQid, next_seq_++, text ? std::string(kBodyBytes, 'a') : RandomBody());
    }
    PutLane(&batch, kQid, 1, next_seq_);
    EXPECT_TRUE(Commit(std::move(batch)).ok());
    EXPECT_TRUE(store_->db()->Flush(rocksdb::FlushOptions(), store_->messages()).ok());
    const auto key = MessageKey({0, kQid, kLaneUsed, first});
    const rocksdb::Slice begin(key.data(), key.size());
    const std::string behind = begin.ToString() + '\0';
    const rocksdb::Range range(begin, behind);
    rocksdb::TablePropertiesCollection files;
    EXPECT_TRUE(
        store_->db()->GetPropertiesOfTablesInRange(store_->messages(), &range, 1, &files).ok());
    EXPECT_EQ(files.size(), 1u);
    return files.empty() ? "" : files.begin()->second->compression_name;
  }
  // Writes such files until they are compressed like that: RocksDB reports a file a moment after it
  // is there.
  bool Becomes(bool text, const std::string& compression) {
    for (int i = 0; i < kFilesMax; ++i) {
      if (WriteFile(text) == compression) return true;
      EXPECT_TRUE(store_->ReclaimNow().ok());
    }
    return false;
  }

  std::mt19937 random_{1};
  Seq next_seq_ = 1;
};

TEST_F(CompressionChoiceTest, FilesAreCompressedWhileWhatIsInThemShrinks) {
  EXPECT_EQ(WriteFile(/*text=*/true), "LZ4");
  EXPECT_TRUE(Becomes(/*text=*/true, "LZ4"));
  EXPECT_TRUE(Becomes(/*text=*/false, "NoCompression"));
  EXPECT_TRUE(Becomes(/*text=*/false, "NoCompression"));
  EXPECT_TRUE(Becomes(/*text=*/true, "LZ4"));
}

TEST_F(CompressionChoiceTest, FilesOfBothKindsAreReadAndTheStoreOpensAgain) {
  ASSERT_TRUE(Becomes(/*text=*/false, "NoCompression"));
  ASSERT_TRUE(Becomes(/*text=*/true, "LZ4"));
  const size_t stored = next_seq_ - 1;
  EXPECT_EQ(Stored().size(), stored);
  Close();
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(Stored().size(), stored);
  EXPECT_EQ(WriteFile(/*text=*/true), "LZ4");
}

TEST(CompressionChoiceRuleTest, WhatNeitherShrinksNorStaysChangesNothing) {
  const auto flushed = [](uint64_t shrunk_to, const char* family = "messages") {
    rocksdb::FlushJobInfo flush;
    flush.cf_name = family;
    flush.table_properties.raw_value_size = 100;
    flush.table_properties.fast_compression_estimated_data_size = shrunk_to;
    return flush;
  };
  const auto wanted_after = [&](std::initializer_list<rocksdb::FlushJobInfo> flushes) {
    CompressionChoice choice("messages", rocksdb::kLZ4Compression);
    for (const auto& flush : flushes) choice.OnFlushCompleted(nullptr, flush);
    return choice.wanted();
  };
  EXPECT_EQ(wanted_after({flushed(90)}), rocksdb::kNoCompression);
  EXPECT_EQ(wanted_after({flushed(89)}), rocksdb::kLZ4Compression);
  EXPECT_EQ(wanted_after({flushed(100), flushed(81)}), rocksdb::kNoCompression);
  EXPECT_EQ(wanted_after({flushed(100), flushed(80)}), rocksdb::kLZ4Compression);
  EXPECT_EQ(wanted_after({flushed(0)}), rocksdb::kLZ4Compression) << "no sample";
  EXPECT_EQ(wanted_after({flushed(100, "index")}), rocksdb::kLZ4Compression);
}

}  // namespace
}  // namespace sluice::storage
