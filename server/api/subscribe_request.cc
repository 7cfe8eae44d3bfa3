#include "server/api/subscribe_request.h"

#include <sodium.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/api/exchange_codec.h"
#include "server/api/field_checks.h"
#include "server/api/queue_codec.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

// Idle timeouts beyond a year are mistakes.
constexpr int64_t kIdleTimeoutMsMax = 366 * kDayMs;
constexpr char kTemporaryPrefix[] = "sluice.tmp.";
// Whoever knows the name may publish there: as hard to guess as a key.
constexpr size_t kTemporaryNameBytes = 16;
// Each costs a row and a place in its exchange.
constexpr int kTemporaryBindingsMax = 100;

std::string TemporaryName() {
  char random[kTemporaryNameBytes];
  randombytes_buf(random, sizeof(random));
  return absl::StrCat(kTemporaryPrefix,
                      absl::BytesToHexString(absl::string_view(random, sizeof(random))));
}

absl::StatusOr<std::unique_ptr<broker::TemporaryQueueSpec>> ToTemporaryQueue(
    const v1::TemporaryQueue& temporary, const std::string& path) {
  const std::string config_path = PathTo(path, "config");
  if (!temporary.config().name().empty()) {
    return MakeFieldError(PathTo(config_path, "name"), "must be empty: the server chooses it");
  }
  if (temporary.bindings_size() > kTemporaryBindingsMax) {
    return MakeFieldError(PathTo(path, "bindings"),
                          absl::StrCat("more than ", kTemporaryBindingsMax));
  }
  auto config = ToConfigChange(temporary.config(), config_path);
  if (!config.ok()) return config.status();
  auto spec = std::make_unique<broker::TemporaryQueueSpec>();
  spec->config = *std::move(config);
  spec->config.name = TemporaryName();
  for (int i = 0; i < temporary.bindings_size(); ++i) {
    auto binding = ToBinding(PathTo(path, absl::StrCat("bindings[", i, "]")),
                             temporary.bindings(i), Destination::kForbidden);
    if (!binding.ok()) return binding.status();
    binding->queue = spec->config.name;
    spec->bindings.push_back(*std::move(binding));
  }
  return spec;
}

// Where the messages come from.
absl::Status TakeSource(const v1::SubscribeRequest& request, std::string_view path,
                        broker::SubscribeCommand* command) {
  if (!request.has_temporary_queue()) {
    command->queue = request.queue();
    return CheckName(PathTo(path, "queue"), request.queue());
  }
  if (!request.queue().empty()) {
    return MakeFieldError(PathTo(path, "queue"), "must be empty with temporary_queue");
  }
  auto temporary = ToTemporaryQueue(request.temporary_queue(), PathTo(path, "temporary_queue"));
  if (!temporary.ok()) return temporary.status();
  command->temporary_queue = *std::move(temporary);
  return absl::OkStatus();
}

absl::Status TakeCredit(const v1::SubscribeRequest& request, std::string_view path,
                        broker::SubscribeCommand* command) {
  const auto in_flight = CountOr(PathTo(path, "max_in_flight"), request.max_in_flight(),
                                 kMaxInFlightDefault, kMaxInFlightCeiling);
  if (!in_flight.ok()) return in_flight.status();
  const auto bytes = CountOr(PathTo(path, "max_bytes_in_flight"), request.max_bytes_in_flight(),
                             kMaxBytesInFlightDefault, kMaxBytesInFlightCeiling);
  if (!bytes.ok()) return bytes.status();
  command->max_in_flight = static_cast<int32_t>(*in_flight);
  command->max_bytes_in_flight = *bytes;
  if (!request.has_delivery_rate()) return absl::OkStatus();
  const auto rate = ToRateLimit(PathTo(path, "delivery_rate"), request.delivery_rate());
  if (!rate.ok()) return rate.status();
  command->delivery_rate = *rate;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<broker::SubscribeCommand> ToSubscribeCommand(const v1::SubscribeRequest& request,
                                                            std::string_view path) {
  broker::SubscribeCommand command;
  if (auto status = TakeSource(request, path, &command); !status.ok()) return status;
  if (auto status = CheckShortString(PathTo(path, "consumer"), request.consumer()); !status.ok()) {
    return status;
  }
  if (auto status = TakeCredit(request, path, &command); !status.ok()) return status;
  const auto lease_ms = LeaseMs(request.has_lease(), request.lease(), PathTo(path, "lease"));
  if (!lease_ms.ok()) return lease_ms.status();
  const auto idle_ms =
      ToMs(PathTo(path, "idle_timeout"), request.idle_timeout(), 0, kIdleTimeoutMsMax);
  if (!idle_ms.ok()) return idle_ms.status();
  if (request.max_messages() < 0) {
    return MakeFieldError(PathTo(path, "max_messages"), "must not be negative");
  }
  command.consumer = request.consumer();
  command.lease_ms = *lease_ms;
  command.auto_ack = request.auto_ack();
  command.max_messages = request.max_messages();
  command.idle_timeout_ms = *idle_ms;
  command.keep_leases_on_close = request.keep_leases_on_close();
  command.exclusive = request.exclusive();
  command.consumer_priority = request.consumer_priority();
  return command;
}

const std::string& QueueOf(const broker::SubscribeCommand& command) {
  return command.temporary_queue ? command.temporary_queue->config.name : command.queue;
}

}  // namespace sluice::api
