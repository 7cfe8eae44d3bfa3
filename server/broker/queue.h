// A queue and those who consume it: state only; shard*.cc hold the rules.
#ifndef SLUICE_SERVER_BROKER_QUEUE_H_
#define SLUICE_SERVER_BROKER_QUEUE_H_

#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "server/broker/consumer_commands.h"
#include "server/broker/group_table.h"
#include "server/broker/lane.h"
#include "server/broker/queue_commands.h"
#include "server/broker/takers.h"
#include "server/model/token_bucket.h"
#include "server/storage/rows.h"

namespace sluice::broker {

struct Queue;

// Deliveries that wait until the rows that made them true are durable.
struct HeldDeliveries {
  Lsn lsn = 0;
  std::vector<OutgoingDelivery> deliveries;
};

// One subscription, or one waiting Receive call.
struct Consumer {
  SubscriptionId id = 0;
  Queue* queue = nullptr;
  std::string name;
  std::string peer;
  std::string principal;
  int64_t connect_ms = 0;
  bool auto_ack = false;
  bool keep_leases_on_close = false;
  bool exclusive = false;
  int32_t priority = 0;
  TokenBucket rate;
  int64_t rate_timer_ns = 0;  // waits for a token; 0: does not
  bool draining = false;      // takes nothing until it has new credit
  bool drain_told = true;     // OnDrained has been called since it began to drain
  bool owns_queue = false;    // the queue is temporary and goes with it
  int64_t lease_ms = 0;
  int32_t max_in_flight = 0;
  int64_t max_bytes_in_flight = 0;
  int64_t messages_left = 0;  // until the stream ends; negative: no limit
  int64_t idle_timeout_ms = 0;
  int64_t timer_due_ns = 0;   // of its kIdle or kReceiveWait timer; 0: none

  // A subscription has a sink, a Receive call a `receive_done`.
  std::shared_ptr<SubscriptionSink> sink;
  ReceiveCommand::Done receive_done;
  uint64_t call_id = 0;

  int32_t in_flight = 0;
  int64_t bytes_in_flight = 0;
  uint64_t unwritten_bytes = 0;  // granted to a subscription and not yet reported written
  bool taking = false;  // is in its queue's `takers`
  bool answered = false;  // a Receive call that has got its messages
  bool ended = false;     // OnEnd was called; kept until the stream reports that it is over
  absl::flat_hash_set<std::pair<Lane, Seq>> leases;
  std::deque<Receipt> unwritten_auto_acks;    // auto_ack: delivered, not yet reported written
  std::vector<OutgoingDelivery> outbox;       // granted in this turn
  Lsn outbox_lsn = 0;                         // the last batch that they have to wait for
  std::deque<HeldDeliveries> held;

  bool IsReceive() const { return sink == nullptr; }
  // A message larger than the credit goes out alone.
  bool CanTake(uint32_t bytes, uint64_t unwritten_max) const {
    if (draining || messages_left == 0 || in_flight >= max_in_flight) return false;
    if (max_bytes_in_flight == 0 || unwritten_bytes >= unwritten_max) return false;
    return in_flight == 0 || bytes_in_flight + bytes <= max_bytes_in_flight;
  }
};

struct Queue {
  QueueId qid = 0;
  storage::QueueRow row;
  std::array<std::unique_ptr<LaneState>, kLanes> lanes;  // made when first used
  std::unique_ptr<GroupTable> groups;                    // likewise

  // Consumers with credit. One without is not here and costs nothing until it has some again.
  Takers takers;
  absl::btree_set<SubscriptionId> attached;       // every consumer, also streams that have ended
  absl::btree_set<SubscriptionId> subscriptions;  // streams that have not ended
  size_t receivers = 0;                           // waiting Receive calls
  SubscriptionId active = 0;  // the single active consumer, if there has to be one
  TokenBucket rate;
  int64_t rate_timer_ns = 0;  // waits for a token; 0: does not
  bool dispatch_pending = false;
  bool waits_for_open_messages = false;  // the shard's limit holds it up
  size_t open_messages = 0;
  QueueCounters counters;
  // Outcomes of messages that were removed while a receipt was out; until when to remember (ns).
  absl::flat_hash_map<std::pair<Lane, Seq>, int64_t> removed;
  std::deque<std::pair<int64_t, std::pair<Lane, Seq>>> removed_order;

  // Dead letters: open messages that wait for their move, and who waits for room here.
  std::deque<std::pair<Lane, Seq>> dying;
  size_t dying_stuck = 0;   // the last so many of them did not fit, and wait for room
  bool dying_pending = false;
  bool moving_dying = false;
  bool dead_letters_wait = false;         // the dead-letter queue had no room when last tried
  bool dead_letters_soon = false;         // of that: it makes some, by dropping what is being read
  std::vector<QueueId> waiting_sources;   // queues whose dead letters wait for room here
  // Parked publishes that do, by arrival; those behind the first are not tried before it. One that
  // waits for several queues keeps its place in each that it found full, also while another is: it
  // might never find room in all of them at once otherwise.
  absl::btree_set<uint64_t> waiting_for_room;
  absl::btree_set<uint64_t> impatient;  // of them, those that wait for no longer than a read takes
  bool room_made = false;
  bool dropping = false;  // what is to be dropped is being read
  // What was to be dropped next when that was read, for which the dead-letter queue had no room. To
  // read it again would not help until there is some.
  std::optional<std::pair<Lane, Seq>> undroppable;

  int64_t last_used_ms = 0;  // engine time, since the start of the process
  int64_t idle_timer_ms = 0; // engine time; 0: none

  size_t Consumers() const { return subscriptions.size() + receivers; }
  bool IsConsumed() const { return Consumers() > 0; }
  std::span<std::unique_ptr<LaneState>> ImmediateLanes() {
    return {lanes.data(), static_cast<size_t>(kImmediateLanes)};
  }
  uint64_t Bytes() const {
    uint64_t bytes = 0;
    for (const auto& lane : lanes) bytes += lane ? lane->unsettled_bytes : 0;
    return bytes;
  }
  uint64_t Leased() const {
    uint64_t count = 0;
    for (const auto& lane : lanes) count += lane ? lane->leased : 0;
    return count;
  }
  uint64_t Returning() const {
    uint64_t count = 0;
    for (const auto& lane : lanes) count += lane ? lane->returning : 0;
    return count;
  }
  uint64_t Unsettled() const {
    uint64_t count = 0;
    for (const auto& lane : lanes) count += lane ? lane->Unsettled() : 0;
    return count;
  }
  uint64_t Blocked(Lane lane) const { return groups ? groups->blocked(lane) : 0; }
  uint64_t Ready() const {
    uint64_t count = 0;
    for (Lane lane = 0; lane < kImmediateLanes; ++lane) {
      if (lanes[lane]) count += lanes[lane]->Ready() - Blocked(lane);
    }
    return count;
  }
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_QUEUE_H_
