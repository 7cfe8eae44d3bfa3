// Keys, ack bookkeeping and the interface of the two ways in which settled messages leave RocksDB.

#ifndef SLUICE_TESTS_BENCH_DELETION_STRATEGY_STRATEGY_H_
#define SLUICE_TESTS_BENCH_DELETION_STRATEGY_STRATEGY_H_

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/strings/str_format.h"
#include "rocksdb/db.h"
#include "rocksdb/options.h"
#include "rocksdb/write_batch.h"

namespace sluice::bench {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kRowBits = 512;
constexpr size_t kMsgKeyBytes = 15;

// What the command line can change about the ack set, to see which part of it matters.
struct AckSetOptions {
  // Messages passed per DeleteFilesInRange call.
  uint64_t step_messages = 1;
  // What the filter does with a settled message at flush: "skip" leaves nothing, "remove" a
  // tombstone, "none" the message (compactions still skip it).
  std::string flush_filter = "skip";
};

inline double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

inline void Require(bool condition, const std::string& what) {
  if (condition) return;
  absl::FPrintF(stderr, "deletion_strategy: %s\n", what);
  std::_Exit(1);
}

inline void Require(const rocksdb::Status& status) { Require(status.ok(), status.ToString()); }

inline void AppendBigEndian(uint64_t value, int bytes, std::string* out) {
  for (int i = bytes - 1; i >= 0; --i) out->push_back(static_cast<char>(value >> (8 * i)));
}

inline uint64_t BigEndian64(const char* bytes) {
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

// shard:2 qid:4 lane:1 seq:8, one queue and one lane being enough here.
inline std::string MsgKey(uint64_t seq) {
  std::string key("\0\0\0\0\0\1\4", 7);
  AppendBigEndian(seq, 8, &key);
  return key;
}

inline uint64_t SeqOf(const rocksdb::Slice& key) {
  return BigEndian64(key.data() + kMsgKeyBytes - 8);
}

constexpr char kHeadKey[] = "L";

inline std::string AckRowKey(uint64_t row) {
  std::string key("A");
  AppendBigEndian(row, 8, &key);
  return key;
}

// Which messages of a lane are settled: everything below the head, and bits above it.
class AckTracker {
 public:
  using Row = std::array<uint64_t, kRowBits / 64>;

  uint64_t head() const { return head_; }
  const absl::btree_map<uint64_t, Row>& rows() const { return rows_; }

  // The first message at or after `seq` that is not settled.
  uint64_t NextUnacked(uint64_t seq) const {
    seq = std::max(seq, head_);
    for (auto it = rows_.find(seq / kRowBits); it != rows_.end() && it->first == seq / kRowBits;
         ++it) {
      for (uint64_t word = seq % kRowBits / 64; word < it->second.size(); ++word) {
        const int run = std::countr_one(it->second[word] >> (seq % 64));
        const uint64_t word_left = 64 - seq % 64;
        if (static_cast<uint64_t>(run) < word_left) return seq + run;
        seq += word_left;
      }
    }
    return seq;
  }

  void Ack(uint64_t seq) {
    if (seq < head_) return;
    rows_[seq / kRowBits][seq % kRowBits / 64] |= uint64_t{1} << (seq % 64);
    if (seq == head_) SetHead(NextUnacked(seq));
  }

  void SetHead(uint64_t head) {
    head_ = head;
    rows_.erase(rows_.begin(), rows_.lower_bound(head_ / kRowBits));
  }

  void SetRow(uint64_t row, const Row& bits) { rows_[row] = bits; }

 private:
  uint64_t head_ = 0;
  absl::btree_map<uint64_t, Row> rows_;
};

struct Families {
  rocksdb::DB* db = nullptr;
  rocksdb::ColumnFamilyHandle* msg = nullptr;
  rocksdb::ColumnFamilyHandle* meta = nullptr;
};

// How acks are persisted and how their messages' space comes back. AppendAcks and NextUnacked are
// called by the driver, OnSynced by the sync thread, everything else with the commit loop idle.
class Strategy {
 public:
  virtual ~Strategy() = default;
  virtual void Configure(rocksdb::ColumnFamilyOptions* msg) = 0;
  // Loads what was persisted and starts background work, which Stop ends before the DB closes.
  virtual void Start(const Families& families) = 0;
  virtual void Stop() {}
  virtual void AppendAcks(const std::vector<uint64_t>& seqs, rocksdb::WriteBatch* batch) = 0;
  virtual void OnSynced(const std::vector<uint64_t>& seqs) = 0;
  virtual uint64_t NextUnacked(uint64_t seq) const = 0;
  // What an idle server would do to get space back, beyond the background work.
  virtual void Settle() = 0;
  virtual double LongestReclaimStepSeconds() const { return 0; }

 protected:
  static uint64_t LoadHead(const Families& families) {
    std::string value;
    const rocksdb::Status status =
        families.db->Get(rocksdb::ReadOptions(), families.meta, kHeadKey, &value);
    if (status.IsNotFound()) return 0;
    Require(status);
    return BigEndian64(value.data());
  }

  static void AppendHead(const Families& families, uint64_t head, rocksdb::WriteBatch* batch) {
    std::string value;
    AppendBigEndian(head, 8, &value);
    Require(batch->Put(families.meta, kHeadKey, value));
  }
};

// `name` is "ack_set" or "single_delete".
std::unique_ptr<Strategy> MakeStrategy(const std::string& name, const AckSetOptions& options);

}  // namespace sluice::bench

#endif  // SLUICE_TESTS_BENCH_DELETION_STRATEGY_STRATEGY_H_
