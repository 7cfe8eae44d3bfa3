// A store in a directory of its own, with helpers to publish, settle, crash and open again.
#ifndef SLUICE_TESTS_UNIT_STORAGE_ROCKS_FIXTURE_H_
#define SLUICE_TESTS_UNIT_STORAGE_ROCKS_FIXTURE_H_

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "gtest/gtest.h"
#include "rocksdb/db.h"
#include "server/storage/local_log.h"
#include "server/storage/rocks_store.h"
#include "server/storage/rows.h"

namespace sluice::storage {

inline constexpr QueueId kQid = 1;
inline constexpr Lane kLaneUsed = 5;

class RocksFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "sluice-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    options_.dir = root_ + "/data";
    // Tests ask for reclaiming when they want it.
    options_.reclaim_period = absl::Hours(1);
    options_.rewrite_garbage_bytes_idle = 1;
  }
  void TearDown() override {
    Close();
    std::filesystem::remove_all(root_);
  }

  // All of them, whatever their size.
  absl::StatusOr<std::vector<StoredMessage>> ReadAt(QueueId qid, Lane lane,
                                                    const std::vector<Seq>& seqs) {
    size_t seqs_read = 0;
    auto messages = store_->ReadMessagesAt(qid, lane, seqs, UINT64_MAX, &seqs_read);
    EXPECT_EQ(seqs_read, seqs.size());
    return messages;
  }

  absl::Status Open() {
    auto store = RocksStore::Open(options_);
    if (!store.ok()) return store.status();
    store_ = *std::move(store);
    log_ = std::make_unique<LocalLog>(store_.get(), nullptr, log_options_);
    return absl::OkStatus();
  }
  void Close() {
    log_.reset();
    store_.reset();
  }
  // What a kill would leave: a copy of the files as the operating system has them. Goes on in it.
  void Crash() {
    const std::string copy = options_.dir + "+";
    // A kill is one instant, a copy is not: files must not come and go meanwhile.
    ASSERT_TRUE(store_->db()->PauseBackgroundWork().ok());
    std::filesystem::copy(options_.dir, copy, std::filesystem::copy_options::recursive);
    ASSERT_TRUE(store_->db()->ContinueBackgroundWork().ok());
    Close();
    options_.dir = copy;
  }

  // Appends `batch` as the next lsn without waiting.
  void Append(Batch batch) {
    batch.SetHeader({.term = 1,
                     .lsn = ++lsn_,
                     .log_time_ms = log_time_ms_,
                     .durable_lsn = told_lsn()});
    log_->Append(std::move(batch), [this, lsn = lsn_](const absl::Status& status) {
      absl::MutexLock lock(&mutex_);
      answers_.emplace_back(lsn, status);
    });
  }
  void AwaitAnswers() {
    absl::MutexLock lock(&mutex_);
    const auto all = [this] { return !answers_.empty() && answers_.back().first == lsn_; };
    mutex_.Await(absl::Condition(&all));
  }
  absl::Status Commit(Batch batch) {
    Append(std::move(batch));
    AwaitAnswers();
    absl::MutexLock lock(&mutex_);
    return answers_.back().second;
  }
  Lsn told_lsn() {
    absl::MutexLock lock(&mutex_);
    return answers_.empty() ? 0 : answers_.back().first;
  }

  static void PutMessage(Batch* batch, QueueId qid, Seq seq, std::string_view body) {
    const auto key = MessageKey({0, qid, kLaneUsed, seq});
    std::string header;
    EncodeMessageHeader({.publish_ms = 100}, &header);
    batch->Put(Family::kMessages, {key.data(), key.size()}, {header, body});
  }
  static void PutQueue(Batch* batch, QueueId qid) {
    QueueRow row;
    row.config.name = "q" + std::to_string(qid);
    batch->Put(Family::kMeta, QueueKey(0, qid), EncodeQueue(row));
  }
  static void PutLane(Batch* batch, QueueId qid, Seq head, Seq next_seq) {
    batch->Put(Family::kMeta, LaneKey(0, qid, kLaneUsed),
               EncodeLane({.head = head, .next_seq = next_seq}));
  }
  std::vector<Seq> Stored(QueueId qid = kQid) {
    std::vector<Seq> seqs;
    const auto messages = store_->ReadMessages({qid, kLaneUsed, 0, ~Seq{0}, 1'000'000, ~0ull});
    EXPECT_TRUE(messages.ok()) << messages.status();
    if (messages.ok()) {
      for (const StoredMessage& message : *messages) seqs.push_back(message.seq);
    }
    return seqs;
  }

  std::string root_;
  RocksOptions options_;
  LocalLogOptions log_options_;
  std::unique_ptr<RocksStore> store_;
  std::unique_ptr<LocalLog> log_;
  Lsn lsn_ = 0;
  int64_t log_time_ms_ = 0;  // of the next batch
  absl::Mutex mutex_;
  std::vector<std::pair<Lsn, absl::Status>> answers_;
};

}  // namespace sluice::storage

#endif  // SLUICE_TESTS_UNIT_STORAGE_ROCKS_FIXTURE_H_
