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
  figures.leases_expired = counters.leases_expired;
  return figures;
}

void CountFailures(metrics::ServerMetrics* metrics, const std::string& queue, const char* op,
                   const std::vector<broker::SettleFailure>& failures) {
  for (const broker::SettleFailure& failure : failures) {
    metrics->SettleFailed(queue, op, ErrorReasonName(ReasonOf(failure.status)));
  }
}

// `outcome.failures` of a command that `done` answers are counted under `op`.
template <typename Done>
Done Counting(metrics::ServerMetrics* metrics, std::string queue, const char* op, Done done) {
  return [metrics, queue = std::move(queue), op, done = std::move(done)](auto outcome) mutable {
    if (outcome.ok()) CountFailures(metrics, queue, op, outcome->failures);
    done(std::move(outcome));
  };
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

void SettleCountingSink::Submit(broker::Command command) {
  if (auto* settle = std::get_if<broker::SettleCommand>(&command)) {
    // A call settles in one way: Ack, or one of the kinds of Nack.
    const bool is_ack =
        !settle->items.empty() && settle->items.front().action == broker::SettleAction::kAck;
    settle->done =
        Counting(metrics_, settle->queue, is_ack ? "ack" : "nack", std::move(settle->done));
  } else if (auto* extend = std::get_if<broker::ExtendLeaseCommand>(&command)) {
    extend->done = Counting(metrics_, extend->queue, "extend", std::move(extend->done));
  }
  next_->Submit(std::move(command));
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
