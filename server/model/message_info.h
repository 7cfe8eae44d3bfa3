// What the server knows of a stored message besides its bytes.
#ifndef SLUICE_SERVER_MODEL_MESSAGE_INFO_H_
#define SLUICE_SERVER_MODEL_MESSAGE_INFO_H_

#include <algorithm>
#include <cstdint>
#include <memory>

#include "server/model/death.h"
#include "server/model/ids.h"

namespace sluice {

// Of a message that is not where it was first stored.
struct Origin {
  MessagePosition id;  // where it was first stored: its message id
  Deaths deaths;
};

struct MessageInfo {
  int64_t publish_ms = 0;   // engine time
  int64_t expire_ms = 0;    // engine time; 0: never
  int64_t due_ms = 0;       // engine time; 0: was never delayed
  uint64_t group_hash = 0;  // 0: no group
  int priority = kPriorityDefault;  // kept only in the delayed lane: elsewhere the lane says it
  std::shared_ptr<const Origin> origin = nullptr;  // null: it is where its id says

  // Since when it may be delivered, or from when on.
  int64_t ReadySinceMs() const { return std::max(publish_ms, due_ms); }
};

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_MESSAGE_INFO_H_
