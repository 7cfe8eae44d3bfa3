#include "server/api/message_filter.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "server/api/field_checks.h"
#include "server/api/wire_format.h"
#include "server/base/strings.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

using google::protobuf::io::CodedInputStream;
using google::protobuf::internal::WireFormatLite;

// Beyond any message's age: a server is not that old.
constexpr int64_t kAgeMsMax = 100 * 366 * kDayMs;

constexpr uint32_t kAttributesTag =
    MakeTag(v1::Message::kAttributesFieldNumber, kLengthDelimited);
constexpr uint32_t kGroupTag = MakeTag(v1::Message::kGroupFieldNumber, kLengthDelimited);
constexpr uint32_t kEntryKeyTag = MakeTag(1, kLengthDelimited);
constexpr uint32_t kEntryValueTag = MakeTag(2, kLengthDelimited);

std::string Below(std::string_view path, std::string_view field) {
  return absl::StrCat(ToAbsl(path), ".", ToAbsl(field));
}

std::string Entry(std::string_view path, std::string_view field, int index) {
  return absl::StrCat(ToAbsl(path), ".", ToAbsl(field), "[", index, "]");
}

// A view into `bytes`, which `input` reads.
bool ReadView(CodedInputStream* input, std::string_view bytes, std::string_view* out) {
  uint32_t length;
  if (!input->ReadVarint32(&length)) return false;
  const auto at = static_cast<size_t>(input->CurrentPosition());
  if (length > bytes.size() - at) return false;
  *out = bytes.substr(at, length);
  return input->Skip(static_cast<int>(length));
}

bool ReadEntry(std::string_view bytes, std::string_view* key, std::string_view* value) {
  CodedInputStream input(reinterpret_cast<const uint8_t*>(bytes.data()),
                         static_cast<int>(bytes.size()));
  while (const uint32_t tag = input.ReadTag()) {
    const bool read = tag == kEntryKeyTag     ? ReadView(&input, bytes, key)
                      : tag == kEntryValueTag ? ReadView(&input, bytes, value)
                                              : WireFormatLite::SkipField(&input, tag);
    if (!read) return false;
  }
  return true;
}

absl::Status CheckEntries(const std::string& field, int entries) {
  if (entries <= MessageFilter::kEntriesMax) return absl::OkStatus();
  return MakeFieldError(field, absl::StrCat("more than ", MessageFilter::kEntriesMax),
                        ErrorReason::kBatchTooLarge);
}

absl::Status ParseIds(std::string_view path, const v1::MessageFilter& filter,
                      std::vector<MessagePosition>* out) {
  if (auto status = CheckEntries(Below(path, "ids"), filter.ids_size()); !status.ok()) {
    return status;
  }
  absl::flat_hash_set<std::string> seen;
  for (int i = 0; i < filter.ids_size(); ++i) {
    const auto id = ParseMessageId(filter.ids(i));
    if (!id) return MakeFieldError(Entry(path, "ids", i), "not the id of a message");
    if (seen.insert(filter.ids(i)).second) out->push_back(*id);
  }
  return absl::OkStatus();
}

absl::Status ParseAge(const std::string& field, bool set,
                      const google::protobuf::Duration& duration, std::optional<int64_t>* out) {
  if (!set) return absl::OkStatus();
  const auto ms = ToMs(field, duration, 0, kAgeMsMax);
  if (!ms.ok()) return ms.status();
  *out = *ms;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MessageFilter> MessageFilter::Parse(std::string_view path,
                                                   const v1::MessageFilter& filter) {
  MessageFilter out;
  if (auto status = ParseIds(path, filter, &out.ids_); !status.ok()) return status;
  for (int i = 0; i < filter.states_size(); ++i) {
    const v1::MessageState state = filter.states(i);
    if (!v1::MessageState_IsValid(state) || state == v1::MESSAGE_STATE_UNSPECIFIED) {
      return MakeFieldError(Entry(path, "states", i), "not a known state");
    }
    out.states_.insert(static_cast<MessageState>(state));
  }
  if (auto status = CheckEntries(Below(path, "groups"), filter.groups_size()); !status.ok()) {
    return status;
  }
  out.groups_.insert(filter.groups().begin(), filter.groups().end());
  if (filter.attributes_size() > kAttributesMax) {
    return MakeFieldError(Below(path, "attributes"), absl::StrCat("more than ", kAttributesMax));
  }
  out.attributes_.insert(filter.attributes().begin(), filter.attributes().end());
  absl::Status ages =
      ParseAge(Below(path, "min_age"), filter.has_min_age(), filter.min_age(), &out.min_age_ms_);
  ages.Update(
      ParseAge(Below(path, "max_age"), filter.has_max_age(), filter.max_age(), &out.max_age_ms_));
  if (!ages.ok()) return ages;
  // Every message is at least that old.
  if (out.min_age_ms_ == 0) out.min_age_ms_.reset();
  if (out.min_age_ms_ && out.max_age_ms_ && *out.min_age_ms_ > *out.max_age_ms_) {
    return MakeFieldError(Below(path, "max_age"), "less than min_age");
  }
  for (int i = 0; i < filter.death_reasons_size(); ++i) {
    const v1::DeathReason reason = filter.death_reasons(i);
    if (!v1::DeathReason_IsValid(reason) || reason == v1::DEATH_REASON_UNSPECIFIED) {
      return MakeFieldError(Entry(path, "death_reasons", i), "not a known reason");
    }
    out.death_reasons_.insert(static_cast<DeathReason>(reason));
  }
  if (!filter.death_queue().empty()) {
    auto status = CheckName(Below(path, "death_queue"), filter.death_queue());
    if (!status.ok()) return status;
    out.death_queue_ = filter.death_queue();
  }
  out.empty_ = out.ids_.empty() && out.states_.empty() && out.groups_.empty() &&
               out.attributes_.empty() && !out.min_age_ms_ && !out.max_age_ms_ &&
               out.death_reasons_.empty() && out.death_queue_.empty();
  return out;
}

bool MessageFilter::Matches(const broker::ListedMessage& message, int64_t now_ms) const {
  if (!states_.empty() && !states_.contains(message.state)) return false;
  // A clock that was set back makes no message younger than new.
  const int64_t age_ms = std::max<int64_t>(0, now_ms - message.publish_ms);
  if (min_age_ms_ && age_ms < *min_age_ms_) return false;
  if (max_age_ms_ && age_ms > *max_age_ms_) return false;
  if (!death_reasons_.empty() || !death_queue_.empty()) {
    if (!message.deaths || message.deaths->empty()) return false;
    const Death& last = message.deaths->front();
    if (!death_reasons_.empty() && !death_reasons_.contains(last.reason)) return false;
    if (!death_queue_.empty() && last.queue != death_queue_) return false;
  }
  if (groups_.empty() && attributes_.empty()) return true;
  return MatchesBytes(message.payload.view());
}

bool MessageFilter::MatchesBytes(std::string_view message) const {
  CodedInputStream input(reinterpret_cast<const uint8_t*>(message.data()),
                         static_cast<int>(message.size()));
  std::string_view group;
  // By key: of a key that came twice the later value counts, as in every protobuf map.
  std::map<std::string_view, bool> agrees;
  while (const uint32_t tag = input.ReadTag()) {
    bool read = false;
    if (tag == kGroupTag) {
      read = ReadView(&input, message, &group);
    } else if (tag == kAttributesTag) {
      std::string_view entry, key, value;
      read = ReadView(&input, message, &entry) && ReadEntry(entry, &key, &value);
      const auto wanted = attributes_.find(key);
      if (read && wanted != attributes_.end()) agrees[wanted->first] = wanted->second == value;
    } else {
      read = WireFormatLite::SkipField(&input, tag);
    }
    if (!read) return false;
  }
  if (!groups_.empty() && !groups_.contains(group)) return false;
  return agrees.size() == attributes_.size() &&
         std::all_of(agrees.begin(), agrees.end(), [](const auto& entry) { return entry.second; });
}

}  // namespace sluice::api
