// Rows of what was configured: queues, exchanges, bindings.
#include <bit>
#include <utility>

#include "server/storage/row_codec.h"
#include "server/storage/rows.h"

namespace sluice::storage {
namespace {

void WriteConfig(const QueueConfig& config, RowWriter& out) {
  out.String(config.name)
      .Fixed(config.lease_ms)
      .Fixed(config.retry.max_attempts)
      .Fixed(config.retry.min_backoff_ms)
      .Fixed(config.retry.max_backoff_ms)
      .Bool(config.retry.discard_when_exhausted)
      .String(config.dead_letter_queue)
      .Fixed(config.ttl_ms)
      .Fixed(config.max_length)
      .Fixed(config.max_bytes)
      .U8(static_cast<uint8_t>(config.overflow))
      .Fixed(config.dedup_window_ms)
      .Fixed(std::bit_cast<uint64_t>(config.delivery_rate.per_second))
      .Fixed(config.delivery_rate.burst)
      .Bool(config.single_active_consumer)
      .Fixed(config.priority_aging_ms)
      .Fixed(config.idle_expiry_ms)
      .Texts(config.labels);
}

QueueConfig ReadConfig(RowReader& in) {
  QueueConfig config;
  config.name = in.String();
  config.lease_ms = in.Fixed<int64_t>();
  config.retry.max_attempts = in.Fixed<int32_t>();
  config.retry.min_backoff_ms = in.Fixed<int64_t>();
  config.retry.max_backoff_ms = in.Fixed<int64_t>();
  config.retry.discard_when_exhausted = in.Bool();
  config.dead_letter_queue = in.String();
  config.ttl_ms = in.Fixed<int64_t>();
  config.max_length = in.Fixed<int64_t>();
  config.max_bytes = in.Fixed<int64_t>();
  config.overflow = in.Choice(Overflow::kReject, Overflow::kDropHead);
  config.dedup_window_ms = in.Fixed<int64_t>();
  config.delivery_rate.per_second = std::bit_cast<double>(in.Fixed<uint64_t>());
  // Also refuses what is not a number.
  in.Require(config.delivery_rate.per_second >= 0);
  config.delivery_rate.burst = in.Fixed<int32_t>();
  config.single_active_consumer = in.Bool();
  config.priority_aging_ms = in.Fixed<int64_t>();
  config.idle_expiry_ms = in.Fixed<int64_t>();
  in.Texts(&config.labels);
  return config;
}

}  // namespace

std::string EncodeQueue(const QueueRow& row) {
  RowWriter out;
  out.Version()
      .Fixed(row.create_ms)
      .Fixed(row.update_ms)
      .Fixed(row.revision)
      .Bool(row.paused)
      .Bool(row.temporary);
  WriteConfig(row.config, out);
  return out.Take();
}

absl::StatusOr<QueueRow> ParseQueue(std::string_view value) {
  RowReader in(value);
  if (absl::Status status = CheckVersion("queue", &in); !status.ok()) return status;
  QueueRow row;
  row.create_ms = in.Fixed<int64_t>();
  row.update_ms = in.Fixed<int64_t>();
  row.revision = in.Fixed<uint64_t>();
  row.paused = in.Bool();
  row.temporary = in.Bool();
  row.config = ReadConfig(in);
  if (!in.Done()) return Garbled("queue");
  return row;
}

std::string EncodeExchange(const Exchange& exchange) {
  return RowWriter()
      .Version()
      .String(exchange.name)
      .U8(static_cast<uint8_t>(exchange.type))
      .String(exchange.alternate_exchange)
      .Texts(exchange.labels)
      .Take();
}

absl::StatusOr<Exchange> ParseExchange(std::string_view value) {
  RowReader in(value);
  if (absl::Status status = CheckVersion("exchange", &in); !status.ok()) return status;
  Exchange exchange;
  exchange.name = in.String();
  exchange.type = in.Choice(ExchangeType::kDirect, ExchangeType::kHeaders);
  exchange.alternate_exchange = in.String();
  in.Texts(&exchange.labels);
  if (!in.Done()) return Garbled("exchange");
  return exchange;
}

std::string EncodeBinding(const Binding& binding) {
  return RowWriter()
      .Version()
      .String(binding.exchange)
      .String(binding.queue)
      .String(binding.to_exchange)
      .String(binding.binding_key)
      .Texts(binding.headers)
      .U8(static_cast<uint8_t>(binding.header_match))
      .Take();
}

absl::StatusOr<Binding> ParseBinding(std::string_view value) {
  RowReader in(value);
  if (absl::Status status = CheckVersion("binding", &in); !status.ok()) return status;
  Binding binding;
  binding.exchange = in.String();
  binding.queue = in.String();
  binding.to_exchange = in.String();
  in.Require(binding.queue.empty() != binding.to_exchange.empty());
  binding.binding_key = in.String();
  in.Texts(&binding.headers);
  binding.header_match = in.Choice(HeaderMatch::kAll, HeaderMatch::kAny);
  if (!in.Done()) return Garbled("binding");
  return binding;
}

}  // namespace sluice::storage
