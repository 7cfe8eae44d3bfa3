// Settling what was delivered, and the step of several acks, nacks and publishes in one batch.
// What holds for every command: commands.h.
#ifndef SLUICE_SERVER_BROKER_SETTLE_COMMANDS_H_
#define SLUICE_SERVER_BROKER_SETTLE_COMMANDS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/broker/publish_commands.h"
#include "server/model/message_info.h"
#include "server/model/receipt.h"

namespace sluice::broker {

enum class SettleAction : uint8_t { kAck, kRetry, kDelay, kDeadLetter, kDiscard, kRelease };

// What has to be known of a message to nack it, when only an earlier boot has granted it and nothing
// of it is in memory.
struct MessageOutline {
  MessageInfo info;
  uint32_t size_bytes = 0;
};

struct SettleItem {
  Receipt receipt;
  SettleAction action = SettleAction::kAck;
  int64_t delay_ms = 0;  // kDelay only
  std::string reason = {};  // of a nack, for the message's death
  std::shared_ptr<const MessageOutline> outline = {};  // the shard's own: once it has read it
};
struct SettleFailure {
  int32_t index = 0;  // into `items`
  absl::Status status;
};
struct SettleOutcome {
  std::vector<SettleFailure> failures;
  int32_t settled = 0;  // items that did not fail
};
// Receipts of other queues fail per item with RECEIPT_INVALID.
struct SettleCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<SettleOutcome>)>;
  std::string queue;
  std::vector<SettleItem> items;
  Done done;
};

struct ExtendOutcome {
  std::vector<SettleFailure> failures;
  int64_t lease_expires_at_ms = 0;  // of those that were extended; 0: none was
};
struct ExtendLeaseCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<ExtendOutcome>)>;
  std::string queue;
  std::vector<Receipt> receipts;
  int64_t lease_ms = 0;  // from now; 0: the queue's
  Done done;
};

// Acks, nacks and publishes in one batch: all of them, or none. The first that cannot be done is
// the error, named by its path in the request.
struct TransactCommand {
  struct Settle {
    std::string queue;
    std::vector<SettleItem> items;
  };
  using Done =
      absl::AnyInvocable<void(absl::StatusOr<std::vector<std::vector<PublishedMessage>>>)>;
  std::vector<Settle> acks;
  std::vector<Settle> nacks;
  std::vector<Publish> publishes;
  Done done;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_SETTLE_COMMANDS_H_
