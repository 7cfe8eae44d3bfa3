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
#include "server/model/death.h"
#include "server/model/exchange.h"
#include "server/model/hash.h"
#include "server/model/ids.h"
#include "server/model/message_info.h"
#include "server/model/queue_config.h"
#include "server/model/receipt.h"

namespace sluice::storage {

// Raised when rows change in a way that older servers cannot read.
inline constexpr uint32_t kStoreFormatVersion = 2;

// --- Family::kMessages: shard:2 qid:4 lane:1 seq:8 ---
inline constexpr size_t kMessageKeyBytes = 15;
inline constexpr size_t kMessageLaneBytes = 7;  // of them, those that name the lane
std::array<char, kMessageKeyBytes> MessageKey(const MessagePosition& position);
std::optional<MessagePosition> ParseMessageKey(std::string_view key);
// Value: version:1 flags:1 publish_ms:8, what the flags say is there, then the wire-ready message.
// `scratch` holds the result; reusing it saves the allocation.
std::string_view EncodeMessageHeader(const MessageInfo& info, std::string* scratch);
struct MessageValue {
  MessageInfo info;
  std::string_view wire;
};
absl::StatusOr<MessageValue> ParseMessageValue(std::string_view value);

// --- Family::kMeta: shard:2 type:1 ... ---
enum class MetaType : char {
  kAcks = 'A',    // qid:4 lane:1 block:8   settled seqs of one block, or a run of settled blocks
  kBoot = 'B',    //                        format version, boot, keys, clock: one row
  kProducer = 'P',  // hash:16              last sequence of one (target, producer id)
  kExchange = 'X',  // number:8             an exchange
  kBinding = 'Y',   // number:8             a binding
  kLane = 'L',    // qid:4 lane:1           head, next seq, bytes, grant bound
  kQueue = 'Q',   // qid:4                  config
  kHistory = 'T', // qid:4 lane:1 seq:8     attempts, retry time, last grant, saved lease
};
// So many bytes of a kAcks, kLane or kHistory key name its type and lane; others are shorter, or
// hold something else there.
inline constexpr size_t kMetaLaneBytes = 8;
// Of kAcks and kHistory; a kLane key ends there.
inline constexpr size_t kMetaRowOfLaneKeyBytes = kMetaLaneBytes + 8;
struct MetaKey {
  ShardId shard = 0;
  MetaType type = MetaType::kBoot;
  QueueId qid = 0;
  Lane lane = 0;
  uint64_t number = 0;  // block of kAcks, seq of kHistory, or the number of a kExchange or kBinding
  Hash128 hash{};       // of kProducer
};
absl::StatusOr<MetaKey> ParseMetaKey(std::string_view key);
std::string BootKey(ShardId shard);
std::string QueueKey(ShardId shard, QueueId qid);
std::string LaneKey(ShardId shard, QueueId qid, Lane lane);
std::string AcksKey(ShardId shard, QueueId qid, Lane lane, uint64_t block);
std::string HistoryKey(const MessagePosition& position);
std::string ProducerKey(ShardId shard, const Hash128& hash);
std::string ExchangeKey(ShardId shard, uint64_t number);
std::string BindingKey(ShardId shard, uint64_t number);
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
  uint64_t next_number = 1;      // of exchanges and bindings
  int64_t expiry_cursor_ms = 0;  // what expires before it has been dealt with
  bool clean_stop = false;   // leases are saved: nothing else was in consumers' hands
  std::string server_id;     // made with the store: 32 hex digits
  ReceiptCodec::Key receipt_key{};
  KeyedHash::Key hash_key{};
};
std::string EncodeBoot(const BootRow& row);
absl::StatusOr<BootRow> ParseBoot(std::string_view value);  // FAILED_PRECONDITION: unknown version

struct QueueRow {
  QueueConfig config;
  int64_t create_ms = 0;
  int64_t update_ms = 0;
  uint64_t revision = 1;  // the etag
  bool paused = false;
  bool temporary = false;  // goes with the boot that made it
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

// Kept for a message that was granted more than once, has failed, is on its way out, or whose lease
// was saved.
struct HistoryRow {
  Boot boot = 0;               // of the last grant
  uint32_t delivery_count = 0; // of the last grant
  int32_t attempt = 1;         // of the next grant, or of the live lease
  int64_t not_before_ms = 0;   // engine time; 0: none
  int64_t lease_until_ms = 0;  // engine time; 0: not leased
  uint32_t size_bytes = 0;     // of the stored message
  uint64_t group_hash = 0;     // 0: no group
  int64_t expire_ms = 0;       // engine time; 0: never
  bool maybe_redelivered = false;  // of the next grant
  // Not kUnspecified: it is never granted again, and waits to be moved to the dead-letter queue.
  DeathReason death = DeathReason::kUnspecified;
  std::string detail = {};  // reason of the last nack
  // An index row tells when not_before_ms is, so that nobody has to keep this one in mind.
  bool has_due_row = false;
  // Written by a grant: unless another row follows, the end of its boot cuts that short. Then it has
  // no due row.
  bool held = false;
};
std::string EncodeHistory(const HistoryRow& row);
absl::StatusOr<HistoryRow> ParseHistory(std::string_view value);

// Idempotent producers: API.md rule 3.
struct ProducerRow {
  int64_t last_sequence = 0;
  int64_t update_ms = 0;  // engine time of the last publish
};
std::string EncodeProducer(const ProducerRow& row);
absl::StatusOr<ProducerRow> ParseProducer(std::string_view value);

std::string EncodeExchange(const Exchange& exchange);
absl::StatusOr<Exchange> ParseExchange(std::string_view value);
std::string EncodeBinding(const Binding& binding);
absl::StatusOr<Binding> ParseBinding(std::string_view value);

// --- Family::kIndex: shard:2 type:1 ... --- Ways to find messages otherwise than by position. A row
// may outlive its message: readers ask what is settled; compactions drop such rows.
enum class IndexType : char {
  kDue = 'D',     // qid:4 lane:1 due_ms:8 seq:8     delayed messages in the order in which they are due
  kExpiry = 'E',  // expire_ms:8 qid:4 lane:1 seq:8  what expires, of all queues; immediate lanes only
  kGroup = 'G',   // qid:4 lane:1 hash:8 seq:8       the messages of one group; immediate lanes only
  kId = 'I',      // qid:4 id:15                     where in a queue a message is that is not where its
                  //                                 id says
  kDedup = 'U',   // qid:4 hash:16                   the message that was published with an id
};
std::string DueKey(const MessagePosition& position, int64_t due_ms);
std::string ExpiryKey(const MessagePosition& position, int64_t expire_ms);
std::string GroupKey(const MessagePosition& position, uint64_t group_hash);
std::string IdKey(ShardId shard, QueueId qid, const MessagePosition& id);
std::string DedupKey(ShardId shard, QueueId qid, const Hash128& hash);
// Parts that a type does not have stay 0. For kId `position` holds shard and qid only.
struct IndexKey {
  IndexType type = IndexType::kDue;
  MessagePosition position;
  int64_t time_ms = 0;      // due_ms or expire_ms
  uint64_t group_hash = 0;
  MessagePosition id;
  Hash128 hash{};
};
absl::StatusOr<IndexKey> ParseIndexKey(std::string_view key);

// Value of kDue, kExpiry and kGroup: a version and nothing else.
std::string_view EmptyIndexValue();
// Value of kId: where the message is now.
struct IdRow {
  Lane lane = 0;
  Seq seq = 0;
};
std::string EncodeId(const IdRow& row);
absl::StatusOr<IdRow> ParseId(std::string_view value);
struct DedupRow {
  MessagePosition id;     // of the message that came first
  int64_t expire_ms = 0;  // engine time at which it is forgotten
};
std::string EncodeDedup(const DedupRow& row);
absl::StatusOr<DedupRow> ParseDedup(std::string_view value);

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_ROWS_H_
