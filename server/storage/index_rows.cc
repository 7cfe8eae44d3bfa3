// Rows of Family::kIndex.
#include <utility>

#include "server/storage/row_codec.h"
#include "server/storage/rows.h"

namespace sluice::storage {
namespace {

constexpr char kEmptyValue[] = {static_cast<char>(kRowVersion)};

RowWriter& Begin(ShardId shard, IndexType type, RowWriter& out) {
  return out.Fixed(shard).U8(static_cast<uint8_t>(type));
}

}  // namespace

std::string DueKey(const MessagePosition& position, int64_t due_ms) {
  RowWriter out;
  Begin(position.shard, IndexType::kDue, out)
      .Fixed(position.qid)
      .Fixed(position.lane)
      .Fixed(due_ms)
      .Fixed(position.seq);
  return out.Take();
}

std::string ExpiryKey(const MessagePosition& position, int64_t expire_ms) {
  RowWriter out;
  Begin(position.shard, IndexType::kExpiry, out)
      .Fixed(expire_ms)
      .Fixed(position.qid)
      .Fixed(position.lane)
      .Fixed(position.seq);
  return out.Take();
}

std::string GroupKey(const MessagePosition& position, uint64_t group_hash) {
  RowWriter out;
  Begin(position.shard, IndexType::kGroup, out)
      .Fixed(position.qid)
      .Fixed(position.lane)
      .Fixed(group_hash)
      .Fixed(position.seq);
  return out.Take();
}

std::string IdKey(ShardId shard, QueueId qid, const MessagePosition& id) {
  RowWriter out;
  Begin(shard, IndexType::kId, out).Fixed(qid).Position(id);
  return out.Take();
}

std::string DedupKey(ShardId shard, QueueId qid, const Hash128& hash) {
  RowWriter out;
  Begin(shard, IndexType::kDedup, out).Fixed(qid).Array8(hash);
  return out.Take();
}

absl::StatusOr<IndexKey> ParseIndexKey(std::string_view key) {
  RowReader in(key);
  IndexKey parsed;
  MessagePosition& at = parsed.position;
  at.shard = in.Fixed<ShardId>();
  parsed.type = static_cast<IndexType>(in.Fixed<uint8_t>());
  switch (parsed.type) {
    case IndexType::kDue:
      at.qid = in.Fixed<QueueId>();
      at.lane = in.Fixed<Lane>();
      parsed.time_ms = in.Fixed<int64_t>();
      at.seq = in.Fixed<Seq>();
      break;
    case IndexType::kExpiry:
      parsed.time_ms = in.Fixed<int64_t>();
      at.qid = in.Fixed<QueueId>();
      at.lane = in.Fixed<Lane>();
      at.seq = in.Fixed<Seq>();
      break;
    case IndexType::kGroup:
      at.qid = in.Fixed<QueueId>();
      at.lane = in.Fixed<Lane>();
      parsed.group_hash = in.Fixed<uint64_t>();
      at.seq = in.Fixed<Seq>();
      break;
    case IndexType::kId:
      at.qid = in.Fixed<QueueId>();
      parsed.id = in.Position();
      break;
    case IndexType::kDedup:
      at.qid = in.Fixed<QueueId>();
      in.Array8(&parsed.hash);
      break;
    default:
      return MakeError(ErrorReason::kDataDamaged, "the index holds a row of an unknown type");
  }
  if (!in.Done()) return MakeError(ErrorReason::kDataDamaged, "the key of an index row is garbled");
  return parsed;
}

std::string_view EmptyIndexValue() { return {kEmptyValue, sizeof(kEmptyValue)}; }

std::string EncodeId(const IdRow& row) {
  return RowWriter().Version().Fixed(row.lane).Fixed(row.seq).Take();
}

absl::StatusOr<IdRow> ParseId(std::string_view value) {
  RowReader in(value);
  if (absl::Status status = CheckVersion("id", &in); !status.ok()) return status;
  IdRow row;
  row.lane = in.Fixed<Lane>();
  row.seq = in.Fixed<Seq>();
  if (!in.Done()) return Garbled("id");
  return row;
}

std::string EncodeDedup(const DedupRow& row) {
  return RowWriter().Version().Position(row.id).Fixed(row.expire_ms).Take();
}

absl::StatusOr<DedupRow> ParseDedup(std::string_view value) {
  RowReader in(value);
  if (absl::Status status = CheckVersion("dedup", &in); !status.ok()) return status;
  DedupRow row;
  row.id = in.Position();
  row.expire_ms = in.Fixed<int64_t>();
  if (!in.Done()) return Garbled("dedup");
  return row;
}

}  // namespace sluice::storage
