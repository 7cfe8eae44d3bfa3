// Carries what happens in the other parts to the metrics, which know none of them.
#ifndef SLUICE_SERVER_APP_OBSERVERS_H_
#define SLUICE_SERVER_APP_OBSERVERS_H_

#include "absl/time/time.h"
#include "server/api/rpc_method.h"
#include "server/broker/commands.h"
#include "server/broker/engine.h"
#include "server/metrics/server_metrics.h"
#include "server/storage/local_log.h"
#include "server/storage/rocks_store.h"

namespace sluice {

// The list for ServerMetrics, in the order of api::RpcMethod::id.
std::vector<metrics::GrpcMethod> GrpcMethodsForMetrics();
std::vector<std::string> GrpcCodesForMetrics();

class EngineMetrics : public broker::EngineObserver {
 public:
  explicit EngineMetrics(metrics::ServerMetrics* metrics) : metrics_(metrics) {}
  void OnBatch(uint32_t commands, uint32_t messages, size_t bytes) override;

 private:
  metrics::ServerMetrics* const metrics_;
};

class LogMetrics : public storage::LogObserver {
 public:
  explicit LogMetrics(metrics::ServerMetrics* metrics) : metrics_(metrics) {}
  void OnWrite(uint64_t batches, uint64_t bytes) override;
  void OnSync(double seconds) override;

 private:
  metrics::ServerMetrics* const metrics_;
};

class RpcMetrics : public api::RpcObserver {
 public:
  explicit RpcMetrics(metrics::ServerMetrics* metrics) : metrics_(metrics) {}
  void OnStarted(const api::RpcMethod& method) override;
  void OnMessageReceived(const api::RpcMethod& method) override;
  void OnMessageSent(const api::RpcMethod& method) override;
  void OnHandled(const api::RpcMethod& method, int code, double seconds) override;
  void OnSettleFailure(const api::RpcMethod& method, std::string_view queue,
                       ErrorReason reason) override;

 private:
  metrics::ServerMetrics* const metrics_;
};

// Asks the engine for its figures and waits for at most `timeout`; engine_up is false if it does
// not answer. Any thread but the engine's.
metrics::ShardFigures InspectShard(broker::CommandSink* sink, absl::Duration timeout);
metrics::StoreFigures FiguresOf(const storage::RocksStats& stats);

}  // namespace sluice

#endif  // SLUICE_SERVER_APP_OBSERVERS_H_
