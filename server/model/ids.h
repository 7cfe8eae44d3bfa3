// Where a message lives, and the names derived from that.
#ifndef SLUICE_SERVER_MODEL_IDS_H_
#define SLUICE_SERVER_MODEL_IDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice {

using ShardId = uint16_t;
using QueueId = uint32_t;  // chosen when a queue is made, never reused; 0 is no queue
using Lane = uint8_t;      // kind and inverted priority: the order of lanes is the order of delivery
using Seq = uint64_t;      // place in a lane, from 1, without gaps
using Lsn = uint64_t;      // number of a batch, from 1
using Boot = uint32_t;     // one run of the process, from 1

inline constexpr int kPriorityMin = 0;
inline constexpr int kPriorityMax = 9;
inline constexpr int kPriorityDefault = 4;
inline constexpr int kImmediateLanes = 10;

// Lane of messages that may be delivered at once: priority 9 is lane 0.
inline constexpr Lane LaneOfPriority(int priority) {
  return static_cast<Lane>(kPriorityMax - priority);
}
inline constexpr int PriorityOfLane(Lane lane) { return kPriorityMax - lane; }
// Lane of messages that wait for their time, of every priority; its order is that of publishing.
inline constexpr Lane kDelayedLane = kImmediateLanes;
inline constexpr int kLanes = kImmediateLanes + 1;

struct MessagePosition {
  ShardId shard = 0;
  QueueId qid = 0;
  Lane lane = 0;
  Seq seq = 0;

  friend bool operator==(const MessagePosition&, const MessagePosition&) = default;
};

// A message id is 22 characters of unpadded base64url: it says where the message was first stored.
// Clients must treat it as opaque.
inline constexpr size_t kMessageIdBytes = 22;
void WriteMessageId(const MessagePosition& position, char out[kMessageIdBytes]);
std::string FormatMessageId(const MessagePosition& position);
std::optional<MessagePosition> ParseMessageId(std::string_view id);

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_IDS_H_
