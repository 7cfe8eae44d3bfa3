// Queues: making, changing and describing them. What holds for every command: commands.h.
#ifndef SLUICE_SERVER_BROKER_QUEUE_COMMANDS_H_
#define SLUICE_SERVER_BROKER_QUEUE_COMMANDS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/ids.h"
#include "server/model/limits.h"
#include "server/model/message_state.h"
#include "server/model/queue_config.h"

namespace sluice::broker {

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

struct QueueStats {
  int64_t ready = 0;
  int64_t leased = 0;
  int64_t delayed = 0;
  int64_t blocked = 0;
  int64_t dying = 0;  // of them, those that wait for their move to the dead-letter queue
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
  uint64_t moved = 0;  // to another queue, by a redrive
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
  int64_t now_ms = 0;     // when this was so: engine time, as in the times of messages
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

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_QUEUE_COMMANDS_H_
