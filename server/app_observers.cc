#include "server/app_observers.h"

#include <memory>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "server/metrics/names.h"

namespace sluice {
namespace {

// What an InspectCommand fills in; shared, as its asker may have stopped waiting.
struct Inspection {
  absl::Mutex mutex;
  bool answered ABSL_GUARDED_BY(mutex) = false;
  broker::ShardInfo info ABSL_GUARDED_BY(mutex);
};

metrics::QueueFigures FiguresOf(std::string name, const broker::QueueStats& stats,
                                const broker::QueueCounters& counters) {
  metrics::QueueFigures figures;
  figures.queue = std::move(name);
  figures.ready = stats.ready;
  figures.leased = stats.leased;
  figures.delayed = stats.delayed;
  figures.blocked = stats.blocked;
  figures.dying = stats.dying;
  figures.bytes = stats.bytes;
  figures.consumers = stats.consumers;
  figures.oldest_ready_age_ms = stats.oldest_ready_age_ms;
  figures.published = counters.published;
  figures.published_bytes = counters.published_bytes;
  figures.delivered = counters.delivered;
  figures.redelivered = counters.redelivered;
  figures.acked = counters.acked;
  figures.retried = counters.retried;
  figures.discarded = counters.discarded;
  figures.purged = counters.purged;
  figures.dead_lettered = counters.dead_lettered;
  figures.expired = counters.expired;
  figures.dropped = counters.dropped;
  figures.duplicates = counters.duplicates;
  figures.moved = counters.moved;
  figures.leases_expired = counters.leases_expired;
  return figures;
}

// The value of the label `op` for a settling call.
std::string_view SettleOp(const api::RpcMethod& method) {
  if (method.method == "Nack") return "nack";
  return method.method == "ExtendLease" ? "extend" : "ack";
}

}  // namespace

std::vector<metrics::GrpcMethod> GrpcMethodsForMetrics() {
  std::vector<metrics::GrpcMethod> methods;
  for (const api::RpcMethod& method : api::AllRpcMethods()) {
    methods.push_back(
        {method.service, method.method, std::string(api::RpcTypeName(method.type))});
  }
  return methods;
}

std::vector<std::string> GrpcCodesForMetrics() {
  std::vector<std::string> codes;
  for (int code = 0; code <= api::kRpcCodeMax; ++code) codes.emplace_back(api::RpcCodeName(code));
  return codes;
}

void EngineMetrics::OnBatch(uint32_t commands, uint32_t messages, size_t bytes) {
  metrics_->BatchMade(commands, messages, bytes);
}

void LogMetrics::OnWrite(uint64_t batches, uint64_t bytes) { metrics_->LogWritten(batches, bytes); }
void LogMetrics::OnSync(double seconds) { metrics_->LogSynced(seconds); }

void RpcMetrics::OnStarted(const api::RpcMethod& method) { metrics_->CallStarted(method.id); }
void RpcMetrics::OnMessageReceived(const api::RpcMethod& method) {
  metrics_->CallMessageReceived(method.id);
}
void RpcMetrics::OnMessageSent(const api::RpcMethod& method) {
  metrics_->CallMessageSent(method.id);
}
void RpcMetrics::OnHandled(const api::RpcMethod& method, int code, double seconds) {
  metrics_->CallHandled(method.id, code, seconds);
}

void RpcMetrics::OnSettleFailure(const api::RpcMethod& method, std::string_view queue,
                                 ErrorReason reason) {
  metrics_->SettleFailed(queue, SettleOp(method), ErrorReasonName(reason));
}

metrics::ShardFigures InspectShard(broker::CommandSink* sink, absl::Duration timeout) {
  const auto inspection = std::make_shared<Inspection>();
  broker::InspectCommand command;
  command.queues_max = metrics::kQueuesMax;
  command.done = [inspection](broker::ShardInfo info) {
    absl::MutexLock lock(&inspection->mutex);
    inspection->info = std::move(info);
    inspection->answered = true;
  };
  sink->Submit(std::move(command));

  broker::ShardInfo info;
  metrics::ShardFigures figures;
  {
    absl::MutexLock lock(&inspection->mutex);
    figures.engine_up =
        inspection->mutex.AwaitWithTimeout(absl::Condition(&inspection->answered), timeout);
    if (!figures.engine_up) return figures;
    info = std::move(inspection->info);
  }
  figures.queues_total = info.totals.queues;
  figures.subscriptions = info.totals.subscriptions;
  figures.open_messages = info.totals.open_messages;
  figures.window_bytes = info.totals.window_bytes;
  figures.lsn = info.totals.lsn;
  figures.durable_lsn = info.totals.durable_lsn;
  figures.unrouted = info.totals.unrouted;
  figures.producers_fenced = info.totals.producers_fenced;
  figures.queues.reserve(info.queues.size() + 1);
  for (const broker::QueueInfo& queue : info.queues) {
    figures.queues.push_back(FiguresOf(queue.config.name, queue.stats, queue.counters));
  }
  if (info.totals.queues > info.queues.size()) {
    figures.queues.push_back(
        FiguresOf(metrics::kOtherQueues, info.other_stats, info.other_counters));
  }
  return figures;
}

metrics::StoreFigures FiguresOf(const storage::RocksStats& stats) {
  return {.disk_bytes = stats.disk_bytes,
          .reclaimed_bytes = stats.reclaimed_bytes,
          .memtable_bytes = stats.memtable_bytes,
          .immutable_memtables = stats.immutable_memtables,
          .pending_compaction_bytes = stats.pending_compaction_bytes};
}

}  // namespace sluice
