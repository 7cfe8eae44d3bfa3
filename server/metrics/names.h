// The name and meaning of every metric, and the bounds of every histogram: here and nowhere else.
// docs/metrics.md is the same for those who build dashboards on them; both change together.
#ifndef SLUICE_SERVER_METRICS_NAMES_H_
#define SLUICE_SERVER_METRICS_NAMES_H_

#include <cstddef>

namespace sluice::metrics {

struct Metric {
  const char* name;
  const char* help;
};

// Beyond this many queues the rest is summed up as kOtherQueues, so that a scrape stays bounded.
inline constexpr size_t kQueuesMax = 1000;
inline constexpr char kOtherQueues[] = "_other";

// --- per queue, label `queue`
inline constexpr Metric kQueueMessages{"sluice_queue_messages",
                                       "Unsettled messages of a queue by state."};
inline constexpr Metric kQueueBytes{"sluice_queue_bytes", "Bytes of all unsettled messages."};
inline constexpr Metric kQueueConsumers{
    "sluice_queue_consumers", "Open subscriptions of a queue, and calls of Receive that wait."};
inline constexpr Metric kQueueOldestReadyAge{
    "sluice_queue_oldest_ready_age_seconds",
    "Time since the oldest message that waits for a consumer was published or became due; 0 if "
    "none waits."};
inline constexpr Metric kQueueDeadLettersWaiting{
    "sluice_queue_dead_letters_waiting",
    "Messages that have died and are still to be moved to the dead-letter queue, which may be full."};
inline constexpr Metric kPublished{"sluice_messages_published_total", "Messages stored."};
inline constexpr Metric kPublishedBytes{"sluice_messages_published_bytes_total",
                                        "Bytes of the messages stored."};
inline constexpr Metric kDelivered{"sluice_messages_delivered_total",
                                   "Deliveries, repeated ones included."};
inline constexpr Metric kRedelivered{"sluice_messages_redelivered_total",
                                     "Deliveries of messages that had been delivered before."};
inline constexpr Metric kAcked{"sluice_messages_acked_total", "Messages settled by an ack."};
inline constexpr Metric kRetried{"sluice_messages_retried_total",
                                 "Attempts that failed and left the message in the queue."};
inline constexpr Metric kDiscarded{
    "sluice_messages_discarded_total",
    "Messages dropped by a nack, or out of attempts, and not dead-lettered."};
inline constexpr Metric kPurged{"sluice_messages_purged_total",
                                "Messages removed by a purge or deleted by id or filter."};
inline constexpr Metric kDeadLettered{"sluice_messages_dead_lettered_total",
                                      "Messages moved to a dead-letter queue."};
inline constexpr Metric kExpired{"sluice_messages_expired_total",
                                "Messages that were not delivered within their time to live."};
inline constexpr Metric kDropped{"sluice_messages_dropped_total",
                                 "Messages dropped to make room in a full queue."};
inline constexpr Metric kDuplicates{"sluice_messages_duplicate_total",
                                    "Published messages that the queue had already."};
inline constexpr Metric kRedriven{"sluice_messages_redriven_total",
                                  "Messages moved from this queue to another one by a redrive."};
inline constexpr Metric kLeasesExpired{"sluice_leases_expired_total",
                                       "Leases that ended without being settled in time."};
inline constexpr Metric kSettleFailures{
    "sluice_settle_failures_total",
    "Receipts of ack, nack and extend calls that were refused, by reason."};

// --- the shard and its log
inline constexpr Metric kEngineUp{"sluice_engine_up",
                                  "1 if the engine answered this scrape in time. At 0 the figures "
                                  "per queue are missing from it."};
inline constexpr Metric kQueues{"sluice_queues", "Queues that exist."};
inline constexpr Metric kSubscriptions{"sluice_subscriptions", "Open subscriptions."};
inline constexpr Metric kOpenMessages{
    "sluice_open_messages", "Messages leased, waiting for a retry or to be granted again."};
inline constexpr Metric kWindowBytes{"sluice_window_bytes",
                                     "Bytes of waiting messages kept in memory."};
inline constexpr Metric kUnrouted{
    "sluice_messages_unrouted_total",
    "Messages published to exchanges that no binding took, and that were stored nowhere."};
inline constexpr Metric kProducersFenced{
    "sluice_producers_fenced_total",
    "Times that a producer came back on a newer stream, which ends the older one."};
inline constexpr Metric kLogLsn{"sluice_log_lsn", "Number of the last batch handed to the log."};
inline constexpr Metric kLogDurableLsn{"sluice_log_durable_lsn",
                                       "Number of the last batch known to be on stable storage."};
inline constexpr Metric kBatchCommands{"sluice_commit_batch_commands",
                                       "Commands decided into one batch."};
inline constexpr Metric kBatchMessages{"sluice_commit_batch_messages",
                                       "Messages published by one batch."};
inline constexpr Metric kBatchBytes{"sluice_commit_batch_bytes", "Bytes of one batch."};
inline constexpr Metric kSyncSeconds{"sluice_commit_sync_seconds",
                                     "Time of one sync of the log to stable storage."};

inline constexpr Metric kWriteBatches{"sluice_log_write_batches",
                                      "Batches handed to the operating system in one go."};
inline constexpr Metric kWrittenBytes{"sluice_log_written_bytes_total",
                                      "Bytes of batches handed to the operating system."};

// --- the store
inline constexpr Metric kStoreDiskBytes{"sluice_store_disk_bytes",
                                        "Bytes of the store's files, log included."};
inline constexpr Metric kStoreReclaimed{"sluice_store_reclaimed_bytes_total",
                                        "Bytes of files dropped whole as all in them was settled."};
inline constexpr Metric kStoreMemtableBytes{"sluice_store_memtable_bytes",
                                            "Bytes written that are not yet in a file."};
inline constexpr Metric kStoreImmutableMemtables{
    "sluice_store_immutable_memtables",
    "Full write buffers that wait to become files; publishes wait when they pile up."};
inline constexpr Metric kStorePendingCompaction{"sluice_store_pending_compaction_bytes",
                                                "Bytes that compaction has still to rewrite."};
inline constexpr Metric kStorePressure{
    "sluice_store_pressure",
    "0: publishes are taken; 1: they wait, for the store to keep up; 2: they are refused, as the "
    "disk is nearly full."};

// --- gRPC, labels grpc_service, grpc_method, grpc_type (and grpc_code)
inline constexpr Metric kGrpcStarted{"grpc_server_started_total", "Calls started."};
inline constexpr Metric kGrpcHandled{"grpc_server_handled_total",
                                     "Calls completed, by status code."};
inline constexpr Metric kGrpcHandlingSeconds{"grpc_server_handling_seconds",
                                             "Time from start to end of calls."};
inline constexpr Metric kGrpcReceived{"grpc_server_msg_received_total",
                                      "Messages received on calls."};
inline constexpr Metric kGrpcSent{"grpc_server_msg_sent_total", "Messages sent on calls."};

// --- the process
inline constexpr Metric kBuildInfo{"sluice_build_info", "1; the label says which version runs."};
inline constexpr Metric kProcessCpu{"process_cpu_seconds_total",
                                    "User and system CPU time spent, in seconds."};
inline constexpr Metric kProcessOpenFds{"process_open_fds", "Open file descriptors."};
inline constexpr Metric kProcessMaxFds{"process_max_fds", "Limit of open file descriptors."};
inline constexpr Metric kProcessResident{"process_resident_memory_bytes", "Resident memory."};
inline constexpr Metric kProcessVirtual{"process_virtual_memory_bytes", "Virtual memory."};
inline constexpr Metric kProcessThreads{"process_threads", "Threads."};
inline constexpr Metric kProcessStart{"process_start_time_seconds",
                                      "Start of the process, in seconds since 1970-01-01 UTC."};

// --- bounds: a sync takes 0.1 ms on good drives to seconds on bad days; a batch holds 1 to some
// thousands; calls take from 0.2 ms to the life of a stream.
inline constexpr double kSyncSecondsBounds[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
                                                0.025,  0.05,    0.1,    0.25,  0.5,    1,     2.5};
inline constexpr double kBatchCountBounds[] = {1,  2,   5,   10,   20,   50,
                                               100, 200, 500, 1000, 2000, 5000};
inline constexpr double kBatchBytesBounds[] = {256,     1024,    4096,    16384,   65536,
                                               262144,  1048576, 4194304, 16777216};
inline constexpr double kHandlingSecondsBounds[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                    0.1,    0.25,  0.5,    1,     2.5,  5,     10};

}  // namespace sluice::metrics

#endif  // SLUICE_SERVER_METRICS_NAMES_H_
