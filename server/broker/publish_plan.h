// What a publish would do, worked out before anything is changed, so that it is done whole or not.
#ifndef SLUICE_SERVER_BROKER_PUBLISH_PLAN_H_
#define SLUICE_SERVER_BROKER_PUBLISH_PLAN_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "server/broker/publish_commands.h"
#include "server/broker/queue.h"
#include "server/broker/recent_ids.h"
#include "server/broker/settle_commands.h"
#include "server/model/limits.h"

namespace sluice::broker {

struct PublishPlan {
  int64_t routing_steps_left = kRoutingStepsMax;  // of all its messages
  // Where a message that bears a deduplication id was stored first.
  struct First {
    MessagePosition id;
    size_t planned = kNotPlanned;  // or it is this message of the plan, which has no id yet
    static constexpr size_t kNotPlanned = SIZE_MAX;
  };
  struct Message {
    NewMessage* message = nullptr;
    absl::InlinedVector<Queue*, 1> stored_in;
    absl::InlinedVector<Queue*, 1> had_it;  // stored a message with its deduplication id before
    int32_t routed = 0;
    std::optional<First> first;
  };
  struct Demand {
    int64_t messages = 0;
    int64_t bytes = 0;
  };

  std::vector<Message> messages;  // of all publishes, one after the other
  absl::btree_map<QueueId, Demand> demand;  // in order, so that one plan is done in one way
  // What a transaction settles: it must still be there then, and what leaves makes room.
  struct Settling {
    absl::btree_set<std::pair<Lane, Seq>> messages;
    int64_t leaving = 0;  // of them, those that the queue is then rid of
    int64_t leaving_bytes = 0;
  };
  absl::btree_map<QueueId, Settling> settling;
  // Messages, by queue and index, that later ones of the same publish push out of a queue which
  // drops its head and holds less than all of them.
  absl::flat_hash_set<std::pair<QueueId, size_t>> pushed_out;
  absl::flat_hash_set<QueueId> takes_pushed_out;  // their dead-letter queues
  absl::flat_hash_map<RecentIds::Key, First> planned_ids;
  // Not empty: rows of the store that have to be known before the plan can be made.
  std::vector<RecentIds::Key> unknown;
  Queue* full = nullptr;  // a queue that has no room
};

// A publish that waits: for rows of the store, or for room in a queue.
struct ParkedPublish {
  uint64_t id = 0;  // in order of arrival
  std::string line;  // those with the same line keep their order
  std::variant<PublishCommand, TransactCommand> command;
  int64_t bytes = 0;
  // What the store said; nothing: no such row.
  absl::flat_hash_map<RecentIds::Key, std::optional<storage::DedupRow>> looked_up;
  Lsn looked_up_from = 0;  // what was durable when the first lookup was started; 0: none was
  bool reading = false;
  int64_t known_duplicates = 0;  // leading messages that the producer had sent before
  int64_t give_up_ns = 0;  // monotonic, of its wait for room; 0: does not wait for that
  bool waits_for_room = false;
  QueueId stopped_at = 0;  // the queue that had no room for it when last tried
  // Queues in which it found no room: it stands there (Queue::waiting_for_room) by the time it came,
  // until it is stored or refused.
  absl::InlinedVector<QueueId, 2> awaits;
};

// Publishes that keep their order among each other: only the first is tried.
struct ParkedLine {
  absl::btree_set<uint64_t> ids;
  size_t impatient = 0;  // of them, those that are not to wait for room
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_PUBLISH_PLAN_H_
