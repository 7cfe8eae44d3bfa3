#include "server/broker/config_plan.h"

#include <map>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/base/strings.h"
#include "server/model/error.h"

namespace sluice::broker {
namespace {

std::string Field(std::string_view path, std::string_view field) {
  return absl::StrCat(ToAbsl(path), ".", ToAbsl(field));
}

// ---- values as people read them

std::string DurationText(int64_t ms) {
  return ms == 0 ? "none" : absl::FormatDuration(absl::Milliseconds(ms));
}
std::string CountText(int64_t count) { return count == 0 ? "no limit" : absl::StrCat(count); }
std::string FlagText(bool flag) { return flag ? "true" : "false"; }
std::string NameText(const std::string& name) { return name.empty() ? "none" : name; }
std::string RateText(const RateLimit& rate) {
  if (rate.per_second == 0) return "no limit";
  return absl::StrCat(rate.per_second, " per second, burst ", rate.burst);
}
std::string OverflowText(Overflow overflow) {
  return overflow == Overflow::kDropHead ? "DROP_HEAD" : "REJECT";
}
std::string LabelsText(const std::map<std::string, std::string>& labels) {
  std::string text = "{";
  for (const auto& [key, value] : labels) {
    absl::StrAppend(&text, text.size() > 1 ? ", " : "", key, ": ", value);
  }
  return text + "}";
}

// Collects what differs, field by field.
class Differences {
 public:
  template <typename Value, typename Text>
  void Compare(std::string_view field, const Value& from, const Value& to, Text text) {
    if (from == to) return;
    lines_.push_back(absl::StrCat(ToAbsl(field), ": ", text(from), " -> ", text(to)));
  }
  std::vector<std::string> Take() { return std::move(lines_); }

 private:
  std::vector<std::string> lines_;
};

}  // namespace

void ApplyChange(const QueueConfigChange& change, QueueConfig& config) {
  const auto set = [](const auto& from, auto& to) {
    if (from) to = *from;
  };
  config.name = change.name;
  set(change.lease_ms, config.lease_ms);
  set(change.max_attempts, config.retry.max_attempts);
  set(change.min_backoff_ms, config.retry.min_backoff_ms);
  set(change.max_backoff_ms, config.retry.max_backoff_ms);
  set(change.discard_when_exhausted, config.retry.discard_when_exhausted);
  set(change.dead_letter_queue, config.dead_letter_queue);
  set(change.ttl_ms, config.ttl_ms);
  set(change.max_length, config.max_length);
  set(change.max_bytes, config.max_bytes);
  set(change.overflow, config.overflow);
  set(change.dedup_window_ms, config.dedup_window_ms);
  set(change.delivery_rate, config.delivery_rate);
  set(change.single_active_consumer, config.single_active_consumer);
  set(change.labels, config.labels);
  set(change.priority_aging_ms, config.priority_aging_ms);
  set(change.idle_expiry_ms, config.idle_expiry_ms);
}

void ApplyChange(const ExchangeChange& change, Exchange& exchange) {
  exchange.name = change.name;
  if (change.type) exchange.type = *change.type;
  if (change.alternate_exchange) exchange.alternate_exchange = *change.alternate_exchange;
  if (change.labels) exchange.labels = *change.labels;
}

absl::Status CheckQueueConfig(const QueueConfig& config, std::string_view path, FindConfig find) {
  const RetryPolicy& retry = config.retry;
  if (retry.min_backoff_ms > retry.max_backoff_ms) {
    return MakeFieldError(Field(path, "retry.min_backoff"), "must not be more than max_backoff");
  }
  if (retry.max_attempts > 0 && config.dead_letter_queue.empty() &&
      !retry.discard_when_exhausted) {
    return MakeFieldError(Field(path, "retry.max_attempts"),
                          "needs a dead_letter_queue, or discard_when_exhausted");
  }
  // Following dead letters must come to an end, or messages would go round for ever. Of queues that
  // are made together one may lead into a circle that it is no part of.
  absl::flat_hash_set<std::string> passed = {config.name};
  std::string way = config.name;
  for (std::string next = config.dead_letter_queue; !next.empty();) {
    absl::StrAppend(&way, " -> ", next);
    if (!passed.insert(next).second) {
      return MakeFieldError(Field(path, "dead_letter_queue"),
                            absl::StrCat("dead letters would go in a circle: ", way));
    }
    const QueueConfig* queue = find(next);
    if (!queue) {
      return MakeFieldError(Field(path, "dead_letter_queue"),
                            absl::StrCat("queue '", next, "' does not exist, or is temporary"),
                            ErrorReason::kQueueNotFound);
    }
    next = queue->dead_letter_queue;
  }
  return absl::OkStatus();
}

std::vector<std::string> DescribeDifferences(const QueueConfig& from, const QueueConfig& to) {
  Differences differences;
  differences.Compare("lease", from.lease_ms, to.lease_ms, DurationText);
  differences.Compare("retry.max_attempts", from.retry.max_attempts, to.retry.max_attempts,
                      CountText);
  differences.Compare("retry.min_backoff", from.retry.min_backoff_ms, to.retry.min_backoff_ms,
                      DurationText);
  differences.Compare("retry.max_backoff", from.retry.max_backoff_ms, to.retry.max_backoff_ms,
                      DurationText);
  differences.Compare("retry.discard_when_exhausted", from.retry.discard_when_exhausted,
                      to.retry.discard_when_exhausted, FlagText);
  differences.Compare("dead_letter_queue", from.dead_letter_queue, to.dead_letter_queue, NameText);
  differences.Compare("ttl", from.ttl_ms, to.ttl_ms, DurationText);
  differences.Compare("max_length", from.max_length, to.max_length, CountText);
  differences.Compare("max_bytes", from.max_bytes, to.max_bytes, CountText);
  differences.Compare("overflow", from.overflow, to.overflow, OverflowText);
  differences.Compare("dedup_window", from.dedup_window_ms, to.dedup_window_ms, DurationText);
  differences.Compare("delivery_rate", from.delivery_rate, to.delivery_rate, RateText);
  differences.Compare("single_active_consumer", from.single_active_consumer,
                      to.single_active_consumer,
                      FlagText);
  differences.Compare("labels", from.labels, to.labels, LabelsText);
  differences.Compare("priority_aging", from.priority_aging_ms, to.priority_aging_ms, DurationText);
  differences.Compare("idle_expiry", from.idle_expiry_ms, to.idle_expiry_ms, DurationText);
  return differences.Take();
}

std::vector<std::string> DescribeDifferences(const Exchange& from, const Exchange& to) {
  Differences differences;
  differences.Compare("alternate_exchange", from.alternate_exchange, to.alternate_exchange,
                      NameText);
  differences.Compare("labels", from.labels, to.labels, LabelsText);
  return differences.Take();
}

}  // namespace sluice::broker
