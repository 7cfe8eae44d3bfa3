#include "server/storage/batch.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace sluice::storage {
namespace {

class Recorder : public Batch::Visitor {
 public:
  void OnPut(Family family, std::string_view key, std::string_view value) override {
    Add('P', family, key, value);
  }
  void OnDelete(Family family, std::string_view key) override { Add('D', family, key, ""); }
  void OnDeleteMetaRange(std::string_view begin, std::string_view end) override {
    Add('R', Family::kMeta, begin, end);
  }
  std::vector<std::string> seen;

 private:
  void Add(char op, Family family, std::string_view a, std::string_view b) {
    std::string line(1, op);
    line += std::to_string(static_cast<int>(family));
    line.append(":").append(a).append("=").append(b);
    seen.push_back(line);
  }
};

Batch Example() {
  Batch batch;
  batch.Put(Family::kMessages, "m1", {"head", "", "body"});
  batch.Put(Family::kMeta, "k", "");
  batch.Delete(Family::kMeta, "gone");
  batch.DeleteMetaRange("a", "b");
  batch.Put(Family::kIndex, "i", "v");
  batch.Delete(Family::kIndex, "j");
  batch.SetHeader({.shard = 3, .term = 4, .lsn = 5, .log_time_ms = -6, .durable_lsn = 2});
  return batch;
}

TEST(BatchTest, RowsComeBackInOrderWithTheHeader) {
  const Batch batch = Example();
  EXPECT_EQ(batch.rows(), 6u);
  EXPECT_EQ(batch.messages(), 1u);
  BatchHeader header;
  Recorder recorder;
  ASSERT_TRUE(Batch::Visit(batch.record(), &header, &recorder).ok());
  EXPECT_EQ(recorder.seen, (std::vector<std::string>{"P1:m1=headbody", "P2:k=", "D2:gone=",
                                                     "R2:a=b", "P3:i=v", "D3:j="}));
  EXPECT_EQ(header.shard, 3);
  EXPECT_EQ(header.term, 4u);
  EXPECT_EQ(header.lsn, 5u);
  EXPECT_EQ(header.log_time_ms, -6);
  EXPECT_EQ(header.durable_lsn, 2u);
}

TEST(BatchTest, RowsAddedBehindTheHeaderAreCounted) {
  Batch batch;
  batch.SetHeader({.lsn = 1});
  batch.Put(Family::kMeta, "k", "v");
  BatchHeader header;
  Recorder recorder;
  ASSERT_TRUE(Batch::Visit(batch.record(), &header, &recorder).ok());
  EXPECT_EQ(recorder.seen.size(), 1u);
}

TEST(BatchTest, EveryCutIsDataLoss) {
  const Batch batch = Example();
  for (size_t size = 0; size < batch.record().size(); ++size) {
    BatchHeader header;
    Recorder recorder;
    EXPECT_EQ(Batch::Visit(batch.record().substr(0, size), &header, &recorder).code(),
              absl::StatusCode::kDataLoss)
        << size;
  }
}

TEST(BatchTest, TrailingBytesAndUnknownOperationsAreDataLoss) {
  const Batch batch = Example();
  BatchHeader header;
  Recorder recorder;
  std::string record(batch.record());
  EXPECT_EQ(Batch::Visit(record + "x", &header, &recorder).code(), absl::StatusCode::kDataLoss);
  record[Batch::kHeaderBytes] = 9;
  EXPECT_EQ(Batch::Visit(record, &header, &recorder).code(), absl::StatusCode::kDataLoss);
}

TEST(BatchTest, OnlyMetaRowsAreDeletedByRangeAndNoFamilyIsUnknown) {
  Batch batch;
  batch.DeleteMetaRange("a", "b");
  std::string record(batch.record());
  BatchHeader header;
  Recorder recorder;
  for (const Family family : {Family::kMessages, Family::kIndex, static_cast<Family>(4)}) {
    record[Batch::kHeaderBytes + 1] = static_cast<char>(family);
    EXPECT_EQ(Batch::Visit(record, &header, &recorder).code(), absl::StatusCode::kDataLoss);
  }
}

TEST(BatchTest, UnknownVersionIsNamed) {
  std::string record(Example().record());
  record[0] = 7;
  BatchHeader header;
  const absl::Status status = Batch::ReadHeader(record, &header);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("version 7"), absl::string_view::npos);
}

TEST(BatchDeathTest, MessagesAreNotDeletedOneByOne) {
  Batch batch;
  EXPECT_DEATH(batch.Delete(Family::kMessages, "m"), "invariant");
}

}  // namespace
}  // namespace sluice::storage
