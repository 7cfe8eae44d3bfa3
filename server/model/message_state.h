// What a stored message is doing, and why it does not go out.
#ifndef SLUICE_SERVER_MODEL_MESSAGE_STATE_H_
#define SLUICE_SERVER_MODEL_MESSAGE_STATE_H_

#include <cstdint>

namespace sluice {

// The values of sluice.v1.MessageState, same numbers.
enum class MessageState : uint8_t { kUnspecified = 0, kReady, kLeased, kDelayed, kBlocked };

// The values of sluice.v1.WaitReason, same numbers.
enum class WaitReason : uint8_t {
  kUnspecified = 0,
  kNoConsumer,
  kNoCredit,
  kPaused,
  kRateLimited,
  kGroupBlocked,
  kNotDue,
  kRetryBackoff,
  kLeased,
  kBehindOthers,
  kDeadLetterQueueFull,
  kOpenLimit,
};

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_MESSAGE_STATE_H_
