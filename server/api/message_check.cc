#include "server/api/message_check.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/field_checks.h"
#include "server/api/utf8.h"
#include "server/api/wire_format.h"
#include "server/base/strings.h"
#include "server/model/error.h"
#include "server/model/ids.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

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

// Protocol Buffers reads no more of a tag or a length, whatever they amount to.
constexpr int kShortVarintBytesMax = 5;

// Reads wire format from contiguous bytes. Every method is false at malformed or cut input: also at
// what only some parsers take, since consumers in all languages get what is stored.
class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : begin_(bytes.data()), rest_(bytes) {}

  bool done() const { return rest_.empty(); }
  uint32_t offset() const { return static_cast<uint32_t>(rest_.data() - begin_); }

  bool ReadVarint(uint64_t* value, int bytes_max = kVarintBytesMax) {
    uint64_t result = 0;
    for (int shift = 0; shift < 7 * bytes_max && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      if (shift == 63 && byte > 1) return false;  // more than 64 bits
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
    if (!ReadVarint(&tag, kShortVarintBytesMax) || tag > UINT32_MAX ||
        FieldOfTag(static_cast<uint32_t>(tag)) == 0) {
      return false;
    }
    *field = FieldOfTag(static_cast<uint32_t>(tag));
    *type = WireTypeOfTag(static_cast<uint32_t>(tag));
    return true;
  }
  bool ReadBytes(std::string_view* bytes) {
    uint64_t length;
    if (!ReadVarint(&length, kShortVarintBytesMax) || length > rest_.size()) return false;
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

// A Duration or a Timestamp, which look alike on the wire. Where a field comes twice its parts are
// merged, as protobuf has it.
struct WireTime {
  bool set = false;
  int64_t seconds = 0;
  int32_t nanos = 0;

  bool Merge(std::string_view bytes) {
    set = true;
    WireReader reader(bytes);
    while (!reader.done()) {
      uint32_t field, type;
      uint64_t value;
      if (!reader.ReadTag(&field, &type) || field > 2 || type != kVarint ||
          !reader.ReadVarint(&value)) {
        return false;
      }
      if (field == 1) seconds = static_cast<int64_t>(value);
      if (field == 2) nanos = static_cast<int32_t>(value);
    }
    return true;
  }
};

// Reads one message field by field; Finish makes the options of what was found.
class MessageChecker {
 public:
  MessageChecker(int64_t index, bool routed, const MessageRules& rules)
      : index_(index), routed_(routed), rules_(rules) {}

  absl::Status CheckBytesField(uint32_t field, std::string_view value);
  absl::Status CheckPriority(uint64_t value, int* out) const;
  absl::Status Finish(std::unique_ptr<broker::MessageOptions>* out);

 private:
  absl::Status CheckString(const char* field, std::string_view text, size_t bytes_max) const;
  absl::Status CheckAttribute(std::string_view entry);
  absl::Status TakeTime(std::string_view value, WireTime* out) const;
  // 0 if not set.
  absl::StatusOr<int64_t> DurationMs(const char* field, const WireTime& time, int64_t ms_max) const;
  absl::StatusOr<int64_t> DeliverAtMs() const;

  const int64_t index_;
  const bool routed_;
  const MessageRules& rules_;

  int attributes_ = 0;
  int64_t attributes_bytes_ = 0;
  std::vector<std::pair<std::string_view, std::string_view>> routed_by_;  // attributes, if routed
  std::string_view routing_key_;
  std::string_view group_;
  std::string_view dedup_id_;
  WireTime delay_;
  WireTime deliver_at_;
  WireTime ttl_;
};

absl::Status MessageChecker::CheckString(const char* field, std::string_view text,
                                         size_t bytes_max) const {
  if (text.size() > bytes_max) {
    return MakeFieldError(Path(index_, field), absl::StrCat("longer than ", bytes_max, " bytes"));
  }
  if (!IsUtf8(text)) return MakeFieldError(Path(index_, field), "not valid UTF-8");
  return absl::OkStatus();
}

absl::Status MessageChecker::CheckAttribute(std::string_view entry) {
  WireReader reader(entry);
  std::string_view key_and_value[2];
  while (!reader.done()) {
    uint32_t field, type;
    if (!reader.ReadTag(&field, &type) || field > 2 || type != kLengthDelimited ||
        !reader.ReadBytes(&key_and_value[field - 1])) {
      return Malformed(index_);
    }
    if (!IsUtf8(key_and_value[field - 1])) {
      return MakeFieldError(Path(index_, "attributes"), "not valid UTF-8");
    }
  }
  const auto& [key, value] = key_and_value;
  if (++attributes_ > kAttributesMax) {
    return MakeFieldError(Path(index_, "attributes"), absl::StrCat("more than ", kAttributesMax));
  }
  attributes_bytes_ += static_cast<int64_t>(key.size() + value.size());
  if (attributes_bytes_ > kAttributesBytesMax) {
    return MakeFieldError(
        Path(index_, "attributes"),
        absl::StrCat("keys and values together over ", kAttributesBytesMax, " bytes"));
  }
  if (!routed_) return absl::OkStatus();
  // A key that comes twice has its last value, as consumers will see it.
  for (auto& [earlier_key, earlier_value] : routed_by_) {
    if (earlier_key != key) continue;
    earlier_value = value;
    return absl::OkStatus();
  }
  routed_by_.emplace_back(key, value);
  return absl::OkStatus();
}

absl::Status MessageChecker::CheckPriority(uint64_t value, int* out) const {
  const auto priority = static_cast<int32_t>(value);  // protobuf cuts an int32 in the same way
  if (priority < kPriorityMin || priority > kPriorityMax) {
    return MakeFieldError(Path(index_, "priority"),
                          absl::StrCat("must be ", kPriorityMin, " to ", kPriorityMax));
  }
  *out = priority;
  return absl::OkStatus();
}

absl::Status MessageChecker::TakeTime(std::string_view value, WireTime* out) const {
  return out->Merge(value) ? absl::OkStatus() : Malformed(index_);
}

absl::Status MessageChecker::CheckBytesField(uint32_t field, std::string_view value) {
  switch (field) {
    case kBody:
      if (static_cast<int64_t>(value.size()) > rules_.body_bytes_max) {
        return MakeFieldError(Path(index_, "body"),
                              absl::StrCat("larger than ", rules_.body_bytes_max,
                                           " bytes, the limit of this server"),
                              ErrorReason::kMessageTooLarge);
      }
      return absl::OkStatus();
    case kAttributes: return CheckAttribute(value);
    case kRoutingKey:
      routing_key_ = value;
      return CheckString("routing_key", value, kShortStringBytesMax);
    case kContentType: return CheckString("content_type", value, kShortStringBytesMax);
    case kCorrelationId: return CheckString("correlation_id", value, kShortStringBytesMax);
    case kReplyTo: return CheckString("reply_to", value, kNameBytesMax);
    case kGroup:
      group_ = value;
      return CheckString("group", value, kShortStringBytesMax);
    case kDedupId:
      dedup_id_ = value;
      return CheckString("dedup_id", value, kShortStringBytesMax);
    case kDelay: return TakeTime(value, &delay_);
    case kDeliverAt: return TakeTime(value, &deliver_at_);
    case kTtl: return TakeTime(value, &ttl_);
  }
  return Malformed(index_);
}

absl::StatusOr<int64_t> MessageChecker::DurationMs(const char* field, const WireTime& time,
                                                   int64_t ms_max) const {
  if (!time.set) return 0;
  google::protobuf::Duration duration;
  duration.set_seconds(time.seconds);
  duration.set_nanos(time.nanos);
  auto ms = ToMs({}, duration, 0, ms_max);
  // The path costs an allocation: only for who needs to read it.
  return ms.ok() ? ms : ToMs(Path(index_, field), duration, 0, ms_max);
}

absl::StatusOr<int64_t> MessageChecker::DeliverAtMs() const {
  if (!deliver_at_.set) return 0;
  google::protobuf::Timestamp time;
  time.set_seconds(deliver_at_.seconds);
  time.set_nanos(deliver_at_.nanos);
  const int64_t ms_max = rules_.clock->WallMs() + kDelayMsMax;
  auto ms = ToEngineMs({}, time, ms_max);
  return ms.ok() ? ms : ToEngineMs(Path(index_, "deliver_at"), time, ms_max);
}

absl::Status MessageChecker::Finish(std::unique_ptr<broker::MessageOptions>* out) {
  const bool routed = routed_ && (!routing_key_.empty() || !routed_by_.empty());
  if (group_.empty() && dedup_id_.empty() && !delay_.set && !deliver_at_.set && !ttl_.set &&
      !routed) {
    return absl::OkStatus();
  }
  if (delay_.set && deliver_at_.set) {
    return MakeFieldError(Path(index_, "deliver_at"), "excludes delay");
  }
  const auto delay_ms = DurationMs("delay", delay_, kDelayMsMax);
  if (!delay_ms.ok()) return delay_ms.status();
  const auto deliver_at_ms = DeliverAtMs();
  if (!deliver_at_ms.ok()) return deliver_at_ms.status();
  const auto ttl_ms = DurationMs("ttl", ttl_, kTtlMsMax);
  if (!ttl_ms.ok()) return ttl_ms.status();
  auto options = std::make_unique<broker::MessageOptions>();
  if (!group_.empty()) options->group_hash = rules_.hash->Group(group_);
  if (!dedup_id_.empty()) options->dedup = rules_.hash->Wide(dedup_id_);
  options->delay_ms = *delay_ms;
  options->deliver_at_ms = *deliver_at_ms;
  options->ttl_ms = *ttl_ms;
  if (routed) {
    options->routing_key = routing_key_;
    options->attributes.assign(routed_by_.begin(), routed_by_.end());
  }
  *out = std::move(options);
  return absl::OkStatus();
}

bool IsKnown(uint32_t field) { return field <= kPublishTime || field == kExchange; }

}  // namespace

absl::Status CheckMessage(std::string_view bytes, int64_t index, bool routed,
                          const MessageRules& rules, CheckedMessage* out) {
  if (static_cast<int64_t>(bytes.size()) > rules.body_bytes_max + kEnvelopeBytesMax) {
    return MakeFieldError(absl::StrCat("messages[", index, "]"),
                          absl::StrCat("larger than ", rules.body_bytes_max + kEnvelopeBytesMax,
                                       " bytes: a body of ", rules.body_bytes_max, " and ",
                                       kEnvelopeBytesMax, " for the rest"),
                          ErrorReason::kMessageTooLarge);
  }
  WireReader reader(bytes);
  MessageChecker checker(index, routed, rules);
  while (!reader.done()) {
    const uint32_t begin = reader.offset();
    uint32_t field, type;
    if (!reader.ReadTag(&field, &type)) return Malformed(index);
    if (!IsKnown(field)) return MakeNotBuiltError(Path(index, absl::StrCat(field).c_str()));
    if (field == kPriority) {
      uint64_t value;
      if (type != kVarint || !reader.ReadVarint(&value)) return Malformed(index);
      if (auto status = checker.CheckPriority(value, &out->priority); !status.ok()) return status;
      continue;
    }
    std::string_view value;
    if (type != kLengthDelimited || !reader.ReadBytes(&value)) return Malformed(index);
    if (field == kId || field == kPublishTime || field == kExchange) {
      out->server_fields.push_back({begin, reader.offset()});
      continue;
    }
    if (auto status = checker.CheckBytesField(field, value); !status.ok()) return status;
  }
  return checker.Finish(&out->options);
}

}  // namespace sluice::api
