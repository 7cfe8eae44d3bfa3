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
#include "server/model/death.h"
#include "server/model/error.h"
#include "server/model/exchange.h"
#include "server/model/hash.h"
#include "server/model/ids.h"
#include "server/model/message_state.h"
#include "server/model/payload.h"
#include "server/model/queue_config.h"
#include "server/model/receipt.h"

namespace sluice::broker {

// ---- configuration

// Only the fields that the client set; the rest is the default (create) or stays (update).
struct QueueConfigChange {
  std::string name;
  std::optional<int64_t> lease_ms;
  std::optional<int32_t> max_attempts;
  std::optional<int64_t> min_backoff_ms;
  std::optional<int64_t> max_backoff_ms;
  std::optional<bool> discard_when_exhausted;
  std::optional<std::string> dead_letter_queue;
  std::optional<int64_t> ttl_ms;
  std::optional<int64_t> max_length;
  std::optional<int64_t> max_bytes;
  std::optional<Overflow> overflow;
  std::optional<int64_t> dedup_window_ms;
  std::optional<RateLimit> delivery_rate;
  std::optional<bool> single_active_consumer;
  std::optional<std::map<std::string, std::string>> labels;
  std::optional<int64_t> priority_aging_ms;
  std::optional<int64_t> idle_expiry_ms;
};

// ---- publishing

// What only some messages have; kept apart so that plain ones stay small.
struct MessageOptions {
  uint64_t group_hash = 0;      // KeyedHash::Group of its name; 0: no group
  int64_t delay_ms = 0;         // from the decision; 0: none
  int64_t deliver_at_ms = 0;    // engine time; 0: none. Excludes delay_ms
  int64_t ttl_ms = 0;           // from when it is due; 0: the queue's. The shorter of both counts
  std::optional<Hash128> dedup;  // KeyedHash::Wide of its dedup_id
  // Only read when the publish goes to an exchange.
  std::string routing_key;
  std::vector<std::pair<std::string, std::string>> attributes;
};

struct NewMessage {
  // Wire-ready sluice.v1.Message of the publisher without fields 13, 14 and with the server's field
  // 16, followed by kServerFieldsBytes unwritten bytes that the engine fills in
  // (model/server_fields.h). Not yet shared with anyone.
  Payload payload;
  int priority = kPriorityDefault;
  std::unique_ptr<MessageOptions> options = nullptr;  // null: none of them is set
};

struct PublishedMessage {
  MessagePosition id;  // FormatMessageId writes it
  bool duplicate = false;
  int32_t routed_queues = 1;  // 0: no route, and nothing was stored: `id` is not set
};

// All messages or none. Exactly one of `queue` and `exchange` is set.
struct Publish {
  std::string queue;
  std::string exchange;
  bool mandatory = false;
  int64_t wait_when_full_ms = 0;  // 0: a full queue refuses at once
  std::vector<NewMessage> messages;
};

struct PublishCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<std::vector<PublishedMessage>>)>;
  Publish publish;
  // Set for a stream with a producer id: the sequence of the first message, and which stream it is
  // (ProducerOpened::stream). Messages at or below the producer's last sequence are duplicates.
  uint64_t producer_stream = 0;
  int64_t first_sequence = 0;
  Done done;
};

// A stream with a producer id begins; an older one of the same target and id is fenced: what it
// publishes from now on is refused PRODUCER_FENCED.
struct ProducerOpened {
  uint64_t stream = 0;
  int64_t last_sequence = 0;
};
struct OpenProducerCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<ProducerOpened>)>;
  std::string queue;
  std::string exchange;
  std::string producer_id;
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
  std::shared_ptr<const Deaths> deaths;  // null: none
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
  // Once for each DrainSubscriptionCommand: no delivery follows until new credit is given.
  virtual void OnDrained() = 0;
  // OK: max_messages or idle_timeout reached; leases are kept. Otherwise the reason for the stream's
  // end, for example QUEUE_DELETED or DRAINING.
  virtual void OnEnd(absl::Status status) = 0;
};

// A queue that lives as long as the stream that made it.
struct TemporaryQueueSpec {
  QueueConfigChange config;  // the name is chosen by the caller: `sluice.tmp.` and 128 random bits
  std::vector<Binding> bindings;  // to that queue
};

struct SubscribeCommand {
  std::string queue;
  std::unique_ptr<TemporaryQueueSpec> temporary_queue;  // instead of `queue`
  std::string consumer;  // the client's name for itself; may be empty
  int32_t max_in_flight = kMaxInFlightDefault;
  int64_t max_bytes_in_flight = kMaxBytesInFlightDefault;
  int64_t lease_ms = 0;         // 0: the queue's
  bool auto_ack = false;        // settle on WrittenCommand
  int64_t max_messages = 0;     // 0: no limit
  int64_t idle_timeout_ms = 0;  // 0: none; counted from the last delivery
  bool keep_leases_on_close = false;
  bool exclusive = false;
  int32_t consumer_priority = 0;  // higher ones are served first while they have credit
  RateLimit delivery_rate;
  std::string peer;
  std::string principal;
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

// New limits for the credit of a live stream; 0 holds deliveries. What it holds already stays.
struct SetCreditCommand {
  SinkKey sink = nullptr;
  int32_t max_in_flight = 0;
  int64_t max_bytes_in_flight = 0;
};

// No more deliveries; OnDrained comes after the last one. Leases stay.
struct DrainSubscriptionCommand {
  SinkKey sink = nullptr;
};

// The stream is over (cancelled, broken or finished after OnEnd). Safe to send more than once and
// after OnEnd. Leases become ready at once (a failure of the attempt) unless keep_leases or
// keep_leases_on_close; deliveries that were never written are released uncounted.
struct CloseSubscriptionCommand {
  std::shared_ptr<SubscriptionSink> sink;
  std::vector<Receipt> unwritten;
  bool keep_leases = false;  // the client ended the stream in good order
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

enum class SettleAction : uint8_t { kAck, kRetry, kDelay, kDeadLetter, kDiscard, kRelease };

struct SettleItem {
  Receipt receipt;
  SettleAction action = SettleAction::kAck;
  int64_t delay_ms = 0;  // kDelay only
  std::string reason = {};  // of a nack, for the message's death
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
  uint64_t dead_lettered = 0;
  uint64_t expired = 0;
  uint64_t dropped = 0;  // to make room: DROP_HEAD
  uint64_t duplicates = 0;
};
struct QueueInfo {
  QueueConfig config;
  QueueId qid = 0;
  bool paused = false;
  std::vector<WaitReason> waiting;  // why ready messages are not going out
  QueueStats stats;
  QueueCounters counters;
  int64_t create_ms = 0;
  int64_t update_ms = 0;
  uint64_t revision = 0;  // the etag
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

struct PauseQueueCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<QueueInfo>)>;
  std::string queue;
  bool paused = true;
  Done done;
};

// ---- exchanges

struct CreateExchangeCommand {
  struct Outcome {
    Exchange exchange;
    bool created = false;
  };
  using Done = absl::AnyInvocable<void(absl::StatusOr<Outcome>)>;
  ExchangeChange exchange;
  Done done;
};
struct GetExchangeCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<Exchange>)>;
  std::string exchange;
  Done done;
};
struct ListExchangesCommand {
  struct Outcome {
    std::vector<Exchange> exchanges;  // in order of name
    bool more = false;
  };
  using Done = absl::AnyInvocable<void(absl::StatusOr<Outcome>)>;
  std::string name_glob;
  std::string after_name;
  int32_t limit = kPageSizeDefault;
  Done done;
};
struct UpdateExchangeCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<Exchange>)>;
  ExchangeChange exchange;
  bool replace = false;
  Done done;
};
struct DeleteExchangeCommand {
  using Done = absl::AnyInvocable<void(absl::Status)>;
  std::string exchange;
  bool if_unused = false;  // refuse while it has bindings, or one leads to it
  Done done;
};
struct CreateBindingCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<bool>)>;  // false: it was there
  Binding binding;
  Done done;
};
struct DeleteBindingCommand {
  using Done = absl::AnyInvocable<void(absl::Status)>;
  Binding binding;
  Done done;
};
struct ListBindingsCommand {
  struct Outcome {
    std::vector<Binding> bindings;  // in order of their identity
    std::string next_cursor;        // empty: these were the last
  };
  using Done = absl::AnyInvocable<void(absl::StatusOr<Outcome>)>;
  std::string exchange;  // empty: any
  std::string queue;     // empty: any
  std::string cursor;
  int32_t limit = kPageSizeDefault;
  Done done;
};

// ---- looking at messages and moving them

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

// ---- consumers

struct ConsumerInfo {
  SubscriptionId id = 0;
  std::string consumer;
  std::string queue;
  std::string principal;
  std::string peer;
  int32_t in_flight = 0;
  int64_t bytes_in_flight = 0;
  bool active = true;  // false: waits its turn behind a single active consumer
  int64_t connect_ms = 0;
};
struct ListConsumersCommand {
  struct Outcome {
    std::vector<ConsumerInfo> consumers;  // in order of id
    bool more = false;
  };
  using Done = absl::AnyInvocable<void(absl::StatusOr<Outcome>)>;
  std::string queue;  // empty: all
  SubscriptionId after = 0;
  int32_t limit = kPageSizeDefault;
  Done done;
};
// Ends the stream; its leases are ready at once.
struct CloseConsumerCommand {
  using Done = absl::AnyInvocable<void(absl::Status)>;
  SubscriptionId id = 0;
  Done done;
};

// ---- definitions

struct Definitions {
  std::vector<QueueConfigChange> queues;
  std::vector<ExchangeChange> exchanges;
  std::vector<Binding> bindings;
};
struct DefinitionChange {
  enum class Action : uint8_t { kNone = 1, kCreate, kUpdate, kDelete };
  std::string resource;  // "queue orders", "exchange events", "binding events -> orders"
  Action action = Action::kNone;
  std::vector<std::string> differences;  // "lease: 30s -> 60s"
};
// Makes what there is agree with the definitions: all of it or nothing. A field that is not set
// stays as it is. Queues that live with a stream are left alone.
struct ApplyDefinitionsCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<std::vector<DefinitionChange>>)>;
  Definitions definitions;
  bool dry_run = false;
  // What is not named goes. A queue that holds messages, or has consumers, refuses the whole:
  // NOT_EMPTY or IN_USE.
  bool prune = false;
  Done done;
};

// All that is defined, as of one moment. Queues that live with a stream, and bindings to them, are
// left out.
struct DefinitionsSnapshot {
  std::vector<QueueConfig> queues;  // in order of name, as exchanges are
  std::vector<Exchange> exchanges;
  std::vector<Binding> bindings;
};
// RESOURCE_EXHAUSTED if the texts in it take more than `bytes_max`: it is taken in one turn.
struct ExportDefinitionsCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<DefinitionsSnapshot>)>;
  size_t bytes_max = 0;
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
                 ReceiveWrittenCommand, CancelReceiveCommand, SubscribeCommand, SetCreditCommand,
                 DrainSubscriptionCommand, CloseSubscriptionCommand, ExtendLeaseCommand,
                 TransactCommand, OpenProducerCommand, CreateQueueCommand, GetQueueCommand,
                 ListQueuesCommand, UpdateQueueCommand, DeleteQueueCommand, PurgeQueueCommand,
                 PauseQueueCommand, CreateExchangeCommand, GetExchangeCommand, ListExchangesCommand,
                 UpdateExchangeCommand, DeleteExchangeCommand, CreateBindingCommand,
                 DeleteBindingCommand, ListBindingsCommand, ListMessagesCommand, GetMessageCommand,
                 EditMessagesCommand, ListConsumersCommand, CloseConsumerCommand,
                 ApplyDefinitionsCommand, ExportDefinitionsCommand, InspectCommand, DrainCommand,
                 StopCommand>;

// Where commands go in. Thread-safe; never blocks.
class CommandSink {
 public:
  virtual ~CommandSink() = default;
  virtual void Submit(Command command) = 0;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_COMMANDS_H_
