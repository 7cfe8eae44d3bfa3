#include "server/api/message_check.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "server/api/utf8.h"
#include "server/base/strings.h"
#include "server/model/error.h"
#include "server/model/ids.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };

// Field numbers of sluice.v1.Message.
enum MessageField : uint32_t {
  kBody = 1,
  kAttributes = 2,
  kRoutingKey = 3,
  kContentType = 4,
  kPriority = 5,
  kGroup = 6,
  kDelay = 7,
  kDeliverAt = 8,
  kTtl = 9,
  kDedupId = 10,
  kCorrelationId = 11,
  kReplyTo = 12,
  kId = 13,
  kPublishTime = 14,
  kExchange = 16,
};

// Reads wire format from contiguous bytes. Every method is false at malformed or cut input.
class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : begin_(bytes.data()), rest_(bytes) {}

  bool done() const { return rest_.empty(); }
  uint32_t offset() const { return static_cast<uint32_t>(rest_.data() - begin_); }

  bool ReadVarint(uint64_t* value) {
    uint64_t result = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      result |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) {
        *value = result;
        return true;
      }
    }
    return false;
  }
  bool ReadTag(uint32_t* field, uint32_t* type) {
    uint64_t tag;
    if (!ReadVarint(&tag) || tag > UINT32_MAX || (tag >> 3) == 0) return false;
    *field = static_cast<uint32_t>(tag >> 3);
    *type = static_cast<uint32_t>(tag & 7);
    return true;
  }
  bool ReadBytes(std::string_view* bytes) {
    uint64_t length;
    if (!ReadVarint(&length) || length > rest_.size()) return false;
    *bytes = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return true;
  }

 private:
  const char* const begin_;
  std::string_view rest_;
};

std::string Path(int64_t index, const char* field) {
  return absl::StrCat("messages[", index, "].", field);
}

absl::Status Malformed(int64_t index) {
  return MakeFieldError(absl::StrCat("messages[", index, "]"), "malformed");
}

absl::Status CheckString(int64_t index, const char* field, std::string_view text,
                         size_t bytes_max) {
  if (text.size() > bytes_max) {
    return MakeFieldError(Path(index, field), absl::StrCat("longer than ", bytes_max, " bytes"));
  }
  if (!IsUtf8(text)) return MakeFieldError(Path(index, field), "not valid UTF-8");
  return absl::OkStatus();
}

// The running total of one message's attributes.
struct AttributeCount {
  int entries = 0;
  int64_t bytes = 0;
};

absl::Status CheckAttribute(int64_t index, std::string_view entry, AttributeCount* count) {
  WireReader reader(entry);
  std::string_view key_and_value[2];
  while (!reader.done()) {
    uint32_t field, type;
    if (!reader.ReadTag(&field, &type) || field > 2 || type != kLengthDelimited ||
        !reader.ReadBytes(&key_and_value[field - 1])) {
      return Malformed(index);
    }
    if (!IsUtf8(key_and_value[field - 1])) {
      return MakeFieldError(Path(index, "attributes"), "not valid UTF-8");
    }
  }
  if (++count->entries > kAttributesMax) {
    return MakeFieldError(Path(index, "attributes"), absl::StrCat("more than ", kAttributesMax));
  }
  count->bytes += static_cast<int64_t>(key_and_value[0].size() + key_and_value[1].size());
  if (count->bytes > kAttributesBytesMax) {
    return MakeFieldError(
        Path(index, "attributes"),
        absl::StrCat("keys and values together over ", kAttributesBytesMax, " bytes"));
  }
  return absl::OkStatus();
}

absl::Status CheckPriority(int64_t index, uint64_t value) {
  const auto priority = static_cast<int32_t>(value);  // protobuf cuts an int32 in the same way
  if (priority < kPriorityMin || priority > kPriorityMax) {
    return MakeFieldError(Path(index, "priority"),
                          absl::StrCat("must be ", kPriorityMin, " to ", kPriorityMax));
  }
  if (priority != kPriorityDefault) return MakeNotBuiltError(Path(index, "priority"));
  return absl::OkStatus();
}

absl::Status NotBuiltUnlessEmpty(int64_t index, const char* field, std::string_view text) {
  return text.empty() ? absl::OkStatus() : MakeNotBuiltError(Path(index, field));
}

absl::Status CheckBytesField(int64_t index, uint32_t field, std::string_view value,
                             int64_t body_bytes_max, AttributeCount* attributes) {
  switch (field) {
    case kBody:
      if (static_cast<int64_t>(value.size()) > body_bytes_max) {
        return MakeFieldError(Path(index, "body"),
                              absl::StrCat("larger than ", body_bytes_max, " bytes"),
                              ErrorReason::kMessageTooLarge);
      }
      return absl::OkStatus();
    case kAttributes: return CheckAttribute(index, value, attributes);
    case kRoutingKey: return CheckString(index, "routing_key", value, kShortStringBytesMax);
    case kContentType: return CheckString(index, "content_type", value, kShortStringBytesMax);
    case kCorrelationId: return CheckString(index, "correlation_id", value, kShortStringBytesMax);
    case kReplyTo: return CheckString(index, "reply_to", value, kNameBytesMax);
    case kGroup: return NotBuiltUnlessEmpty(index, "group", value);
    case kDedupId: return NotBuiltUnlessEmpty(index, "dedup_id", value);
    case kDelay: return MakeNotBuiltError(Path(index, "delay"));
    case kDeliverAt: return MakeNotBuiltError(Path(index, "deliver_at"));
    case kTtl: return MakeNotBuiltError(Path(index, "ttl"));
  }
  return Malformed(index);
}

bool IsKnown(uint32_t field) { return field <= kPublishTime || field == kExchange; }

}  // namespace

absl::Status CheckMessage(std::string_view bytes, int64_t index, int64_t body_bytes_max,
                          CheckedMessage* out) {
  if (static_cast<int64_t>(bytes.size()) > body_bytes_max + kEnvelopeBytesMax) {
    return MakeFieldError(absl::StrCat("messages[", index, "]"),
                          absl::StrCat("larger than ", body_bytes_max + kEnvelopeBytesMax,
                                       " bytes in all"),
                          ErrorReason::kMessageTooLarge);
  }
  WireReader reader(bytes);
  AttributeCount attributes;
  while (!reader.done()) {
    const uint32_t begin = reader.offset();
    uint32_t field, type;
    if (!reader.ReadTag(&field, &type)) return Malformed(index);
    if (!IsKnown(field)) return MakeNotBuiltError(Path(index, absl::StrCat(field).c_str()));
    if (field == kPriority) {
      uint64_t value;
      if (type != kVarint || !reader.ReadVarint(&value)) return Malformed(index);
      if (auto status = CheckPriority(index, value); !status.ok()) return status;
      continue;
    }
    std::string_view value;
    if (type != kLengthDelimited || !reader.ReadBytes(&value)) return Malformed(index);
    if (field == kId || field == kPublishTime || field == kExchange) {
      out->server_fields.push_back({begin, reader.offset()});
      continue;
    }
    if (auto status = CheckBytesField(index, field, value, body_bytes_max, &attributes);
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice::api
