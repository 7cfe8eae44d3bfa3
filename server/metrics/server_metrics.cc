#include "server/metrics/server_metrics.h"

#include <set>
#include <sstream>
#include <utility>

#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"
#include "server/metrics/names.h"
#include "server/metrics/process_figures.h"

namespace sluice::metrics {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr double kMsPerSecond = 1000;
constexpr const char* kSettleOps[] = {"ack", "nack", "extend"};
// Shown from 0 on for every queue; other reasons appear when they happen.
constexpr const char* kSettleReasons[] = {"LEASE_EXPIRED", "RECEIPT_INVALID"};

// Between two scrapes; names that clients make up must not fill the memory.
constexpr size_t kSettleSeriesMax = 10 * kQueuesMax;

template <size_t N>
prometheus::Histogram::BucketBoundaries Bounds(const double (&bounds)[N]) {
  return {bounds, bounds + N};
}

template <size_t N>
prometheus::Histogram* AddHistogram(prometheus::Registry* registry, const Metric& metric,
                                    const double (&bounds)[N]) {
  return &prometheus::BuildHistogram()
              .Name(metric.name)
              .Help(metric.help)
              .Register(*registry)
              .Add({}, Bounds(bounds));
}

prometheus::Family<prometheus::Counter>& AddCounters(prometheus::Registry* registry,
                                                     const Metric& metric) {
  return prometheus::BuildCounter().Name(metric.name).Help(metric.help).Register(*registry);
}

MetricFamily Family(const Metric& metric, MetricType type) {
  MetricFamily family;
  family.name = metric.name;
  family.help = metric.help;
  family.type = type;
  return family;
}

void AddValue(double value, std::vector<ClientMetric::Label> labels, MetricFamily* family) {
  ClientMetric metric;
  metric.label = std::move(labels);
  if (family->type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  family->metric.push_back(std::move(metric));
}

MetricFamily Single(const Metric& metric, MetricType type, double value) {
  MetricFamily family = Family(metric, type);
  AddValue(value, {}, &family);
  return family;
}

// One family whose value of a queue `value` reads off its figures.
template <typename Value>
MetricFamily PerQueue(const Metric& metric, MetricType type, const ShardFigures& figures,
                      Value value) {
  MetricFamily family = Family(metric, type);
  family.metric.reserve(figures.queues.size());
  for (const QueueFigures& queue : figures.queues) {
    AddValue(static_cast<double>(value(queue)), {{"queue", queue.queue}}, &family);
  }
  return family;
}

void AppendQueueFamilies(const ShardFigures& figures, std::vector<MetricFamily>* out) {
  MetricFamily messages = Family(kQueueMessages, MetricType::Gauge);
  for (const QueueFigures& queue : figures.queues) {
    const std::pair<const char*, int64_t> states[] = {{"ready", queue.ready},
                                                      {"leased", queue.leased},
                                                      {"delayed", queue.delayed},
                                                      {"blocked", queue.blocked}};
    for (const auto& [state, count] : states) {
      AddValue(static_cast<double>(count), {{"queue", queue.queue}, {"state", state}}, &messages);
    }
  }
  out->push_back(std::move(messages));

  const std::pair<const Metric&, int64_t QueueFigures::*> gauges[] = {
      {kQueueBytes, &QueueFigures::bytes},
      {kQueueConsumers, &QueueFigures::consumers},
      {kQueueDeadLettersWaiting, &QueueFigures::dying}};
  for (const auto& [metric, field] : gauges) {
    out->push_back(PerQueue(metric, MetricType::Gauge, figures,
                            [field = field](const QueueFigures& queue) { return queue.*field; }));
  }
  out->push_back(PerQueue(
      kQueueOldestReadyAge, MetricType::Gauge, figures, [](const QueueFigures& queue) {
        return static_cast<double>(queue.oldest_ready_age_ms) / kMsPerSecond;
      }));

  const std::pair<const Metric&, uint64_t QueueFigures::*> counters[] = {
      {kPublished, &QueueFigures::published},
      {kPublishedBytes, &QueueFigures::published_bytes},
      {kDelivered, &QueueFigures::delivered},
      {kRedelivered, &QueueFigures::redelivered},
      {kAcked, &QueueFigures::acked},
      {kRetried, &QueueFigures::retried},
      {kDiscarded, &QueueFigures::discarded},
      {kPurged, &QueueFigures::purged},
      {kDeadLettered, &QueueFigures::dead_lettered},
      {kExpired, &QueueFigures::expired},
      {kDropped, &QueueFigures::dropped},
      {kDuplicates, &QueueFigures::duplicates},
      {kRedriven, &QueueFigures::moved},
      {kLeasesExpired, &QueueFigures::leases_expired}};
  for (const auto& [metric, field] : counters) {
    out->push_back(PerQueue(metric, MetricType::Counter, figures,
                            [field = field](const QueueFigures& queue) { return queue.*field; }));
  }
}

void AppendShardFamilies(const ShardFigures& figures, std::vector<MetricFamily>* out) {
  const std::pair<const Metric&, uint64_t> gauges[] = {{kQueues, figures.queues_total},
                                                       {kSubscriptions, figures.subscriptions},
                                                       {kOpenMessages, figures.open_messages},
                                                       {kWindowBytes, figures.window_bytes},
                                                       {kLogLsn, figures.lsn},
                                                       {kLogDurableLsn, figures.durable_lsn}};
  for (const auto& [metric, value] : gauges) {
    out->push_back(Single(metric, MetricType::Gauge, static_cast<double>(value)));
  }
}

void AppendShardCounters(const ShardFigures& figures, std::vector<MetricFamily>* out) {
  const std::pair<const Metric&, uint64_t> counters[] = {
      {kUnrouted, figures.unrouted}, {kProducersFenced, figures.producers_fenced}};
  for (const auto& [metric, value] : counters) {
    out->push_back(Single(metric, MetricType::Counter, static_cast<double>(value)));
  }
}

void AppendStoreFamilies(const StoreFigures& store, std::vector<MetricFamily>* out) {
  out->push_back(Single(kStoreReclaimed, MetricType::Counter,
                        static_cast<double>(store.reclaimed_bytes)));
  const std::pair<const Metric&, uint64_t> gauges[] = {
      {kStoreDiskBytes, store.disk_bytes},
      {kStoreMemtableBytes, store.memtable_bytes},
      {kStoreImmutableMemtables, store.immutable_memtables},
      {kStorePendingCompaction, store.pending_compaction_bytes},
      {kStorePressure, store.pressure}};
  for (const auto& [metric, value] : gauges) {
    out->push_back(Single(metric, MetricType::Gauge, static_cast<double>(value)));
  }
}

void AppendProcessFamilies(double start_seconds, std::vector<MetricFamily>* out) {
  const ProcessFigures process = ReadProcessFigures();
  out->push_back(Single(kProcessCpu, MetricType::Counter, process.cpu_seconds));
  const std::pair<const Metric&, double> gauges[] = {
      {kProcessOpenFds, static_cast<double>(process.open_fds)},
      {kProcessMaxFds, static_cast<double>(process.max_fds)},
      {kProcessResident, static_cast<double>(process.resident_bytes)},
      {kProcessVirtual, static_cast<double>(process.virtual_bytes)},
      {kProcessThreads, static_cast<double>(process.threads)},
      {kProcessStart, start_seconds}};
  for (const auto& [metric, value] : gauges) {
    out->push_back(Single(metric, MetricType::Gauge, value));
  }
}

}  // namespace

ServerMetrics::ServerMetrics(std::string_view version, Clock* clock,
                             const std::vector<GrpcMethod>& methods,
                             std::vector<std::string> code_names)
    : registry_(std::make_unique<prometheus::Registry>()),
      start_seconds_(static_cast<double>(clock->WallMs()) / kMsPerSecond) {
  prometheus::BuildGauge()
      .Name(kBuildInfo.name)
      .Help(kBuildInfo.help)
      .Register(*registry_)
      .Add({{"version", std::string(version)}})
      .Set(1);
  batch_commands_ = AddHistogram(registry_.get(), kBatchCommands, kBatchCountBounds);
  batch_messages_ = AddHistogram(registry_.get(), kBatchMessages, kBatchCountBounds);
  batch_bytes_ = AddHistogram(registry_.get(), kBatchBytes, kBatchBytesBounds);
  sync_seconds_ = AddHistogram(registry_.get(), kSyncSeconds, kSyncSecondsBounds);
  write_batches_ = AddHistogram(registry_.get(), kWriteBatches, kBatchCountBounds);
  written_bytes_ = &AddCounters(registry_.get(), kWrittenBytes).Add({});

  auto& started = AddCounters(registry_.get(), kGrpcStarted);
  auto& handled = AddCounters(registry_.get(), kGrpcHandled);
  auto& received = AddCounters(registry_.get(), kGrpcReceived);
  auto& sent = AddCounters(registry_.get(), kGrpcSent);
  auto& seconds = prometheus::BuildHistogram()
                      .Name(kGrpcHandlingSeconds.name)
                      .Help(kGrpcHandlingSeconds.help)
                      .Register(*registry_);
  for (const GrpcMethod& method : methods) {
    const prometheus::Labels labels = {{"grpc_service", method.service},
                                       {"grpc_method", method.method},
                                       {"grpc_type", method.type}};
    CallMetrics call;
    call.started = &started.Add(labels);
    call.received = &received.Add(labels);
    call.sent = &sent.Add(labels);
    call.seconds = &seconds.Add(labels, Bounds(kHandlingSecondsBounds));
    for (const std::string& code : code_names) {
      prometheus::Labels with_code = labels;
      with_code["grpc_code"] = code;
      call.handled.push_back(&handled.Add(with_code));
    }
    calls_.push_back(std::move(call));
  }
}

ServerMetrics::~ServerMetrics() = default;

void ServerMetrics::CallStarted(int method_id) { calls_[method_id].started->Increment(); }
void ServerMetrics::CallMessageReceived(int method_id) { calls_[method_id].received->Increment(); }
void ServerMetrics::CallMessageSent(int method_id) { calls_[method_id].sent->Increment(); }
void ServerMetrics::CallHandled(int method_id, int code, double seconds) {
  CallMetrics& call = calls_[method_id];
  call.handled[code]->Increment();
  call.seconds->Observe(seconds);
}

void ServerMetrics::BatchMade(uint32_t commands, uint32_t messages, size_t bytes) {
  batch_commands_->Observe(commands);
  batch_messages_->Observe(messages);
  batch_bytes_->Observe(static_cast<double>(bytes));
}

void ServerMetrics::LogWritten(uint64_t batches, uint64_t bytes) {
  write_batches_->Observe(static_cast<double>(batches));
  written_bytes_->Increment(static_cast<double>(bytes));
}
void ServerMetrics::LogSynced(double seconds) { sync_seconds_->Observe(seconds); }

void ServerMetrics::SettleFailed(std::string_view queue, std::string_view op,
                                 std::string_view reason) {
  absl::MutexLock lock(&mutex_);
  std::tuple<std::string, std::string, std::string> key{queue, op, reason};
  if (settle_failures_.size() >= kSettleSeriesMax && !settle_failures_.contains(key)) {
    std::get<0>(key) = kOtherQueues;
  }
  ++settle_failures_[std::move(key)];
}

MetricFamily ServerMetrics::SettleFailureFamily(const ShardFigures& figures) {
  std::set<std::string_view> known;
  for (const QueueFigures& queue : figures.queues) known.insert(queue.queue);
  SettleCounts counts;
  {
    absl::MutexLock lock(&mutex_);
    if (figures.engine_up) {
      for (const auto& [key, count] : settle_failures_) {
        const auto& [queue, op, reason] = key;
        counts[{known.contains(queue) ? queue : kOtherQueues, op, reason}] += count;
      }
      settle_failures_ = counts;
    } else {
      counts = settle_failures_;
    }
  }
  for (const QueueFigures& queue : figures.queues) {
    for (const char* op : kSettleOps) {
      for (const char* reason : kSettleReasons) counts.try_emplace({queue.queue, op, reason}, 0);
    }
  }
  MetricFamily family = Family(kSettleFailures, MetricType::Counter);
  family.metric.reserve(counts.size());
  for (const auto& [key, count] : counts) {
    const auto& [queue, op, reason] = key;
    AddValue(static_cast<double>(count), {{"queue", queue}, {"op", op}, {"reason", reason}},
             &family);
  }
  return family;
}

std::string ServerMetrics::Render(const ShardFigures& figures, const StoreFigures& store) {
  std::vector<MetricFamily> families = registry_->Collect();
  families.push_back(Single(kEngineUp, MetricType::Gauge, figures.engine_up ? 1 : 0));
  if (figures.engine_up) {
    AppendShardFamilies(figures, &families);
    AppendShardCounters(figures, &families);
    AppendQueueFamilies(figures, &families);
  }
  families.push_back(SettleFailureFamily(figures));
  AppendStoreFamilies(store, &families);
  AppendProcessFamilies(start_seconds_, &families);
  // A family without a series would be a lone TYPE line.
  std::erase_if(families, [](const MetricFamily& family) { return family.metric.empty(); });
  std::ostringstream page;
  prometheus::TextSerializer().Serialize(page, families);
  return page.str();
}

}  // namespace sluice::metrics
