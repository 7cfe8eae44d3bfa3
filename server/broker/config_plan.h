// What a queue or an exchange would be: merging, checking and comparing. Pure; any thread.
#ifndef SLUICE_SERVER_BROKER_CONFIG_PLAN_H_
#define SLUICE_SERVER_BROKER_CONFIG_PLAN_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "server/broker/queue_commands.h"
#include "server/model/exchange.h"
#include "server/model/queue_config.h"

namespace sluice::broker {

// The fields that are set, and the name, go in; the rest stays.
void ApplyChange(const QueueConfigChange& change, QueueConfig& config);
void ApplyChange(const ExchangeChange& change, Exchange& exchange);

// The config of a queue that dead letters may go to: not of a temporary one. Null: none.
using FindConfig = absl::FunctionRef<const QueueConfig*(const std::string& name)>;

// Whether a config agrees with itself and with the queues that there will be, `config` itself among
// them or not. INVALID_FIELD, or QUEUE_NOT_FOUND for its dead_letter_queue; fields are named below
// `path`.
absl::Status CheckQueueConfig(const QueueConfig& config, std::string_view path, FindConfig find);

// Each field that differs, with the old and the new value, for people: "lease: 30s -> 1m".
std::vector<std::string> DescribeDifferences(const QueueConfig& from, const QueueConfig& to);
std::vector<std::string> DescribeDifferences(const Exchange& from, const Exchange& to);

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_CONFIG_PLAN_H_
