// What the rest of the server can ask of a shard, and how it answers.
//
// A command is moved into the shard's inbox from any thread and decided on its engine thread. Every
// `done` runs exactly once, on the engine thread, after what it reports is durable; it must be quick
// and must not block. An error handed to `done` is an explicit refusal unless its code is
// UNAVAILABLE. Times are milliseconds; limits are checked by whoever builds the command
// (server/api), names and state by the shard.
#ifndef SLUICE_SERVER_BROKER_COMMANDS_H_
#define SLUICE_SERVER_BROKER_COMMANDS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/error.h"
#include "server/model/ids.h"
#include "server/model/payload.h"
#include "server/model/queue_config.h"
#include "server/model/receipt.h"

namespace sluice::broker {

// ---- publishing

struct NewMessage {
  // Wire-ready sluice.v1.Message of the publisher without fields 13, 14, 16, followed by
  // kServerFieldsBytes unwritten bytes that the engine fills in (model/server_fields.h).
  // Not yet shared with anyone.
  Payload payload;
  int priority = kPriorityDefault;
};

struct PublishedMessage {
  MessagePosition position;  // FormatMessageId gives the id
  bool duplicate = false;
  int32_t routed_queues = 1;
};

// All messages or none.
struct PublishCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<std::vector<PublishedMessage>>)>;
  std::string queue;
  std::vector<NewMessage> messages;
  Done done;
};

// ---- delivering

using SubscriptionId = uint64_t;  // unique within one boot, never 0

struct OutgoingDelivery {
  Receipt receipt;
  int32_t attempt = 1;
  int64_t lease_expires_at_ms = 0;  // engine time: milliseconds since 1970
  bool maybe_redelivered = false;
  Payload payload;  // serialised sluice.v1.Message, immutable
};

// The shard's end of one subscription stream. Implemented by server/api. Called on the engine
// thread only; must not block. Nothing is called after OnEnd.
class SubscriptionSink {
 public:
  struct Started {
    SubscriptionId id = 0;
    std::string queue;
    int64_t lease_ms = 0;
    int32_t max_in_flight = 0;
    int64_t max_bytes_in_flight = 0;
  };

  virtual ~SubscriptionSink() = default;
  // Once, before any delivery; or OnEnd comes instead.
  virtual void OnStarted(const Started& started) = 0;
  virtual void OnDeliveries(std::vector<OutgoingDelivery> deliveries) = 0;
  // Leases that ended without the consumer settling them.
  virtual void OnLeaseLost(std::vector<Receipt> receipts, ErrorReason reason) = 0;
  // OK: max_messages or idle_timeout reached; leases are kept. Otherwise the reason for the stream's
  // end, for example QUEUE_DELETED or DRAINING.
  virtual void OnEnd(absl::Status status) = 0;
};

struct SubscribeCommand {
  std::string queue;
  std::string consumer;  // the client's name for itself; may be empty
  int32_t max_in_flight = kMaxInFlightDefault;
  int64_t max_bytes_in_flight = kMaxBytesInFlightDefault;
  int64_t lease_ms = 0;         // 0: the queue's
  bool auto_ack = false;        // settle on WrittenCommand
  int64_t max_messages = 0;     // 0: no limit
  int64_t idle_timeout_ms = 0;  // 0: none; counted from the last delivery
  bool keep_leases_on_close = false;
  std::string peer;
  std::shared_ptr<SubscriptionSink> sink;
};

// Which subscription a stream's later commands are about: the id may not be known yet (OnStarted
// not called), so they name the sink.
using SinkKey = const SubscriptionSink*;

// The transport has taken deliveries. With auto_ack the oldest `deliveries` not yet reported are
// settled. `bytes` of payloads wait no longer: they were written, or dropped after OnLeaseLost; to be
// reported whenever they come to kUnwrittenReportBytes.
struct WrittenCommand {
  SinkKey sink = nullptr;
  uint32_t deliveries = 0;
  uint64_t bytes = 0;
};

// The stream is over (cancelled, broken or finished after OnEnd). Safe to send more than once and
// after OnEnd. Leases become ready at once (a failure of the attempt) unless keep_leases_on_close;
// deliveries that were never written are released uncounted.
struct CloseSubscriptionCommand {
  std::shared_ptr<SubscriptionSink> sink;
  std::vector<Receipt> unwritten;
};

struct ReceiveCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<std::vector<OutgoingDelivery>>)>;
  std::string queue;
  std::string consumer;
  uint64_t call_id = 0;  // chosen by the caller, unique per boot; names the call in CancelReceive
  int32_t max_messages = 1;
  int64_t max_bytes = kResponseBytesMax;  // of serialised messages; one larger message goes alone
  int64_t wait_ms = 0;                    // answers empty when it has passed
  int64_t lease_ms = 0;                   // 0: the queue's
  bool auto_ack = false;                  // settle on ReceiveWrittenCommand
  Done done;
};
// The caller has gone while waiting: `done` is still called, with nothing.
struct CancelReceiveCommand {
  std::string queue;
  uint64_t call_id = 0;
};
// The answer was handed to the transport (settles if auto_ack), or could not be (releases,
// uncounted). Send only when auto_ack is set or written is false.
struct ReceiveWrittenCommand {
  std::vector<Receipt> receipts;
  bool auto_ack = false;
  bool written = true;
};

// ---- settling

enum class SettleAction : uint8_t { kAck, kRetry, kDelay, kDiscard, kRelease };

struct SettleItem {
  Receipt receipt;
  SettleAction action = SettleAction::kAck;
  int64_t delay_ms = 0;  // kDelay only
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
  int64_t lease_expires_at_ms = 0;
};
struct ExtendLeaseCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<ExtendOutcome>)>;
  std::string queue;
  std::vector<Receipt> receipts;
  int64_t lease_ms = 0;  // from now; 0: the queue's
  Done done;
};

// ---- queues

struct QueueStats {
  int64_t ready = 0;
  int64_t leased = 0;
  int64_t delayed = 0;
  int64_t blocked = 0;
  int64_t bytes = 0;  // of every unsettled message, serialised
  int32_t consumers = 0;
  int64_t oldest_ready_age_ms = 0;
};
// Since the start of this process.
struct QueueCounters {
  uint64_t published = 0;
  uint64_t published_bytes = 0;
  uint64_t delivered = 0;
  uint64_t redelivered = 0;
  uint64_t acked = 0;
  uint64_t discarded = 0;
  uint64_t retried = 0;
  uint64_t leases_expired = 0;
  uint64_t purged = 0;
};
struct QueueInfo {
  QueueConfig config;
  QueueStats stats;
  QueueCounters counters;
  int64_t create_ms = 0;
  int64_t update_ms = 0;
  uint64_t revision = 0;  // the etag
};

// Only the fields that the client set; the rest is the default (create) or stays (update).
struct QueueConfigChange {
  std::string name;
  std::optional<int64_t> lease_ms;
  std::optional<int64_t> min_backoff_ms;
  std::optional<int64_t> max_backoff_ms;
  std::optional<std::map<std::string, std::string>> labels;
};

struct CreateQueueOutcome {
  QueueInfo queue;
  bool created = false;
};
struct CreateQueueCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<CreateQueueOutcome>)>;
  QueueConfigChange config;
  Done done;
};
struct GetQueueCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<QueueInfo>)>;
  std::string queue;
  Done done;
};
struct ListQueuesOutcome {
  std::vector<QueueInfo> queues;  // in order of name
  bool more = false;              // continue after `last_name`; `queues` may be empty all the same
  std::string last_name;          // the last one looked at
};
struct ListQueuesCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<ListQueuesOutcome>)>;
  std::string name_glob;   // `*` and `?`; empty: all
  std::string after_name;  // exclusive; empty: from the start
  int32_t limit = kPageSizeDefault;
  Done done;
};
struct UpdateQueueCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<QueueInfo>)>;
  QueueConfigChange config;
  bool replace = false;        // `*`: fields not set go back to their defaults
  uint64_t if_revision = 0;    // 0: any
  Done done;
};
struct DeleteQueueCommand {
  using Done = absl::AnyInvocable<void(absl::Status)>;
  std::string queue;
  bool if_empty = false;
  bool if_unused = false;
  uint64_t if_revision = 0;  // 0: any
  Done done;
};
struct PurgeQueueCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<int64_t>)>;  // messages purged
  std::string queue;
  bool dry_run = false;
  bool include_leased = false;
  Done done;
};

// ---- the shard itself

struct ShardTotals {
  size_t queues = 0;
  size_t subscriptions = 0;
  size_t open_messages = 0;
  size_t window_bytes = 0;  // payloads kept in memory
  Lsn lsn = 0;
  Lsn durable_lsn = 0;
};
struct ShardInfo {
  ShardTotals totals;
  std::vector<QueueInfo> queues;  // in order of name
  // For the rest when there are more than `queues_max` (metrics): sums over them.
  QueueStats other_stats;
  QueueCounters other_counters;
};
struct InspectCommand {
  using Done = absl::AnyInvocable<void(ShardInfo)>;
  size_t queues_max = 1000;
  Done done;
};

// Stop taking work: new publishes, subscriptions and receives are refused DRAINING, streams end
// DRAINING, waits are answered empty. Settling goes on. `done` when what was taken before is durable
// and answered.
struct DrainCommand {
  absl::AnyInvocable<void()> done;
};
// The last command: saves leases, marks the stop as clean, makes it durable, then `done`.
struct StopCommand {
  absl::AnyInvocable<void()> done;
};

using Command =
    std::variant<PublishCommand, SettleCommand, WrittenCommand, ReceiveCommand,
                 ReceiveWrittenCommand, CancelReceiveCommand, SubscribeCommand,
                 CloseSubscriptionCommand, ExtendLeaseCommand, CreateQueueCommand, GetQueueCommand,
                 ListQueuesCommand, UpdateQueueCommand, DeleteQueueCommand, PurgeQueueCommand,
                 InspectCommand, DrainCommand, StopCommand>;

// Where commands go in. Thread-safe; never blocks.
class CommandSink {
 public:
  virtual ~CommandSink() = default;
  virtual void Submit(Command command) = 0;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_COMMANDS_H_
