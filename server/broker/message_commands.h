// Looking at messages where they wait, and moving them. What holds for every command: commands.h.
#ifndef SLUICE_SERVER_BROKER_MESSAGE_COMMANDS_H_
#define SLUICE_SERVER_BROKER_MESSAGE_COMMANDS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "server/model/death.h"
#include "server/model/ids.h"
#include "server/model/limits.h"
#include "server/model/message_state.h"
#include "server/model/payload.h"

namespace sluice::broker {

// Also the order of a listing.
struct ListCursor {
  Lane lane = 0;
  Seq seq = 0;
};
struct ListedMessage {
  MessagePosition position;  // where it is now; its id is in the payload
  Payload payload;
  int64_t publish_ms = 0;
  uint64_t group_hash = 0;
  MessageState state = MessageState::kReady;
  WaitReason waiting = WaitReason::kUnspecified;
  int32_t attempt = 1;
  int32_t delivery_count = 0;
  int64_t until_ms = 0;  // lease end or due time, engine time; 0: neither
  std::optional<MessagePosition> blocked_by;  // an id; nothing: it has just left
  std::string leased_by;                      // the consumer's name, or its id if it has none
  std::shared_ptr<const Deaths> deaths;
};
// One bounded step of a listing: looks at up to `scan_max` messages from the cursor on. Changes
// nothing.
struct ListMessagesCommand {
  struct Outcome {
    std::vector<ListedMessage> messages;
    std::optional<ListCursor> next;  // nothing: that was the end
  };
  using Done = absl::AnyInvocable<void(absl::StatusOr<Outcome>)>;
  std::string queue;
  ListCursor cursor;
  int32_t scan_max = kPageSizeMax;
  int64_t bytes_max = kResponseBytesMax;  // of payloads; at least one message comes
  Done done;
};
struct GetMessageCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<ListedMessage>)>;  // MESSAGE_NOT_FOUND
  std::string queue;
  MessagePosition id;
  Done done;
};
// Takes the messages at these positions out of a queue, as one batch for each turn it needs. Those
// that are leased (unless asked for), settled or gone are skipped.
struct EditMessagesCommand {
  enum class Action : uint8_t {
    kDelete,
    kReschedule,  // to deliver_at_ms, or delay_ms from the decision
    kMove,        // to `to_queue`, or where that is empty to the queue that it died in last
  };
  using Done = absl::AnyInvocable<void(absl::StatusOr<int64_t>)>;  // how many
  std::string queue;
  std::vector<MessagePosition> positions;
  Action action = Action::kDelete;
  bool include_leased = false;  // kDelete only
  int64_t delay_ms = 0;
  int64_t deliver_at_ms = 0;
  std::string to_queue;
  Done done;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_MESSAGE_COMMANDS_H_
