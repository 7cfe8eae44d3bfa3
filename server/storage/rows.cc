#include "server/storage/rows.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

#include "server/base/check.h"
#include "server/storage/row_codec.h"

namespace sluice::storage {
namespace {

// shard:2 type:1 hash:16, of kProducer.
constexpr size_t kMetaKeyBytesMax = 19;
constexpr char kAcksBits = 0;
constexpr char kAcksRun = 1;

// What follows the publish time of a message, in this order. Persisted.
enum MessageFlag : uint8_t {
  kHasGroup = 1 << 0,
  kHasExpiry = 1 << 1,
  kHasDue = 1 << 2,
  kHasPriority = 1 << 3,
  kHasOrigin = 1 << 4,
  kKnownFlags = (1 << 5) - 1,
};

bool HasQueue(MetaType type) {
  switch (type) {
    case MetaType::kAcks:
    case MetaType::kLane:
    case MetaType::kQueue:
    case MetaType::kHistory: return true;
    case MetaType::kBoot:
    case MetaType::kProducer:
    case MetaType::kExchange:
    case MetaType::kBinding: return false;
  }
  return false;
}
bool HasLane(MetaType type) {
  return type == MetaType::kAcks || type == MetaType::kLane || type == MetaType::kHistory;
}
bool HasNumber(MetaType type) {
  return type == MetaType::kAcks || type == MetaType::kHistory || type == MetaType::kExchange ||
         type == MetaType::kBinding;
}
bool HasHash(MetaType type) { return type == MetaType::kProducer; }

std::string EncodeMetaKey(const MetaKey& key) {
  char bytes[kMetaKeyBytesMax];
  char* out = PutBigEndian(key.shard, bytes);
  *out++ = static_cast<char>(key.type);
  if (HasQueue(key.type)) out = PutBigEndian(key.qid, out);
  if (HasLane(key.type)) out = PutBigEndian(key.lane, out);
  if (HasNumber(key.type)) out = PutBigEndian(key.number, out);
  if (HasHash(key.type)) out = std::copy(key.hash.begin(), key.hash.end(), out);
  return std::string(bytes, out - bytes);
}

void WriteOrigin(const Origin& origin, RowWriter& out) {
  SLUICE_CHECK(origin.deaths.size() <= kDeathsMax);
  out.Position(origin.id).U8(static_cast<uint8_t>(origin.deaths.size()));
  for (const Death& death : origin.deaths) {
    out.String(death.queue)
        .U8(static_cast<uint8_t>(death.reason))
        .Fixed(death.count)
        .Fixed(death.attempts)
        .Fixed(death.first_ms)
        .Fixed(death.last_ms)
        .String(death.detail);
  }
}

std::shared_ptr<const Origin> ReadOrigin(RowReader& in) {
  auto origin = std::make_shared<Origin>();
  origin->id = in.Position();
  const auto deaths = in.Fixed<uint8_t>();
  in.Require(deaths <= kDeathsMax);
  for (uint8_t i = 0; i < deaths && in.ok(); ++i) {
    Death& death = origin->deaths.emplace_back();
    death.queue = in.String();
    death.reason = in.Choice(DeathReason::kAttempts, DeathReason::kOverflow);
    death.count = in.Fixed<int32_t>();
    death.attempts = in.Fixed<int32_t>();
    death.first_ms = in.Fixed<int64_t>();
    death.last_ms = in.Fixed<int64_t>();
    death.detail = in.String();
  }
  return origin;
}

}  // namespace

std::array<char, kMessageKeyBytes> MessageKey(const MessagePosition& position) {
  std::array<char, kMessageKeyBytes> key;
  char* out = PutBigEndian(position.shard, key.data());
  out = PutBigEndian(position.qid, out);
  out = PutBigEndian(position.lane, out);
  PutBigEndian(position.seq, out);
  return key;
}

std::optional<MessagePosition> ParseMessageKey(std::string_view key) {
  if (key.size() != kMessageKeyBytes) return std::nullopt;
  return RowReader(key).Position();
}

std::string_view EncodeMessageHeader(const MessageInfo& info, std::string* scratch) {
  uint8_t flags = 0;
  if (info.group_hash != 0) flags |= kHasGroup;
  if (info.expire_ms != 0) flags |= kHasExpiry;
  if (info.due_ms != 0) flags |= kHasDue;
  if (info.priority != kPriorityDefault) flags |= kHasPriority;
  if (info.origin) flags |= kHasOrigin;
  scratch->clear();
  RowWriter out(scratch);
  out.Version().U8(flags).Fixed(info.publish_ms);
  if (flags & kHasGroup) out.Fixed(info.group_hash);
  if (flags & kHasExpiry) out.Fixed(info.expire_ms);
  if (flags & kHasDue) out.Fixed(info.due_ms);
  if (flags & kHasPriority) out.U8(static_cast<uint8_t>(info.priority));
  if (flags & kHasOrigin) WriteOrigin(*info.origin, out);
  return *scratch;
}

absl::StatusOr<MessageValue> ParseMessageValue(std::string_view value) {
  RowReader in(value);
  if (absl::Status status = CheckVersion("message", &in); !status.ok()) return status;
  const auto flags = in.Fixed<uint8_t>();
  in.Require((flags & ~kKnownFlags) == 0);
  MessageValue message;
  MessageInfo& info = message.info;
  info.publish_ms = in.Fixed<int64_t>();
  if (flags & kHasGroup) info.group_hash = in.Fixed<uint64_t>();
  if (flags & kHasExpiry) info.expire_ms = in.Fixed<int64_t>();
  if (flags & kHasDue) info.due_ms = in.Fixed<int64_t>();
  if (flags & kHasPriority) {
    info.priority = in.Fixed<uint8_t>();
    in.Require(info.priority <= kPriorityMax);
  }
  if (in.ok() && (flags & kHasOrigin)) info.origin = ReadOrigin(in);
  if (!in.ok()) return Garbled("message");
  message.wire = in.rest();
  return message;
}

absl::StatusOr<MetaKey> ParseMetaKey(std::string_view key) {
  RowReader in(key);
  MetaKey parsed;
  parsed.shard = in.Fixed<ShardId>();
  parsed.type = static_cast<MetaType>(in.Fixed<uint8_t>());
  switch (parsed.type) {
    case MetaType::kAcks:
    case MetaType::kBoot:
    case MetaType::kProducer:
    case MetaType::kExchange:
    case MetaType::kBinding:
    case MetaType::kLane:
    case MetaType::kQueue:
    case MetaType::kHistory: break;
    default:
      return MakeError(ErrorReason::kDataDamaged, "the store holds a row of an unknown type");
  }
  if (HasQueue(parsed.type)) parsed.qid = in.Fixed<QueueId>();
  if (HasLane(parsed.type)) parsed.lane = in.Fixed<Lane>();
  if (HasNumber(parsed.type)) parsed.number = in.Fixed<uint64_t>();
  if (HasHash(parsed.type)) in.Array8(&parsed.hash);
  if (!in.Done()) return MakeError(ErrorReason::kDataDamaged, "the key of a stored row is garbled");
  return parsed;
}

std::string BootKey(ShardId shard) { return EncodeMetaKey({shard, MetaType::kBoot}); }

std::string QueueKey(ShardId shard, QueueId qid) {
  return EncodeMetaKey({shard, MetaType::kQueue, qid});
}

std::string LaneKey(ShardId shard, QueueId qid, Lane lane) {
  return EncodeMetaKey({shard, MetaType::kLane, qid, lane});
}

std::string AcksKey(ShardId shard, QueueId qid, Lane lane, uint64_t block) {
  return EncodeMetaKey({shard, MetaType::kAcks, qid, lane, block});
}

std::string HistoryKey(const MessagePosition& position) {
  return EncodeMetaKey(
      {position.shard, MetaType::kHistory, position.qid, position.lane, position.seq});
}

std::string ProducerKey(ShardId shard, const Hash128& hash) {
  return EncodeMetaKey({.shard = shard, .type = MetaType::kProducer, .hash = hash});
}

std::string ExchangeKey(ShardId shard, uint64_t number) {
  return EncodeMetaKey({.shard = shard, .type = MetaType::kExchange, .number = number});
}

std::string BindingKey(ShardId shard, uint64_t number) {
  return EncodeMetaKey({.shard = shard, .type = MetaType::kBinding, .number = number});
}

KeyRange MetaRangeOfQueue(ShardId shard, MetaType type, QueueId qid) {
  char bytes[sizeof(ShardId) + 1 + sizeof(QueueId)];
  char* out = PutBigEndian(shard, bytes);
  *out++ = static_cast<char>(type);
  KeyRange range;
  PutBigEndian(qid, out);
  range.begin.assign(bytes, sizeof(bytes));
  if (qid == std::numeric_limits<QueueId>::max()) {
    range.end.assign(bytes, sizeof(ShardId));
    range.end.push_back(static_cast<char>(static_cast<char>(type) + 1));
  } else {
    PutBigEndian(qid + 1, out);
    range.end.assign(bytes, sizeof(bytes));
  }
  return range;
}

std::string EncodeBoot(const BootRow& row) {
  return RowWriter()
      .Version()
      .Fixed(row.format_version)
      .Fixed(row.boot)
      .Fixed(row.lsn)
      .Fixed(row.engine_ms)
      .Fixed(row.next_qid)
      .Fixed(row.next_number)
      .Fixed(row.expiry_cursor_ms)
      .Bool(row.clean_stop)
      .String(row.server_id)
      .Array8(row.receipt_key)
      .Array8(row.hash_key)
      .Take();
}

absl::StatusOr<BootRow> ParseBoot(std::string_view value) {
  RowReader in(value);
  if (absl::Status status = CheckVersion("boot", &in); !status.ok()) return status;
  BootRow row;
  row.format_version = in.Fixed<uint32_t>();
  if (in.ok() && row.format_version != kStoreFormatVersion) {
    return UnknownVersion("boot", row.format_version, kStoreFormatVersion);
  }
  row.boot = in.Fixed<Boot>();
  row.lsn = in.Fixed<Lsn>();
  row.engine_ms = in.Fixed<int64_t>();
  row.next_qid = in.Fixed<QueueId>();
  row.next_number = in.Fixed<uint64_t>();
  row.expiry_cursor_ms = in.Fixed<int64_t>();
  row.clean_stop = in.Bool();
  row.server_id = in.String();
  in.Array8(&row.receipt_key);
  in.Array8(&row.hash_key);
  if (!in.Done()) return Garbled("boot");
  return row;
}

std::string EncodeLane(const LaneRow& row) {
  return RowWriter()
      .Version()
      .Fixed(row.head)
      .Fixed(row.next_seq)
      .Fixed(row.unsettled_bytes)
      .Fixed(row.grant_bound)
      .Take();
}

absl::StatusOr<LaneRow> ParseLane(std::string_view value) {
  RowReader in(value);
  if (absl::Status status = CheckVersion("lane", &in); !status.ok()) return status;
  LaneRow row;
  row.head = in.Fixed<Seq>();
  row.next_seq = in.Fixed<Seq>();
  row.unsettled_bytes = in.Fixed<uint64_t>();
  row.grant_bound = in.Fixed<Seq>();
  if (!in.Done() || row.head > row.next_seq) return Garbled("lane");
  return row;
}

std::string EncodeAcks(const AcksRow& row) {
  RowWriter out;
  out.Version();
  if (row.run > 0) return out.U8(kAcksRun).Fixed(row.run).Take();
  out.U8(kAcksBits);
  for (const uint64_t word : row.bits) out.Fixed(word);
  return out.Take();
}

absl::StatusOr<AcksRow> ParseAcks(std::string_view value) {
  RowReader in(value);
  if (absl::Status status = CheckVersion("acks", &in); !status.ok()) return status;
  AcksRow row;
  const uint8_t kind = in.Fixed<uint8_t>();
  if (kind == kAcksRun) {
    row.run = in.Fixed<uint64_t>();
    if (row.run == 0) return Garbled("acks");
  } else if (kind == kAcksBits) {
    for (uint64_t& word : row.bits) word = in.Fixed<uint64_t>();
  } else {
    return Garbled("acks");
  }
  if (!in.Done()) return Garbled("acks");
  return row;
}

// Version 2 is version 1 of a message that has a due row, version 3 of one that was held.
constexpr uint8_t kHistoryWithDueRow = 2;
constexpr uint8_t kHistoryHeld = 3;

std::string EncodeHistory(const HistoryRow& row) {
  return RowWriter()
      .U8(row.held ? kHistoryHeld : row.has_due_row ? kHistoryWithDueRow : kRowVersion)
      .Fixed(row.boot)
      .Fixed(row.delivery_count)
      .Fixed(row.attempt)
      .Fixed(row.not_before_ms)
      .Fixed(row.lease_until_ms)
      .Fixed(row.size_bytes)
      .Fixed(row.group_hash)
      .Fixed(row.expire_ms)
      .Bool(row.maybe_redelivered)
      .U8(static_cast<uint8_t>(row.death))
      .String(row.detail)
      .Take();
}

absl::StatusOr<HistoryRow> ParseHistory(std::string_view value) {
  RowReader in(value);
  const auto version = in.Fixed<uint8_t>();
  if (!in.ok()) return Garbled("history");
  if (version < kRowVersion || version > kHistoryHeld) {
    return UnknownVersion("history", version, kHistoryHeld);
  }
  HistoryRow row;
  row.held = version == kHistoryHeld;
  row.has_due_row = version == kHistoryWithDueRow;
  row.boot = in.Fixed<Boot>();
  row.delivery_count = in.Fixed<uint32_t>();
  row.attempt = in.Fixed<int32_t>();
  row.not_before_ms = in.Fixed<int64_t>();
  row.lease_until_ms = in.Fixed<int64_t>();
  row.size_bytes = in.Fixed<uint32_t>();
  row.group_hash = in.Fixed<uint64_t>();
  row.expire_ms = in.Fixed<int64_t>();
  row.maybe_redelivered = in.Bool();
  row.death = in.Choice(DeathReason::kUnspecified, DeathReason::kOverflow);
  row.detail = in.String();
  if (!in.Done()) return Garbled("history");
  return row;
}

std::string EncodeProducer(const ProducerRow& row) {
  return RowWriter().Version().Fixed(row.last_sequence).Fixed(row.update_ms).Take();
}

absl::StatusOr<ProducerRow> ParseProducer(std::string_view value) {
  RowReader in(value);
  if (absl::Status status = CheckVersion("producer", &in); !status.ok()) return status;
  ProducerRow row;
  row.last_sequence = in.Fixed<int64_t>();
  row.update_ms = in.Fixed<int64_t>();
  if (!in.Done()) return Garbled("producer");
  return row;
}

}  // namespace sluice::storage
