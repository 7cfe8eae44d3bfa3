// Publishing: what a message brings, and what becomes of it.
// What holds for every command: commands.h.
#ifndef SLUICE_SERVER_BROKER_PUBLISH_COMMANDS_H_
#define SLUICE_SERVER_BROKER_PUBLISH_COMMANDS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "server/model/hash.h"
#include "server/model/ids.h"
#include "server/model/payload.h"
#include "server/model/queue_config.h"

namespace sluice::broker {

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
  // Names whoever waits: in AbandonPublishesCommand, and as the line of an exchange in which its
  // publishes keep their order. Unique per boot. 0: a single call that waits for no room.
  uint64_t caller = 0;
  Done done;
};
// The caller has gone: those of its publishes that wait for room are refused CANCELLED. What has been
// decided stays.
struct AbandonPublishesCommand {
  uint64_t caller = 0;
};

// A stream with a producer id begins; an older one of the same target and id is fenced: what it
// publishes from now on is refused PRODUCER_FENCED. When the target is deleted the stream ends as
// well, whether or not there is a new one of that name: QUEUE_DELETED or EXCHANGE_NOT_FOUND.
struct ProducerOpened {
  uint64_t stream = 0;
  int64_t last_sequence = 0;
};
struct OpenProducerCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<ProducerOpened>)>;
  std::string queue;
  std::string exchange;
  std::string producer_id;
  // Once, with the reason, if the stream is fenced or its target is gone for good: nothing more of
  // it is stored.
  absl::AnyInvocable<void(const absl::Status&)> ended;
  Done done;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_PUBLISH_COMMANDS_H_
