#include "server/storage/batch.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/strings.h"
#include "server/model/big_endian.h"
#include "server/model/error.h"

namespace sluice::storage {
namespace {

// Numbers are persisted.
enum Op : uint8_t { kOpPut = 1, kOpDelete = 2, kOpDeleteRange = 3 };

constexpr size_t kRowsOffset = Batch::kHeaderBytes - sizeof(uint32_t);

void AppendLength(uint64_t length, std::string* out) {
  SLUICE_CHECK(length <= std::numeric_limits<uint32_t>::max());
  char bytes[sizeof(uint32_t)];
  PutBigEndian(static_cast<uint32_t>(length), bytes);
  out->append(bytes, sizeof(bytes));
}

bool TakeString(std::string_view* in, std::string_view* out) {
  if (in->size() < sizeof(uint32_t)) return false;
  const uint32_t length = GetBigEndian<uint32_t>(in->data());
  in->remove_prefix(sizeof(uint32_t));
  if (in->size() < length) return false;
  *out = in->substr(0, length);
  in->remove_prefix(length);
  return true;
}

absl::Status Garbled(std::string_view what) {
  return MakeError(ErrorReason::kDataDamaged, absl::StrCat("a batch of the log ", ToAbsl(what)));
}

}  // namespace

Batch::Batch(size_t bytes_expected) {
  record_.reserve(std::max(bytes_expected, kHeaderBytes));
  record_.resize(kHeaderBytes);
  SetHeader(header_);
}

void Batch::Begin(uint8_t op, Family family) {
  ++rows_;
  PutBigEndian(rows_, record_.data() + kRowsOffset);
  record_.push_back(static_cast<char>(op));
  record_.push_back(static_cast<char>(family));
}

void Batch::Put(Family family, std::string_view key, std::string_view value) {
  Put(family, key, {value});
}

void Batch::Put(Family family, std::string_view key,
                std::initializer_list<std::string_view> value) {
  size_t value_bytes = 0;
  for (const std::string_view part : value) value_bytes += part.size();
  Begin(kOpPut, family);
  AppendLength(key.size(), &record_);
  record_.append(key);
  AppendLength(value_bytes, &record_);
  for (const std::string_view part : value) record_.append(part);
  if (family == Family::kMessages) ++messages_;
}

void Batch::Delete(Family family, std::string_view key) {
  // A tombstone there would outlive the file that DeleteFilesInRange drops above it.
  SLUICE_CHECK(family != Family::kMessages);
  Begin(kOpDelete, family);
  AppendLength(key.size(), &record_);
  record_.append(key);
}

void Batch::DeleteMetaRange(std::string_view begin, std::string_view end) {
  SLUICE_CHECK(begin <= end);
  Begin(kOpDeleteRange, Family::kMeta);
  AppendLength(begin.size(), &record_);
  record_.append(begin);
  AppendLength(end.size(), &record_);
  record_.append(end);
}

void Batch::SetHeader(const BatchHeader& header) {
  header_ = header;
  char* out = record_.data();
  *out++ = static_cast<char>(kFormatVersion);
  out = PutBigEndian(header.shard, out);
  out = PutBigEndian(header.term, out);
  out = PutBigEndian(header.lsn, out);
  out = PutBigEndian(static_cast<uint64_t>(header.log_time_ms), out);
  out = PutBigEndian(header.durable_lsn, out);
  PutBigEndian(rows_, out);
}

absl::Status Batch::ReadHeader(std::string_view record, BatchHeader* header) {
  if (record.size() < kHeaderBytes) return Garbled("is shorter than its header");
  const char* in = record.data();
  const uint8_t version = static_cast<uint8_t>(*in++);
  if (version != kFormatVersion) {
    return MakeError(ErrorReason::kDataDamaged,
                     absl::StrCat("a batch of the log has format version ", version,
                                  "; this server knows version ", kFormatVersion));
  }
  header->shard = GetBigEndian<ShardId>(in);
  in += sizeof(ShardId);
  header->term = GetBigEndian<uint64_t>(in);
  in += sizeof(uint64_t);
  header->lsn = GetBigEndian<Lsn>(in);
  in += sizeof(Lsn);
  header->log_time_ms = static_cast<int64_t>(GetBigEndian<uint64_t>(in));
  in += sizeof(uint64_t);
  header->durable_lsn = GetBigEndian<Lsn>(in);
  return absl::OkStatus();
}

absl::Status Batch::Visit(std::string_view record, BatchHeader* header, Visitor* visitor) {
  if (absl::Status status = ReadHeader(record, header); !status.ok()) return status;
  const uint32_t rows = GetBigEndian<uint32_t>(record.data() + kRowsOffset);
  std::string_view in = record.substr(kHeaderBytes);
  for (uint32_t row = 0; row < rows; ++row) {
    if (in.size() < 2) return Garbled("is cut short");
    const auto op = static_cast<uint8_t>(in[0]);
    const auto family = static_cast<Family>(in[1]);
    in.remove_prefix(2);
    if (family != Family::kMessages && family != Family::kMeta && family != Family::kIndex) {
      return Garbled("names an unknown family");
    }
    if (op < kOpPut || op > kOpDeleteRange) return Garbled("holds an unknown operation");
    std::string_view first;
    std::string_view second;
    if (!TakeString(&in, &first) || (op != kOpDelete && !TakeString(&in, &second))) {
      return Garbled("is cut short");
    }
    if (op != kOpPut && family == Family::kMessages) return Garbled("deletes messages");
    if (op == kOpDeleteRange && family != Family::kMeta) return Garbled("deletes part of an index");
    if (op == kOpPut) {
      visitor->OnPut(family, first, second);
    } else if (op == kOpDelete) {
      visitor->OnDelete(family, first);
    } else {
      visitor->OnDeleteMetaRange(first, second);
    }
  }
  if (!in.empty()) return Garbled("has bytes behind its last row");
  return absl::OkStatus();
}

}  // namespace sluice::storage
