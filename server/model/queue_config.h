// What a queue was told to be.
#ifndef SLUICE_SERVER_MODEL_QUEUE_CONFIG_H_
#define SLUICE_SERVER_MODEL_QUEUE_CONFIG_H_

#include <cstdint>
#include <map>
#include <string>

#include "server/model/limits.h"

namespace sluice {

struct RetryPolicy {
  int64_t min_backoff_ms = kMinBackoffMsDefault;
  int64_t max_backoff_ms = kMaxBackoffMsDefault;

  friend bool operator==(const RetryPolicy&, const RetryPolicy&) = default;
};

// Defaults are resolved when the queue is made and stored with it, so that a new default in a
// later version does not change queues that are already there.
struct QueueConfig {
  std::string name;
  int64_t lease_ms = kLeaseMsDefault;
  RetryPolicy retry;
  std::map<std::string, std::string> labels;

  friend bool operator==(const QueueConfig&, const QueueConfig&) = default;
};

// `failures` = attempts that have failed, from 1. Doubles from min to max, without overflow.
int64_t BackoffMs(const RetryPolicy& policy, int32_t failures);

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_QUEUE_CONFIG_H_
