#include "server/storage/rows.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/strings.h"
#include "server/model/big_endian.h"
#include "server/model/error.h"

namespace sluice::storage {
namespace {

// First byte of every value. A kind of row gets its own number when its bytes change.
constexpr uint8_t kRowVersion = 1;
constexpr size_t kMetaKeyBytesMax = 16;
constexpr char kAcksBits = 0;
constexpr char kAcksRun = 1;

absl::Status Garbled(std::string_view what) {
  return MakeError(ErrorReason::kDataDamaged,
                   absl::StrCat("a stored ", ToAbsl(what), " row is garbled"));
}

absl::Status UnknownVersion(std::string_view what, uint64_t version, uint64_t known) {
  return absl::FailedPreconditionError(
      absl::StrCat("a stored ", ToAbsl(what), " row has format version ", version,
                   "; this server reads up to version ", known,
                   ": start the server version that wrote this data, or a later one"));
}

class Writer {
 public:
  Writer() { U8(kRowVersion); }

  template <typename T>
  Writer& Fixed(T value) {
    char bytes[sizeof(T)];
    PutBigEndian(static_cast<std::make_unsigned_t<T>>(value), bytes);
    out_.append(bytes, sizeof(bytes));
    return *this;
  }
  Writer& U8(uint8_t value) { return Fixed(value); }
  Writer& Bytes(std::string_view bytes) {
    out_.append(bytes);
    return *this;
  }
  Writer& String(std::string_view bytes) {
    Fixed(static_cast<uint32_t>(bytes.size()));
    return Bytes(bytes);
  }
  std::string Take() { return std::move(out_); }

 private:
  std::string out_;
};

// Reads past the end give zeros and make Done() false, so that a parser checks once, at the end.
class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}

  template <typename T>
  T Fixed() {
    if (in_.size() < sizeof(T)) return Fail<T>();
    const auto value = GetBigEndian<std::make_unsigned_t<T>>(in_.data());
    in_.remove_prefix(sizeof(T));
    return static_cast<T>(value);
  }
  std::string_view Bytes(size_t size) {
    if (in_.size() < size) return Fail<std::string_view>();
    const std::string_view bytes = in_.substr(0, size);
    in_.remove_prefix(size);
    return bytes;
  }
  std::string_view String() { return Bytes(Fixed<uint32_t>()); }
  bool ok() const { return ok_; }
  bool Done() const { return ok_ && in_.empty(); }

 private:
  template <typename T>
  T Fail() {
    ok_ = false;
    in_ = {};
    return T();
  }
  std::string_view in_;
  bool ok_ = true;
};

absl::Status CheckVersion(std::string_view what, Reader* in) {
  const uint8_t version = in->Fixed<uint8_t>();
  if (!in->ok()) return Garbled(what);
  if (version != kRowVersion) return UnknownVersion(what, version, kRowVersion);
  return absl::OkStatus();
}

bool HasQueue(MetaType type) { return type != MetaType::kBoot; }
bool HasLane(MetaType type) {
  return type == MetaType::kAcks || type == MetaType::kLane || type == MetaType::kHistory;
}
bool HasNumber(MetaType type) { return type == MetaType::kAcks || type == MetaType::kHistory; }

std::string EncodeMetaKey(const MetaKey& key) {
  char bytes[kMetaKeyBytesMax];
  char* out = PutBigEndian(key.shard, bytes);
  *out++ = static_cast<char>(key.type);
  if (HasQueue(key.type)) out = PutBigEndian(key.qid, out);
  if (HasLane(key.type)) out = PutBigEndian(key.lane, out);
  if (HasNumber(key.type)) out = PutBigEndian(key.number, out);
  return std::string(bytes, out - bytes);
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
  Reader in(key);
  MessagePosition position;
  position.shard = in.Fixed<ShardId>();
  position.qid = in.Fixed<QueueId>();
  position.lane = in.Fixed<Lane>();
  position.seq = in.Fixed<Seq>();
  return position;
}

std::array<char, kMessageHeaderBytes> MessageHeader(int64_t publish_ms) {
  std::array<char, kMessageHeaderBytes> header;
  header[0] = static_cast<char>(kRowVersion);
  header[1] = 0;  // no flag is defined yet
  PutBigEndian(static_cast<uint64_t>(publish_ms), header.data() + 2);
  return header;
}

absl::StatusOr<MessageValue> ParseMessageValue(std::string_view value) {
  if (value.size() < kMessageHeaderBytes) return Garbled("message");
  const auto version = static_cast<uint8_t>(value[0]);
  if (version != kRowVersion) return UnknownVersion("message", version, kRowVersion);
  if (value[1] != 0) return Garbled("message");
  return MessageValue{static_cast<int64_t>(GetBigEndian<uint64_t>(value.data() + 2)),
                      value.substr(kMessageHeaderBytes)};
}

absl::StatusOr<MetaKey> ParseMetaKey(std::string_view key) {
  Reader in(key);
  MetaKey parsed;
  parsed.shard = in.Fixed<ShardId>();
  parsed.type = static_cast<MetaType>(in.Fixed<uint8_t>());
  switch (parsed.type) {
    case MetaType::kAcks:
    case MetaType::kBoot:
    case MetaType::kLane:
    case MetaType::kQueue:
    case MetaType::kHistory: break;
    default:
      return MakeError(ErrorReason::kDataDamaged, "the store holds a row of an unknown type");
  }
  if (HasQueue(parsed.type)) parsed.qid = in.Fixed<QueueId>();
  if (HasLane(parsed.type)) parsed.lane = in.Fixed<Lane>();
  if (HasNumber(parsed.type)) parsed.number = in.Fixed<uint64_t>();
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
  return Writer()
      .Fixed(row.format_version)
      .Fixed(row.boot)
      .Fixed(row.lsn)
      .Fixed(row.engine_ms)
      .Fixed(row.next_qid)
      .U8(row.clean_stop ? 1 : 0)
      .String(row.server_id)
      .Bytes({reinterpret_cast<const char*>(row.receipt_key.data()), row.receipt_key.size()})
      .Take();
}

absl::StatusOr<BootRow> ParseBoot(std::string_view value) {
  Reader in(value);
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
  const uint8_t clean_stop = in.Fixed<uint8_t>();
  row.clean_stop = clean_stop != 0;
  row.server_id = in.String();
  const std::string_view key = in.Bytes(row.receipt_key.size());
  if (!in.Done() || clean_stop > 1) return Garbled("boot");
  std::copy(key.begin(), key.end(), row.receipt_key.begin());
  return row;
}

std::string EncodeQueue(const QueueRow& row) {
  Writer out;
  out.Fixed(row.create_ms)
      .Fixed(row.update_ms)
      .Fixed(row.revision)
      .String(row.config.name)
      .Fixed(row.config.lease_ms)
      .Fixed(row.config.retry.min_backoff_ms)
      .Fixed(row.config.retry.max_backoff_ms)
      .Fixed(static_cast<uint32_t>(row.config.labels.size()));
  for (const auto& [name, value] : row.config.labels) out.String(name).String(value);
  return out.Take();
}

absl::StatusOr<QueueRow> ParseQueue(std::string_view value) {
  Reader in(value);
  if (absl::Status status = CheckVersion("queue", &in); !status.ok()) return status;
  QueueRow row;
  row.create_ms = in.Fixed<int64_t>();
  row.update_ms = in.Fixed<int64_t>();
  row.revision = in.Fixed<uint64_t>();
  row.config.name = in.String();
  row.config.lease_ms = in.Fixed<int64_t>();
  row.config.retry.min_backoff_ms = in.Fixed<int64_t>();
  row.config.retry.max_backoff_ms = in.Fixed<int64_t>();
  const auto labels = in.Fixed<uint32_t>();
  for (uint32_t i = 0; i < labels && in.ok(); ++i) {
    std::string name(in.String());
    row.config.labels.insert_or_assign(std::move(name), std::string(in.String()));
  }
  if (!in.Done()) return Garbled("queue");
  return row;
}

std::string EncodeLane(const LaneRow& row) {
  return Writer()
      .Fixed(row.head)
      .Fixed(row.next_seq)
      .Fixed(row.unsettled_bytes)
      .Fixed(row.grant_bound)
      .Take();
}

absl::StatusOr<LaneRow> ParseLane(std::string_view value) {
  Reader in(value);
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
  Writer out;
  if (row.run > 0) return out.U8(kAcksRun).Fixed(row.run).Take();
  out.U8(kAcksBits);
  for (const uint64_t word : row.bits) out.Fixed(word);
  return out.Take();
}

absl::StatusOr<AcksRow> ParseAcks(std::string_view value) {
  Reader in(value);
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

std::string EncodeHistory(const HistoryRow& row) {
  return Writer()
      .Fixed(row.boot)
      .Fixed(row.delivery_count)
      .Fixed(row.attempt)
      .Fixed(row.not_before_ms)
      .Fixed(row.lease_until_ms)
      .Fixed(row.size_bytes)
      .Take();
}

absl::StatusOr<HistoryRow> ParseHistory(std::string_view value) {
  Reader in(value);
  if (absl::Status status = CheckVersion("history", &in); !status.ok()) return status;
  HistoryRow row;
  row.boot = in.Fixed<Boot>();
  row.delivery_count = in.Fixed<uint32_t>();
  row.attempt = in.Fixed<int32_t>();
  row.not_before_ms = in.Fixed<int64_t>();
  row.lease_until_ms = in.Fixed<int64_t>();
  row.size_bytes = in.Fixed<uint32_t>();
  if (!in.Done()) return Garbled("history");
  return row;
}

}  // namespace sluice::storage
