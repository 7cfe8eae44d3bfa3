// Every limit that users can meet, in one place. API.md-level limits are part of the contract.
#ifndef SLUICE_SERVER_MODEL_LIMITS_H_
#define SLUICE_SERVER_MODEL_LIMITS_H_

#include <cstddef>
#include <cstdint>

namespace sluice {

inline constexpr int64_t kKiB = 1024;
inline constexpr int64_t kMiB = 1024 * kKiB;
inline constexpr int64_t kSecondMs = 1000;
inline constexpr int64_t kMinuteMs = 60 * kSecondMs;
inline constexpr int64_t kHourMs = 60 * kMinuteMs;
inline constexpr int64_t kDayMs = 24 * kHourMs;

// Messages and requests.
inline constexpr int64_t kBodyBytesMaxDefault = 1 * kMiB;
inline constexpr int64_t kBodyBytesMaxCeiling = 15 * kMiB;  // with its envelope under a request
inline constexpr int64_t kRequestBytesMax = 16 * kMiB;
inline constexpr int64_t kResponseBytesMax = 3 * kMiB;  // generated clients accept 4 MiB
inline constexpr int kMessagesPerPublishMax = 1000;
inline constexpr int kAttributesMax = 64;
inline constexpr int64_t kAttributesBytesMax = 16 * kKiB;
// What a message may have on the wire besides its body: attributes and their framing, the short
// strings, the server's fields of a forwarded message. Above the sum of their limits, so that only
// repetitions, of which the last wins, are refused by it.
inline constexpr int64_t kEnvelopeBytesMax = 32 * kKiB;
inline constexpr size_t kShortStringBytesMax = 255;  // group, routing_key, dedup_id, consumer, ...
inline constexpr size_t kNameBytesMax = 255;
inline constexpr int kReceiptsPerCallMax = 10'000;
inline constexpr size_t kNackReasonBytesMax = 1024;

// Lists.
inline constexpr int kPageSizeDefault = 100;
inline constexpr int kPageSizeMax = 1000;
inline constexpr size_t kRowsScannedPerCallMax = 10'000;  // API.md rule 14

// Leases and credit.
inline constexpr int64_t kLeaseMsDefault = 30 * kSecondMs;
inline constexpr int64_t kLeaseMsMin = 1 * kSecondMs;
inline constexpr int64_t kLeaseMsMax = 12 * kHourMs;
inline constexpr int32_t kMaxInFlightDefault = 100;
inline constexpr int32_t kMaxInFlightCeiling = 100'000;
inline constexpr int64_t kMaxBytesInFlightDefault = 2 * kMiB;
inline constexpr int64_t kMaxBytesInFlightCeiling = 256 * kMiB;
inline constexpr int64_t kDelayMsMax = 366 * kDayMs;

// Deliveries handed to a stream and not yet taken by its transport. A stream that has this much is
// granted nothing more, whatever its credit: one response under way and most of the next.
inline constexpr uint64_t kUnwrittenBytesPerStreamMax = 4 * kMiB;
// The same over all streams of a shard. At it a stream is granted more only while it has less than
// kUnwrittenReportBytes, so that slow consumers do not hold up the others.
inline constexpr uint64_t kUnwrittenBytesMax = 256 * kMiB;
// A stream tells the shard what was written once it is this much: at most what the shard lets every
// stream have, or a stream could wait for a report that never comes.
inline constexpr uint64_t kUnwrittenReportBytes = 64 * kKiB;

// Retries: API.md rule 6.
inline constexpr int64_t kMinBackoffMsDefault = 1 * kSecondMs;
inline constexpr int64_t kMaxBackoffMsDefault = 5 * kMinuteMs;

// Scheduling: API.md-level bounds of queue settings.
inline constexpr int64_t kTtlMsMax = 366 * kDayMs;
inline constexpr int64_t kDedupWindowMsDefault = 10 * kMinuteMs;
inline constexpr int64_t kDedupWindowMsMax = 7 * kDayMs;
inline constexpr int32_t kMaxAttemptsCeiling = 1'000'000;
inline constexpr int64_t kWaitWhenFullMsMax = 5 * kMinuteMs;
inline constexpr double kRatePerSecondMax = 1e7;
inline constexpr double kRatePerSecondMin = 1e-3;
inline constexpr int32_t kRateBurstMax = 1'000'000;
inline constexpr int64_t kIdleExpiryMsMin = 1 * kSecondMs;
inline constexpr int64_t kIdleExpiryMsMax = 366 * kDayMs;
inline constexpr int64_t kPriorityAgingMsMin = 100;
inline constexpr int64_t kPriorityAgingMsMax = 366 * kDayMs;

// Routing.
inline constexpr size_t kExchangesMax = 10'000;
inline constexpr size_t kBindingsMax = 100'000;
inline constexpr int kBindingHeadersMax = 64;
inline constexpr int kExchangeHopsMax = 16;    // exchanges that one publish may pass in a row
inline constexpr int kRoutedQueuesMax = 1000;  // queues that one message may reach
// Bindings and pattern nodes that are looked at for all messages of one publish together, so that
// no publish holds up the engine thread for long.
inline constexpr int64_t kRoutingStepsMax = 1'000'000;
// Nodes of the patterns of all topic exchanges, some 100 bytes each; patterns that begin alike
// share them. Ten for each binding that there may be.
inline constexpr size_t kTopicNodesMax = 1'000'000;
// Of a page of exchanges or bindings, roughly: the rest of the 3 MiB is the envelope's.
inline constexpr size_t kRoutingPageBytesMax = 2 * kMiB;

// Idempotent producers: API.md rule 3.
inline constexpr int64_t kProducerKeptMs = 7 * kDayMs;
inline constexpr size_t kProducersMax = 100'000;

// Receive.
inline constexpr int kReceiveMessagesDefault = 1;
inline constexpr int kReceiveMessagesMax = 1000;
inline constexpr int64_t kReceiveWaitMsMax = 5 * kMinuteMs;

// Queues of one server.
inline constexpr size_t kQueuesMax = 200'000;
inline constexpr int kLabelsMax = 64;
inline constexpr size_t kLabelsBytesMax = 16 * kKiB;

// Messages of one queue, and of one shard, that are leased, waiting for a retry or waiting to be
// granted again: these need memory, so at the limit nothing new is granted until some are settled.
inline constexpr size_t kOpenMessagesPerQueueMax = 250'000;
inline constexpr size_t kOpenMessagesPerShardMax = 2'000'000;
// Of each priority of a queue; retries that wait beside them do so on disk and count for nothing.
// Those of groups are always in memory.
inline constexpr size_t kRetriesInMemoryMax = 4096;

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_LIMITS_H_
