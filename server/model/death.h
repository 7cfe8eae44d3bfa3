// Why and where a message died: what a dead-letter queue tells of it.
#ifndef SLUICE_SERVER_MODEL_DEATH_H_
#define SLUICE_SERVER_MODEL_DEATH_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

// The values of sluice.v1.DeathReason, same numbers (persisted).
enum class DeathReason : uint8_t {
  kUnspecified = 0,
  kAttempts,
  kRejected,
  kExpired,
  kOverflow,
};

struct Death {
  std::string queue;
  DeathReason reason = DeathReason::kUnspecified;
  int32_t count = 1;     // deaths in that queue for that reason
  int32_t attempts = 0;  // made before the last of them
  int64_t first_ms = 0;  // engine time
  int64_t last_ms = 0;
  std::string detail;    // the reason of the last nack, or what else happened

  friend bool operator==(const Death&, const Death&) = default;
};

// Newest first.
using Deaths = std::vector<Death>;

inline constexpr size_t kDeathsMax = 10;

// One more death: joined with an earlier one of the same queue and reason; the oldest goes when
// there are more than kDeathsMax.
void AddDeath(Death death, Deaths& deaths);

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_DEATH_H_
