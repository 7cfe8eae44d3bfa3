#include "server/api/queue_codec.h"

#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/api/field_checks.h"
#include "server/base/strings.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

using Change = broker::QueueConfigChange;

// Takes fields of a config over into a change, until one is refused.
class ConfigReader {
 public:
  explicit ConfigReader(std::string_view path) : path_(path) {}

  void Duration(const char* field, bool set, const google::protobuf::Duration& value,
                int64_t ms_min, int64_t ms_max, std::optional<int64_t>* out) {
    if (set) Take(ToMs(PathTo(path_, field), value, ms_min, ms_max), out);
  }
  // 0 turns it off.
  void DurationOrOff(const char* field, bool set, const google::protobuf::Duration& value,
                     int64_t ms_min, int64_t ms_max, std::optional<int64_t>* out) {
    if (set) Take(ToMsOrOff(PathTo(path_, field), value, ms_min, ms_max), out);
  }
  template <typename T>
  void Count(const char* field, bool set, T value, T max, std::optional<T>* out) {
    if (!set) return;
    if (value < 0 || value > max) {
      Refuse(field, absl::StrCat("must be 0 to ", max));
    } else {
      *out = value;
    }
  }
  void Rate(const char* field, bool set, const v1::RateLimit& value,
            std::optional<RateLimit>* out) {
    if (set) Take(ToRateLimit(PathTo(path_, field), value), out);
  }
  void Name(const char* field, const std::string& value, std::optional<std::string>* out) {
    if (value.empty()) return;
    status_.Update(CheckName(PathTo(path_, field), value));
    *out = value;
  }
  void Labels(const google::protobuf::Map<std::string, std::string>& labels,
              std::optional<std::map<std::string, std::string>>* out) {
    if (labels.empty()) return;
    size_t bytes = 0;
    for (const auto& [key, value] : labels) bytes += key.size() + value.size();
    if (labels.size() > kLabelsMax) Refuse("labels", absl::StrCat("more than ", kLabelsMax));
    if (bytes > kLabelsBytesMax) {
      Refuse("labels", absl::StrCat("together over ", kLabelsBytesMax, " bytes"));
    }
    out->emplace(labels.begin(), labels.end());
  }
  void OverflowOf(v1::Overflow value, std::optional<Overflow>* out) {
    if (value == v1::OVERFLOW_UNSPECIFIED) return;
    if (!v1::Overflow_IsValid(value)) return Refuse("overflow", "not a known way");
    *out = static_cast<Overflow>(value);
  }
  void Refuse(const char* field, std::string_view problem) {
    status_.Update(MakeFieldError(PathTo(path_, field), problem));
  }

  // The first refusal.
  const absl::Status& status() const { return status_; }

 private:
  template <typename T>
  void Take(absl::StatusOr<T> value, std::optional<T>* out) {
    status_.Update(value.status());
    if (value.ok()) *out = *value;
  }

  const std::string_view path_;
  absl::Status status_;
};

void ReadRetry(const v1::RetryPolicy& retry, ConfigReader* reader, Change* change) {
  reader->Count("retry.max_attempts", retry.has_max_attempts(), retry.max_attempts(),
                kMaxAttemptsCeiling, &change->max_attempts);
  reader->Duration("retry.min_backoff", retry.has_min_backoff(), retry.min_backoff(), 0,
                   kDelayMsMax, &change->min_backoff_ms);
  reader->Duration("retry.max_backoff", retry.has_max_backoff(), retry.max_backoff(), 0,
                   kDelayMsMax, &change->max_backoff_ms);
  if (change->min_backoff_ms && change->max_backoff_ms &&
      *change->min_backoff_ms > *change->max_backoff_ms) {
    reader->Refuse("retry.max_backoff", "less than min_backoff");
  }
  // A bool without presence: only the mask can say that it should be false.
  if (retry.discard_when_exhausted()) change->discard_when_exhausted = true;
}

const QueueConfig& Defaults() {
  static const auto* const defaults = new QueueConfig();
  return *defaults;
}

template <typename T>
void TakeOr(const std::optional<T>& given, const T& otherwise, std::optional<T>* out) {
  *out = given.value_or(otherwise);
}

// The paths that a mask may name, and what each takes over.
struct MaskPath {
  const char* path;
  void (*take)(const Change& given, Change* out);
};
constexpr MaskPath kMaskPaths[] = {
    {"lease", [](const Change& in, Change* out) {
       TakeOr(in.lease_ms, Defaults().lease_ms, &out->lease_ms);
     }},
    {"retry.max_attempts", [](const Change& in, Change* out) {
       TakeOr(in.max_attempts, Defaults().retry.max_attempts, &out->max_attempts);
     }},
    {"retry.min_backoff", [](const Change& in, Change* out) {
       TakeOr(in.min_backoff_ms, Defaults().retry.min_backoff_ms, &out->min_backoff_ms);
     }},
    {"retry.max_backoff", [](const Change& in, Change* out) {
       TakeOr(in.max_backoff_ms, Defaults().retry.max_backoff_ms, &out->max_backoff_ms);
     }},
    {"retry.discard_when_exhausted", [](const Change& in, Change* out) {
       TakeOr(in.discard_when_exhausted, false, &out->discard_when_exhausted);
     }},
    {"dead_letter_queue", [](const Change& in, Change* out) {
       TakeOr(in.dead_letter_queue, Defaults().dead_letter_queue, &out->dead_letter_queue);
     }},
    {"ttl", [](const Change& in, Change* out) {
       TakeOr(in.ttl_ms, Defaults().ttl_ms, &out->ttl_ms);
     }},
    {"max_length", [](const Change& in, Change* out) {
       TakeOr(in.max_length, Defaults().max_length, &out->max_length);
     }},
    {"max_bytes", [](const Change& in, Change* out) {
       TakeOr(in.max_bytes, Defaults().max_bytes, &out->max_bytes);
     }},
    {"overflow", [](const Change& in, Change* out) {
       TakeOr(in.overflow, Defaults().overflow, &out->overflow);
     }},
    {"dedup_window", [](const Change& in, Change* out) {
       TakeOr(in.dedup_window_ms, Defaults().dedup_window_ms, &out->dedup_window_ms);
     }},
    {"delivery_rate", [](const Change& in, Change* out) {
       TakeOr(in.delivery_rate, Defaults().delivery_rate, &out->delivery_rate);
     }},
    {"single_active_consumer", [](const Change& in, Change* out) {
       TakeOr(in.single_active_consumer, false, &out->single_active_consumer);
     }},
    {"labels", [](const Change& in, Change* out) {
       TakeOr(in.labels, Defaults().labels, &out->labels);
     }},
    {"priority_aging", [](const Change& in, Change* out) {
       TakeOr(in.priority_aging_ms, Defaults().priority_aging_ms, &out->priority_aging_ms);
     }},
    {"idle_expiry", [](const Change& in, Change* out) {
       TakeOr(in.idle_expiry_ms, Defaults().idle_expiry_ms, &out->idle_expiry_ms);
     }},
};

// Takes over what `path` names: a field, or all fields below it. False if there are none.
bool TakePath(std::string_view path, const Change& given, Change* out) {
  const std::string below = absl::StrCat(ToAbsl(path), ".");
  bool found = false;
  for (const MaskPath& field : kMaskPaths) {
    const std::string_view name = field.path;
    if (name != path && name.substr(0, below.size()) != below) continue;
    field.take(given, out);
    found = true;
  }
  return found;
}

void SetUnlessZero(int64_t ms, google::protobuf::Duration* (v1::QueueConfig::*field)(),
                   v1::QueueConfig* out) {
  if (ms != 0) SetDuration(ms, (out->*field)());
}

}  // namespace

absl::StatusOr<Change> ToConfigChange(const v1::QueueConfig& config, std::string_view path) {
  constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
  Change change;
  change.name = config.name();
  ConfigReader reader(path);
  reader.Duration("lease", config.has_lease(), config.lease(), kLeaseMsMin, kLeaseMsMax,
                  &change.lease_ms);
  ReadRetry(config.retry(), &reader, &change);
  reader.Name("dead_letter_queue", config.dead_letter_queue(), &change.dead_letter_queue);
  reader.Duration("ttl", config.has_ttl(), config.ttl(), 0, kTtlMsMax, &change.ttl_ms);
  reader.Count("max_length", config.has_max_length(), config.max_length(), kAny,
               &change.max_length);
  reader.Count("max_bytes", config.has_max_bytes(), config.max_bytes(), kAny, &change.max_bytes);
  reader.OverflowOf(config.overflow(), &change.overflow);
  reader.Duration("dedup_window", config.has_dedup_window(), config.dedup_window(), 0,
                  kDedupWindowMsMax, &change.dedup_window_ms);
  reader.Rate("delivery_rate", config.has_delivery_rate(), config.delivery_rate(),
              &change.delivery_rate);
  if (config.has_single_active_consumer()) {
    change.single_active_consumer = config.single_active_consumer();
  }
  reader.Labels(config.labels(), &change.labels);
  reader.DurationOrOff("priority_aging", config.has_priority_aging(), config.priority_aging(),
                       kPriorityAgingMsMin, kPriorityAgingMsMax, &change.priority_aging_ms);
  reader.DurationOrOff("idle_expiry", config.has_idle_expiry(), config.idle_expiry(),
                       kIdleExpiryMsMin, kIdleExpiryMsMax, &change.idle_expiry_ms);
  if (!reader.status().ok()) return reader.status();
  return change;
}

absl::Status ApplyMask(const google::protobuf::FieldMask& mask, Change* change, bool* replace) {
  *replace = false;
  if (mask.paths().empty()) return absl::OkStatus();
  if (mask.paths_size() == 1 && mask.paths(0) == "*") {
    *replace = true;
    return absl::OkStatus();
  }
  const Change given = *change;
  *change = {};
  change->name = given.name;
  for (const std::string& path : mask.paths()) {
    if (!TakePath(path, given, change)) {
      return MakeFieldError("update_mask", absl::StrCat("no field '", path, "' to change"));
    }
  }
  return absl::OkStatus();
}

void ToProto(const QueueConfig& config, v1::QueueConfig* out) {
  out->set_name(config.name);
  SetDuration(config.lease_ms, out->mutable_lease());
  auto* retry = out->mutable_retry();
  retry->set_max_attempts(config.retry.max_attempts);
  SetDuration(config.retry.min_backoff_ms, retry->mutable_min_backoff());
  SetDuration(config.retry.max_backoff_ms, retry->mutable_max_backoff());
  retry->set_discard_when_exhausted(config.retry.discard_when_exhausted);
  out->set_dead_letter_queue(config.dead_letter_queue);
  SetUnlessZero(config.ttl_ms, &v1::QueueConfig::mutable_ttl, out);
  out->set_max_length(config.max_length);
  out->set_max_bytes(config.max_bytes);
  out->set_overflow(static_cast<v1::Overflow>(config.overflow));
  SetDuration(config.dedup_window_ms, out->mutable_dedup_window());  // 0 differs from unset
  if (config.delivery_rate.per_second > 0) {
    out->mutable_delivery_rate()->set_per_second(config.delivery_rate.per_second);
    out->mutable_delivery_rate()->set_burst(config.delivery_rate.burst);
  }
  out->set_single_active_consumer(config.single_active_consumer);
  for (const auto& [key, value] : config.labels) (*out->mutable_labels())[key] = value;
  SetUnlessZero(config.priority_aging_ms, &v1::QueueConfig::mutable_priority_aging, out);
  SetUnlessZero(config.idle_expiry_ms, &v1::QueueConfig::mutable_idle_expiry, out);
}

void ToProto(const broker::QueueInfo& info, v1::Queue* out) {
  ToProto(info.config, out->mutable_config());
  out->set_state(info.paused ? v1::QUEUE_STATE_PAUSED : v1::QUEUE_STATE_ACTIVE);
  auto* stats = out->mutable_stats();
  stats->set_ready(info.stats.ready);
  stats->set_leased(info.stats.leased);
  stats->set_delayed(info.stats.delayed);
  stats->set_blocked(info.stats.blocked);
  stats->set_bytes(info.stats.bytes);
  stats->set_consumers(info.stats.consumers);
  if (info.stats.ready > 0) {
    SetDuration(info.stats.oldest_ready_age_ms, stats->mutable_oldest_ready_age());
  }
  for (const WaitReason reason : info.waiting) {
    out->add_waiting(static_cast<v1::WaitReason>(reason));
  }
  SetTimestamp(info.create_ms, out->mutable_create_time());
  SetTimestamp(info.update_ms, out->mutable_update_time());
  out->set_etag(absl::StrCat("r", info.revision));
}

absl::StatusOr<uint64_t> RevisionOf(std::string_view etag) {
  if (etag.empty()) return 0;
  uint64_t revision = 0;
  if (etag.front() == 'r' && absl::SimpleAtoi(ToAbsl(etag.substr(1)), &revision) && revision > 0) {
    return revision;
  }
  return MakeError(ErrorReason::kEtagMismatch, "the etag is of no revision of this queue");
}

}  // namespace sluice::api
