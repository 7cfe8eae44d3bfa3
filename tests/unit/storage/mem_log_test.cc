#include "server/storage/mem_log.h"

#include <vector>

#include "gtest/gtest.h"
#include "server/storage/rows.h"

namespace sluice::storage {
namespace {

Batch MessageBatch(Lsn lsn, Seq seq) {
  Batch batch;
  const auto key = MessageKey({0, 1, 5, seq});
  std::string header;
  EncodeMessageHeader({.publish_ms = 100}, &header);
  batch.Put(Family::kMessages, {key.data(), key.size()}, {header, "body"});
  batch.SetHeader({.lsn = lsn});
  return batch;
}

class MemLogTest : public ::testing::Test {
 protected:
  void Append(Lsn lsn, Seq seq) {
    log_.Append(MessageBatch(lsn, seq), [this, lsn](const absl::Status& status) {
      (status.ok() ? done_ : failed_).push_back(lsn);
    });
  }

  MemStore store_;
  MemLog log_{&store_};
  std::vector<Lsn> done_;
  std::vector<Lsn> failed_;
};

TEST_F(MemLogTest, NothingIsReadableBeforeItIsCommitted) {
  Append(1, 1);
  EXPECT_TRUE(store_.ReadMessages({1, 5, 0, 10, 10, 1000})->empty());
  EXPECT_TRUE(log_.CommitOne());
  EXPECT_FALSE(log_.CommitOne());
  EXPECT_EQ(done_, std::vector<Lsn>{1});
  const auto messages = store_.ReadMessages({1, 5, 0, 10, 10, 1000});
  ASSERT_EQ(messages->size(), 1u);
  EXPECT_EQ(messages->front().payload.view(), "body");
}

TEST_F(MemLogTest, ReadsStopAtTheirLimits) {
  for (Seq seq = 1; seq <= 5; ++seq) Append(seq, seq);
  log_.CommitAll();
  EXPECT_EQ(store_.ReadMessages({1, 5, 2, 5, 10, 1000})->size(), 3u);
  EXPECT_EQ(store_.ReadMessages({1, 5, 0, 10, 2, 1000})->size(), 2u);
  EXPECT_EQ(store_.ReadMessages({1, 5, 0, 10, 10, 0})->size(), 1u);
  EXPECT_EQ(store_.ReadMessages({1, 5, 0, 10, 10, 5})->size(), 2u);
  EXPECT_TRUE(store_.ReadMessages({1, 4, 0, 10, 10, 1000})->empty());
  size_t seqs_read = 0;
  EXPECT_EQ(store_.ReadMessagesAt(1, 5, {2, 4, 9}, 1000, &seqs_read)->size(), 2u);
  EXPECT_EQ(seqs_read, 3u);
  EXPECT_EQ(store_.ReadMessagesAt(1, 5, {2, 4, 9}, 1, &seqs_read)->size(), 1u);
  EXPECT_EQ(seqs_read, 1u);
}

TEST_F(MemLogTest, AFailureReachesWaitingAndLaterBatches) {
  Append(1, 1);
  log_.CommitAll();
  Append(2, 2);
  log_.Fail(absl::UnavailableError("disk"));
  Append(3, 3);
  EXPECT_EQ(done_, std::vector<Lsn>{1});
  EXPECT_EQ(failed_, (std::vector<Lsn>{2, 3}));
  EXPECT_EQ(store_.rows().size(), 1u);
}

TEST_F(MemLogTest, ACrashForgetsWhatWasNotCommitted) {
  Append(1, 1);
  log_.DropPending();
  EXPECT_EQ(log_.pending(), 0u);
  EXPECT_TRUE(store_.rows().empty());
  EXPECT_TRUE(done_.empty() && failed_.empty());
  Append(1, 1);
  log_.CommitAll();
  EXPECT_EQ(done_, std::vector<Lsn>{1});
}

TEST_F(MemLogTest, IndexRowsAreScannedWithinTheirBoundsAndFoundByKey) {
  Batch batch;
  for (const char* key : {"a", "b", "c", "d"}) batch.Put(Family::kIndex, key, key);
  batch.Put(Family::kMeta, "b2", "not of the index");
  batch.Delete(Family::kIndex, "c");
  batch.SetHeader({.lsn = 1});
  log_.Append(std::move(batch), [](const absl::Status&) {});
  log_.CommitAll();
  const auto all = store_.ScanIndex("a", "e", 10);
  ASSERT_EQ(all->size(), 3u);
  EXPECT_EQ(all->back().key, "d");
  EXPECT_EQ(all->back().value, "d");
  EXPECT_EQ(store_.ScanIndex("a", "d", 10)->size(), 2u);
  EXPECT_EQ(store_.ScanIndex("a", "e", 1)->size(), 1u);
  EXPECT_TRUE(store_.ScanIndex("e", "a", 10)->empty());
  const auto found = store_.GetIndex({"d", "c", "a"});
  EXPECT_EQ(*found, (std::vector<std::optional<std::string>>{"d", std::nullopt, "a"}));
  EXPECT_EQ(store_.ScanMeta([](std::string_view key, std::string_view) {
    EXPECT_EQ(key, "b2");
    return absl::OkStatus();
  }), absl::OkStatus());
}

TEST_F(MemLogTest, MetaRowsAreOverwrittenDeletedAndScannedInOrder) {
  Batch batch;
  batch.Put(Family::kMeta, "a1", "old");
  batch.Put(Family::kMeta, "a1", "new");
  batch.Put(Family::kMeta, "a2", "x");
  batch.Put(Family::kMeta, "b1", "y");
  batch.Put(Family::kMeta, "b2", "z");
  batch.Delete(Family::kMeta, "b1");
  batch.DeleteMetaRange("a2", "b1");
  batch.SetHeader({.lsn = 1});
  log_.Append(std::move(batch), [](const absl::Status&) {});
  log_.CommitAll();
  std::string seen;
  ASSERT_TRUE(store_.ScanMeta([&](std::string_view key, std::string_view value) {
    seen.append(key).append("=").append(value).append(" ");
    return absl::OkStatus();
  }).ok());
  EXPECT_EQ(seen, "a1=new b2=z ");
}

}  // namespace
}  // namespace sluice::storage
