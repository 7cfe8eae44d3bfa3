#include "server/api/queue_codec.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/api/field_checks.h"
#include "server/base/strings.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

constexpr const char* kNotBuiltFields[] = {
    "retry.max_attempts", "retry.discard_when_exhausted", "dead_letter_queue", "ttl", "max_length",
    "max_bytes", "overflow", "dedup_window", "delivery_rate", "single_active_consumer",
    "priority_aging", "idle_expiry"};

// The first field that is set and not built; null if there is none.
const char* FirstNotBuilt(const v1::QueueConfig& config) {
  const std::pair<bool, const char*> fields[] = {
      {config.retry().has_max_attempts(), "retry.max_attempts"},
      {config.retry().discard_when_exhausted(), "retry.discard_when_exhausted"},
      {!config.dead_letter_queue().empty(), "dead_letter_queue"},
      {config.has_ttl(), "ttl"},
      {config.has_max_length(), "max_length"},
      {config.has_max_bytes(), "max_bytes"},
      {config.overflow() != v1::OVERFLOW_UNSPECIFIED, "overflow"},
      {config.has_dedup_window(), "dedup_window"},
      {config.has_delivery_rate(), "delivery_rate"},
      {config.has_single_active_consumer(), "single_active_consumer"},
      {config.has_priority_aging(), "priority_aging"},
      {config.has_idle_expiry(), "idle_expiry"},
  };
  for (const auto& [set, name] : fields) {
    if (set) return name;
  }
  return nullptr;
}

absl::Status CheckLabels(const google::protobuf::Map<std::string, std::string>& labels) {
  size_t bytes = 0;
  for (const auto& [key, value] : labels) bytes += key.size() + value.size();
  if (labels.size() > kLabelsMax) {
    return MakeFieldError("config.labels", absl::StrCat("more than ", kLabelsMax));
  }
  if (bytes > kLabelsBytesMax) {
    return MakeFieldError("config.labels", absl::StrCat("together over ", kLabelsBytesMax, " bytes"));
  }
  return absl::OkStatus();
}

absl::Status SetBackoff(const v1::RetryPolicy& retry, broker::QueueConfigChange* change) {
  if (retry.has_min_backoff()) {
    auto ms = ToMs("config.retry.min_backoff", retry.min_backoff(), 0, kDelayMsMax);
    if (!ms.ok()) return ms.status();
    change->min_backoff_ms = *ms;
  }
  if (retry.has_max_backoff()) {
    auto ms = ToMs("config.retry.max_backoff", retry.max_backoff(), 0, kDelayMsMax);
    if (!ms.ok()) return ms.status();
    change->max_backoff_ms = *ms;
  }
  if (change->min_backoff_ms && change->max_backoff_ms &&
      *change->min_backoff_ms > *change->max_backoff_ms) {
    return MakeFieldError("config.retry.max_backoff", "less than min_backoff");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<broker::QueueConfigChange> ToConfigChange(const v1::QueueConfig& config) {
  if (!v1::Overflow_IsValid(config.overflow())) {
    return MakeFieldError("config.overflow", "no such value");
  }
  if (const char* field = FirstNotBuilt(config)) {
    return MakeNotBuiltError(absl::StrCat("config.", field));
  }
  broker::QueueConfigChange change;
  change.name = config.name();
  if (config.has_lease()) {
    auto ms = ToMs("config.lease", config.lease(), kLeaseMsMin, kLeaseMsMax);
    if (!ms.ok()) return ms.status();
    change.lease_ms = *ms;
  }
  if (auto status = SetBackoff(config.retry(), &change); !status.ok()) return status;
  if (auto status = CheckLabels(config.labels()); !status.ok()) return status;
  if (!config.labels().empty()) {
    change.labels.emplace(config.labels().begin(), config.labels().end());
  }
  return change;
}

absl::Status ApplyMask(const google::protobuf::FieldMask& mask, broker::QueueConfigChange* change,
                       bool* replace) {
  *replace = false;
  if (mask.paths().empty()) return absl::OkStatus();
  if (mask.paths_size() == 1 && mask.paths(0) == "*") {
    *replace = true;
    return absl::OkStatus();
  }
  const broker::QueueConfigChange given = *change;
  *change = {};
  change->name = given.name;
  for (const std::string& path : mask.paths()) {
    const bool whole_retry = path == "retry";
    if (path == "lease") {
      change->lease_ms = given.lease_ms.value_or(kLeaseMsDefault);
    } else if (path == "labels") {
      change->labels = given.labels.value_or(std::map<std::string, std::string>());
    } else if (whole_retry || path == "retry.min_backoff" || path == "retry.max_backoff") {
      if (whole_retry || path == "retry.min_backoff") {
        change->min_backoff_ms = given.min_backoff_ms.value_or(kMinBackoffMsDefault);
      }
      if (whole_retry || path == "retry.max_backoff") {
        change->max_backoff_ms = given.max_backoff_ms.value_or(kMaxBackoffMsDefault);
      }
    } else {
      for (const char* field : kNotBuiltFields) {
        if (path == field) return MakeNotBuiltError(absl::StrCat("config.", field));
      }
      return MakeFieldError("update_mask", absl::StrCat("no field '", path, "' to change"));
    }
  }
  return absl::OkStatus();
}

void ToProto(const broker::QueueInfo& info, v1::Queue* out) {
  auto* config = out->mutable_config();
  config->set_name(info.config.name);
  SetDuration(info.config.lease_ms, config->mutable_lease());
  SetDuration(info.config.retry.min_backoff_ms, config->mutable_retry()->mutable_min_backoff());
  SetDuration(info.config.retry.max_backoff_ms, config->mutable_retry()->mutable_max_backoff());
  for (const auto& [key, value] : info.config.labels) (*config->mutable_labels())[key] = value;
  out->set_state(v1::QUEUE_STATE_ACTIVE);
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
  if (info.stats.ready > 0 && info.stats.consumers == 0) {
    out->add_waiting(v1::WAIT_REASON_NO_CONSUMER);
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
