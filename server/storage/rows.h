// Keys and values of every row: the whole keyspace, encoded and decoded here and nowhere else.
// docs/storage_format.md is the same in prose. Every key begins with its shard.
#ifndef SLUICE_SERVER_STORAGE_ROWS_H_
#define SLUICE_SERVER_STORAGE_ROWS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/model/ids.h"
#include "server/model/queue_config.h"
#include "server/model/receipt.h"

namespace sluice::storage {

// Raised when rows change in a way that older servers cannot read.
inline constexpr uint32_t kStoreFormatVersion = 1;

// --- Family::kMessages: shard:2 qid:4 lane:1 seq:8 ---
inline constexpr size_t kMessageKeyBytes = 15;
std::array<char, kMessageKeyBytes> MessageKey(const MessagePosition& position);
std::optional<MessagePosition> ParseMessageKey(std::string_view key);
// Value: version:1 flags:1 publish_ms:8, then the wire-ready message.
inline constexpr size_t kMessageHeaderBytes = 10;
std::array<char, kMessageHeaderBytes> MessageHeader(int64_t publish_ms);
struct MessageValue {
  int64_t publish_ms = 0;
  std::string_view wire;
};
absl::StatusOr<MessageValue> ParseMessageValue(std::string_view value);

// --- Family::kMeta: shard:2 type:1 ... ---
enum class MetaType : char {
  kAcks = 'A',    // qid:4 lane:1 block:8   settled seqs of one block, or a run of settled blocks
  kBoot = 'B',    //                        format version, boot, keys, clock: one row
  kLane = 'L',    // qid:4 lane:1           head, next seq, bytes, grant bound
  kQueue = 'Q',   // qid:4                  config
  kHistory = 'T', // qid:4 lane:1 seq:8     attempts, retry time, last grant, saved lease
};
struct MetaKey {
  ShardId shard = 0;
  MetaType type = MetaType::kBoot;
  QueueId qid = 0;
  Lane lane = 0;
  uint64_t number = 0;  // block of kAcks, seq of kHistory
};
absl::StatusOr<MetaKey> ParseMetaKey(std::string_view key);
std::string BootKey(ShardId shard);
std::string QueueKey(ShardId shard, QueueId qid);
std::string LaneKey(ShardId shard, QueueId qid, Lane lane);
std::string AcksKey(ShardId shard, QueueId qid, Lane lane, uint64_t block);
std::string HistoryKey(const MessagePosition& position);
// [begin, end) of the rows of one queue for a type that has a qid.
struct KeyRange {
  std::string begin;
  std::string end;
};
KeyRange MetaRangeOfQueue(ShardId shard, MetaType type, QueueId qid);

struct BootRow {
  uint32_t format_version = kStoreFormatVersion;
  Boot boot = 0;
  Lsn lsn = 0;               // last batch when this row was written; later ones are found by replay
  int64_t engine_ms = 0;
  QueueId next_qid = 1;
  bool clean_stop = false;   // leases are saved: nothing else was in consumers' hands
  std::string server_id;     // made with the store: 32 hex digits
  ReceiptCodec::Key receipt_key{};
};
std::string EncodeBoot(const BootRow& row);
absl::StatusOr<BootRow> ParseBoot(std::string_view value);  // FAILED_PRECONDITION: unknown version

struct QueueRow {
  QueueConfig config;
  int64_t create_ms = 0;
  int64_t update_ms = 0;
  uint64_t revision = 1;  // the etag
};
std::string EncodeQueue(const QueueRow& row);
absl::StatusOr<QueueRow> ParseQueue(std::string_view value);

// Every seq below `head` is settled; seqs from `next_seq` on do not exist yet.
struct LaneRow {
  Seq head = 1;
  Seq next_seq = 1;
  uint64_t unsettled_bytes = 0;
  // Seqs below it may have been granted without a history row: after a crash they are flagged
  // maybe_redelivered, and the next grant of one is persisted before it is shown.
  Seq grant_bound = 1;
};
std::string EncodeLane(const LaneRow& row);
absl::StatusOr<LaneRow> ParseLane(std::string_view value);

// Settled seqs above the head, 512 to a block (seq / 512); a row holds one block's bits, or says
// that `run` blocks from this one on are settled whole.
inline constexpr uint64_t kSeqsPerBlock = 512;
inline constexpr size_t kWordsPerBlock = kSeqsPerBlock / 64;
struct AcksRow {
  uint64_t run = 0;  // 0: `bits` counts
  std::array<uint64_t, kWordsPerBlock> bits{};
};
std::string EncodeAcks(const AcksRow& row);
absl::StatusOr<AcksRow> ParseAcks(std::string_view value);

// Kept for a message that was granted more than once, has failed, or whose lease was saved.
struct HistoryRow {
  Boot boot = 0;               // of the last grant
  uint32_t delivery_count = 0; // of the last grant
  int32_t attempt = 1;         // of the next grant, or of the live lease
  int64_t not_before_ms = 0;   // engine time; 0: none
  int64_t lease_until_ms = 0;  // engine time; 0: not leased
  uint32_t size_bytes = 0;     // of the stored message
};
std::string EncodeHistory(const HistoryRow& row);
absl::StatusOr<HistoryRow> ParseHistory(std::string_view value);

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_ROWS_H_
