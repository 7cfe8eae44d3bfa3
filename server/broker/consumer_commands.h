// Consuming: subscriptions, waiting Receive calls, and looking after those who consume.
// What holds for every command: commands.h.
#ifndef SLUICE_SERVER_BROKER_CONSUMER_COMMANDS_H_
#define SLUICE_SERVER_BROKER_CONSUMER_COMMANDS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/broker/queue_commands.h"
#include "server/model/death.h"
#include "server/model/error.h"
#include "server/model/exchange.h"
#include "server/model/ids.h"
#include "server/model/limits.h"
#include "server/model/payload.h"
#include "server/model/queue_config.h"
#include "server/model/receipt.h"

namespace sluice::broker {

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

// ---- who consumes

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

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_CONSUMER_COMMANDS_H_
