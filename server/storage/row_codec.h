// How rows are written and read: shared by rows.cc, config_rows.cc and index_rows.cc only.
#ifndef SLUICE_SERVER_STORAGE_ROW_CODEC_H_
#define SLUICE_SERVER_STORAGE_ROW_CODEC_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/base/strings.h"
#include "server/model/big_endian.h"
#include "server/model/error.h"
#include "server/model/ids.h"

namespace sluice::storage {

// First byte of every value. A kind of row gets its own number when its bytes change.
inline constexpr uint8_t kRowVersion = 1;

inline absl::Status Garbled(std::string_view what) {
  return MakeError(ErrorReason::kDataDamaged,
                   absl::StrCat("a stored ", ToAbsl(what), " row is garbled"));
}

inline absl::Status UnknownVersion(std::string_view what, uint64_t version, uint64_t known) {
  return absl::FailedPreconditionError(
      absl::StrCat("a stored ", ToAbsl(what), " row has format version ", version,
                   "; this server reads version ", known,
                   ": start the server version that wrote this data"));
}

// Appends to a string of its own, or to the caller's.
class RowWriter {
 public:
  RowWriter() : out_(&own_) {}
  explicit RowWriter(std::string* out) : out_(out) {}
  RowWriter(const RowWriter&) = delete;
  RowWriter& operator=(const RowWriter&) = delete;

  RowWriter& Version() { return U8(kRowVersion); }
  template <typename T>
  RowWriter& Fixed(T value) {
    char bytes[sizeof(T)];
    PutBigEndian(static_cast<std::make_unsigned_t<T>>(value), bytes);
    out_->append(bytes, sizeof(bytes));
    return *this;
  }
  RowWriter& U8(uint8_t value) { return Fixed(value); }
  RowWriter& Bool(bool value) { return U8(value ? 1 : 0); }
  RowWriter& Bytes(std::string_view bytes) {
    out_->append(bytes);
    return *this;
  }
  template <typename Array>
  RowWriter& Array8(const Array& bytes) {
    return Bytes({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  RowWriter& String(std::string_view bytes) {
    Fixed(static_cast<uint32_t>(bytes.size()));
    return Bytes(bytes);
  }
  template <typename Map>
  RowWriter& Texts(const Map& map) {
    Fixed(static_cast<uint32_t>(map.size()));
    for (const auto& [name, value] : map) String(name).String(value);
    return *this;
  }
  RowWriter& Position(const MessagePosition& position) {
    return Fixed(position.shard).Fixed(position.qid).Fixed(position.lane).Fixed(position.seq);
  }
  std::string Take() { return std::move(own_); }

 private:
  std::string own_;
  std::string* const out_;
};

// Reads past the end give zeros and make Done() false, so that a parser checks once, at the end.
class RowReader {
 public:
  explicit RowReader(std::string_view in) : in_(in) {}

  template <typename T>
  T Fixed() {
    if (in_.size() < sizeof(T)) return Fail<T>();
    const auto value = GetBigEndian<std::make_unsigned_t<T>>(in_.data());
    in_.remove_prefix(sizeof(T));
    return static_cast<T>(value);
  }
  bool Bool() {
    const auto value = Fixed<uint8_t>();
    Require(value <= 1);
    return value == 1;
  }
  // A number of an enum whose values run from `first` to `last`.
  template <typename Enum>
  Enum Choice(Enum first, Enum last) {
    const auto value = Fixed<uint8_t>();
    Require(value >= static_cast<uint8_t>(first) && value <= static_cast<uint8_t>(last));
    return static_cast<Enum>(value);
  }
  std::string_view Bytes(size_t size) {
    if (in_.size() < size) return Fail<std::string_view>();
    const std::string_view bytes = in_.substr(0, size);
    in_.remove_prefix(size);
    return bytes;
  }
  template <typename Array>
  void Array8(Array* out) {
    const std::string_view bytes = Bytes(out->size());
    for (size_t i = 0; i < bytes.size(); ++i) (*out)[i] = static_cast<uint8_t>(bytes[i]);
  }
  std::string_view String() { return Bytes(Fixed<uint32_t>()); }
  template <typename Map>
  void Texts(Map* out) {
    const auto count = Fixed<uint32_t>();
    for (uint32_t i = 0; i < count && ok_; ++i) {
      std::string name(String());
      Require(out->insert_or_assign(std::move(name), std::string(String())).second);
    }
  }
  MessagePosition Position() {
    MessagePosition position;
    position.shard = Fixed<ShardId>();
    position.qid = Fixed<QueueId>();
    position.lane = Fixed<Lane>();
    position.seq = Fixed<Seq>();
    return position;
  }
  // False makes the row garbled.
  void Require(bool holds) { ok_ = ok_ && holds; }
  std::string_view rest() const { return in_; }
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

inline absl::Status CheckVersion(std::string_view what, RowReader* in) {
  const auto version = in->Fixed<uint8_t>();
  if (!in->ok()) return Garbled(what);
  if (version != kRowVersion) return UnknownVersion(what, version, kRowVersion);
  return absl::OkStatus();
}

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_ROW_CODEC_H_
