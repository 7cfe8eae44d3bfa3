// A queue and those who consume it: state only; shard*.cc hold the rules.
#ifndef SLUICE_SERVER_BROKER_QUEUE_H_
#define SLUICE_SERVER_BROKER_QUEUE_H_

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "server/broker/commands.h"
#include "server/broker/lane.h"
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
  bool auto_ack = false;
  bool keep_leases_on_close = false;
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
    if (messages_left == 0 || in_flight >= max_in_flight) return false;
    if (unwritten_bytes >= unwritten_max) return false;
    return in_flight == 0 || bytes_in_flight + bytes <= max_bytes_in_flight;
  }
};

struct Queue {
  QueueId qid = 0;
  storage::QueueRow row;
  std::array<std::unique_ptr<LaneState>, kImmediateLanes> lanes;  // made when first used
  // Consumers with credit, in the order of their turns. One without credit is not here and costs
  // nothing until it has some again.
  std::deque<SubscriptionId> takers;
  size_t consumers = 0;  // subscriptions; waiting Receive calls do not count
  size_t receivers = 0;
  bool dispatch_pending = false;
  bool waits_for_open_messages = false;  // the shard's limit holds it up
  size_t open_messages = 0;
  QueueCounters counters;
  // Outcomes of messages that were removed while a receipt was out; until when to remember (ns).
  absl::flat_hash_map<std::pair<Lane, Seq>, int64_t> removed;
  std::deque<std::pair<int64_t, std::pair<Lane, Seq>>> removed_order;

  bool IsConsumed() const { return consumers + receivers > 0; }
  uint64_t Unsettled() const {
    uint64_t count = 0;
    for (const auto& lane : lanes) count += lane ? lane->Unsettled() : 0;
    return count;
  }
  uint64_t Ready() const {
    uint64_t count = 0;
    for (const auto& lane : lanes) count += lane ? lane->Ready() : 0;
    return count;
  }
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_QUEUE_H_
