// The shard itself: what it looks like from outside, and its end.
// What holds for every command: commands.h.
#ifndef SLUICE_SERVER_BROKER_SHARD_COMMANDS_H_
#define SLUICE_SERVER_BROKER_SHARD_COMMANDS_H_

#include <cstddef>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "server/broker/queue_commands.h"
#include "server/model/ids.h"

namespace sluice::broker {

struct ShardTotals {
  size_t queues = 0;
  size_t subscriptions = 0;
  size_t open_messages = 0;
  size_t window_bytes = 0;  // payloads kept in memory
  Lsn lsn = 0;
  Lsn durable_lsn = 0;
  // Since the start of this process.
  uint64_t unrouted = 0;
  uint64_t producers_fenced = 0;
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

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_SHARD_COMMANDS_H_
