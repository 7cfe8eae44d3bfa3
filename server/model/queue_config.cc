#include "server/model/queue_config.h"

#include <algorithm>

namespace sluice {

int64_t BackoffMs(const RetryPolicy& policy, int32_t failures) {
  int64_t backoff_ms = policy.min_backoff_ms;
  for (int32_t i = 1; i < failures && backoff_ms < policy.max_backoff_ms && backoff_ms > 0; ++i) {
    backoff_ms *= 2;
  }
  return std::min(backoff_ms, policy.max_backoff_ms);
}

}  // namespace sluice
