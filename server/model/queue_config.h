// What a queue was told to be.
#ifndef SLUICE_SERVER_MODEL_QUEUE_CONFIG_H_
#define SLUICE_SERVER_MODEL_QUEUE_CONFIG_H_

#include <cstdint>
#include <map>
#include <string>

#include "server/model/limits.h"

namespace sluice {

// A token bucket: `per_second` on average, up to `burst` at once.
struct RateLimit {
  double per_second = 0;  // 0: no limit
  int32_t burst = 0;      // at least 1 where there is a limit

  friend bool operator==(const RateLimit&, const RateLimit&) = default;
};

// The values of sluice.v1.Overflow, same numbers (persisted).
enum class Overflow : uint8_t { kUnspecified = 0, kReject, kDropHead };

struct RetryPolicy {
  int32_t max_attempts = 0;  // 0: no limit
  int64_t min_backoff_ms = kMinBackoffMsDefault;
  int64_t max_backoff_ms = kMaxBackoffMsDefault;
  bool discard_when_exhausted = false;

  friend bool operator==(const RetryPolicy&, const RetryPolicy&) = default;
};

// Defaults are resolved when the queue is made and stored with it, so that a new default in a
// later version does not change queues that are already there.
struct QueueConfig {
  std::string name;
  int64_t lease_ms = kLeaseMsDefault;
  RetryPolicy retry;
  std::string dead_letter_queue;  // empty: none
  int64_t ttl_ms = 0;             // 0: messages without their own never expire
  int64_t max_length = 0;         // unsettled messages; 0: no limit
  int64_t max_bytes = 0;          // of unsettled messages; 0: no limit
  Overflow overflow = Overflow::kReject;
  int64_t dedup_window_ms = kDedupWindowMsDefault;
  RateLimit delivery_rate;
  bool single_active_consumer = false;
  std::map<std::string, std::string> labels;
  int64_t priority_aging_ms = 0;  // waiting this long counts as one priority more; 0: off
  int64_t idle_expiry_ms = 0;     // unused for so long, the queue goes; 0: never

  friend bool operator==(const QueueConfig&, const QueueConfig&) = default;
};

// `failures` = attempts that have failed, from 1. Doubles from min to max, without overflow.
int64_t BackoffMs(const RetryPolicy& policy, int32_t failures);

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_QUEUE_CONFIG_H_
