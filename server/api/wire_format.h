// What of protobuf's wire format is read and written by hand, where parsing whole messages would
// cost too much.
#ifndef SLUICE_SERVER_API_WIRE_FORMAT_H_
#define SLUICE_SERVER_API_WIRE_FORMAT_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/model/error.h"

namespace sluice::api {

enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };
inline constexpr uint32_t kWireTypeBits = 3;

// What stands before a field.
constexpr uint32_t MakeTag(uint32_t field, WireType type) { return field << kWireTypeBits | type; }
constexpr uint32_t FieldOfTag(uint32_t tag) { return tag >> kWireTypeBits; }
constexpr uint32_t WireTypeOfTag(uint32_t tag) { return tag & ((1u << kWireTypeBits) - 1); }

// The same for fields 1 to 15, whose tags have one byte.
constexpr char ShortTag(uint32_t field, WireType type) {
  return static_cast<char>(MakeTag(field, type));
}

inline constexpr size_t kVarintBytesMax = 10;
inline size_t VarintBytes(uint64_t value) {
  size_t bytes = 1;
  while (value >= 0x80) {
    value >>= 7;
    ++bytes;
  }
  return bytes;
}

inline char* PutVarint(uint64_t value, char* out) {
  while (value >= 0x80) {
    *out++ = static_cast<char>(value | 0x80);
    value >>= 7;
  }
  *out++ = static_cast<char>(value);
  return out;
}

inline absl::Status MalformedRequest() {
  return MakeError(ErrorReason::kInvalidField, "the request is not well-formed protobuf");
}

// Of a field that this version does not know.
inline absl::Status UnknownField(uint32_t tag) {
  return MakeNotBuiltError(absl::StrCat("field ", FieldOfTag(tag), " of the request"));
}

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_WIRE_FORMAT_H_
