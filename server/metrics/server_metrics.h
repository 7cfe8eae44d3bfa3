// All that the server counts, and the page that Prometheus reads.
//
// Counting is thread-safe and cheap enough for every call and batch. What belongs to queues is not
// counted here but asked of the engine at each scrape and handed in as QueueFigures.
#ifndef SLUICE_SERVER_METRICS_SERVER_METRICS_H_
#define SLUICE_SERVER_METRICS_SERVER_METRICS_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "prometheus/metric_family.h"
#include "server/base/clock.h"

namespace prometheus {
class Counter;
class Histogram;
class Registry;
template <typename T>
class Family;
}  // namespace prometheus

namespace sluice::metrics {

struct QueueFigures {
  std::string queue;
  int64_t ready = 0;
  int64_t leased = 0;
  int64_t delayed = 0;
  int64_t blocked = 0;
  int64_t dying = 0;  // of them
  int64_t bytes = 0;
  int64_t consumers = 0;
  int64_t oldest_ready_age_ms = 0;
  uint64_t published = 0;
  uint64_t published_bytes = 0;
  uint64_t delivered = 0;
  uint64_t redelivered = 0;
  uint64_t acked = 0;
  uint64_t retried = 0;
  uint64_t discarded = 0;
  uint64_t purged = 0;
  uint64_t dead_lettered = 0;
  uint64_t expired = 0;
  uint64_t dropped = 0;
  uint64_t duplicates = 0;
  uint64_t moved = 0;
  uint64_t leases_expired = 0;
};

struct ShardFigures {
  bool engine_up = false;  // false: the rest is not known
  uint64_t queues_total = 0;
  uint64_t subscriptions = 0;
  uint64_t open_messages = 0;
  uint64_t window_bytes = 0;
  uint64_t lsn = 0;
  uint64_t durable_lsn = 0;
  uint64_t unrouted = 0;
  uint64_t producers_fenced = 0;
  std::vector<QueueFigures> queues;  // the last may be kOtherQueues
};

struct StoreFigures {
  uint64_t disk_bytes = 0;
  uint64_t reclaimed_bytes = 0;
  uint64_t memtable_bytes = 0;
  uint64_t immutable_memtables = 0;
  uint64_t pending_compaction_bytes = 0;
  uint64_t pressure = 0;  // 0, 1 or 2: see docs/metrics.md
};

// One gRPC method; its place in the constructor's list is its id.
struct GrpcMethod {
  std::string service;
  std::string method;
  std::string type;
};

class ServerMetrics {
 public:
  // `code_names`: the values of label grpc_code, by status code.
  ServerMetrics(std::string_view version, Clock* clock, const std::vector<GrpcMethod>& methods,
                std::vector<std::string> code_names);
  ~ServerMetrics();
  ServerMetrics(const ServerMetrics&) = delete;
  ServerMetrics& operator=(const ServerMetrics&) = delete;

  void CallStarted(int method_id);
  void CallMessageReceived(int method_id);
  void CallMessageSent(int method_id);
  void CallHandled(int method_id, int code, double seconds);

  void BatchMade(uint32_t commands, uint32_t messages, size_t bytes);
  void LogWritten(uint64_t batches, uint64_t bytes);
  void LogSynced(double seconds);

  // `op`: ack, nack or extend. `reason`: the name of an ErrorReason. `queue` may be a name that a
  // client made up: what is no queue of a scrape is summed up as kOtherQueues.
  void SettleFailed(std::string_view queue, std::string_view op, std::string_view reason);

  // The page in Prometheus' text format.
  std::string Render(const ShardFigures& figures, const StoreFigures& store);

 private:
  // By queue, op, reason.
  using SettleCounts = std::map<std::tuple<std::string, std::string, std::string>, uint64_t>;

  struct CallMetrics {
    prometheus::Counter* started = nullptr;
    prometheus::Counter* received = nullptr;
    prometheus::Counter* sent = nullptr;
    std::vector<prometheus::Counter*> handled;  // by code
    prometheus::Histogram* seconds = nullptr;
  };

  prometheus::MetricFamily SettleFailureFamily(const ShardFigures& figures);

  std::unique_ptr<prometheus::Registry> registry_;
  std::vector<CallMetrics> calls_;
  prometheus::Histogram* batch_commands_ = nullptr;
  prometheus::Histogram* batch_messages_ = nullptr;
  prometheus::Histogram* batch_bytes_ = nullptr;
  prometheus::Histogram* sync_seconds_ = nullptr;
  prometheus::Histogram* write_batches_ = nullptr;
  prometheus::Counter* written_bytes_ = nullptr;
  const double start_seconds_;

  absl::Mutex mutex_;
  SettleCounts settle_failures_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sluice::metrics

#endif  // SLUICE_SERVER_METRICS_SERVER_METRICS_H_
