#include "server/api/not_built.h"

#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/field_checks.h"
#include "server/model/error.h"

namespace sluice::api {
namespace {

using Fields = std::initializer_list<std::pair<bool, const char*>>;

// The first that is used.
absl::Status Refuse(std::string_view path, Fields fields) {
  for (const auto& [used, field] : fields) {
    if (used) return MakeNotBuiltError(PathTo(path, field));
  }
  return absl::OkStatus();
}

absl::Status RefuseMessage(const broker::NewMessage& message, size_t index) {
  if (message.priority == kPriorityDefault && !message.options) return absl::OkStatus();
  static const broker::MessageOptions none;
  const broker::MessageOptions& options = message.options ? *message.options : none;
  return Refuse(absl::StrCat("messages[", index, "]"),
                {
                    {message.priority != kPriorityDefault, "priority"},
                    {options.group_hash != 0, "group"},
                    {options.delay_ms != 0, "delay"},
                    {options.deliver_at_ms != 0, "deliver_at"},
                    {options.ttl_ms != 0, "ttl"},
                    {options.dedup.has_value(), "dedup_id"},
                });
}

}  // namespace

absl::Status RefuseNotBuilt(const ApiContext& api,
                            const std::vector<broker::NewMessage>& messages) {
  if (!api.options.refuse_not_built) return absl::OkStatus();
  for (size_t i = 0; i < messages.size(); ++i) {
    if (auto status = RefuseMessage(messages[i], i); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status RefuseNotBuilt(const ApiContext& api, const broker::Publish& publish) {
  if (!api.options.refuse_not_built) return absl::OkStatus();
  auto status = Refuse({}, {
                               {!publish.exchange.empty(), "exchange"},
                               {publish.mandatory, "mandatory"},
                               {publish.wait_when_full_ms > 0, "wait_when_full"},
                           });
  return status.ok() ? RefuseNotBuilt(api, publish.messages) : status;
}

absl::Status RefuseNotBuilt(const ApiContext& api, const v1::PublishStreamInit& init) {
  if (!api.options.refuse_not_built) return absl::OkStatus();
  return Refuse("init", {
                            {init.has_exchange(), "exchange"},
                            {!init.producer_id().empty(), "producer_id"},
                            {init.mandatory(), "mandatory"},
                            {init.has_wait_when_full(), "wait_when_full"},
                        });
}

absl::Status RefuseNotBuilt(const ApiContext& api, const v1::SubscribeRequest& request) {
  if (!api.options.refuse_not_built) return absl::OkStatus();
  return Refuse({}, {
                        {request.exclusive(), "exclusive"},
                        {request.consumer_priority() != 0, "consumer_priority"},
                        {request.has_delivery_rate(), "delivery_rate"},
                        {request.has_temporary_queue(), "temporary_queue"},
                    });
}

absl::Status RefuseNotBuilt(const ApiContext& api, const v1::NackRequest& request,
                            std::string_view path) {
  if (!api.options.refuse_not_built) return absl::OkStatus();
  for (int i = 0; i < request.items_size(); ++i) {
    const v1::NackItem& item = request.items(i);
    if (item.reason().empty() && item.action() != v1::NACK_ACTION_DEAD_LETTER) continue;
    auto status = Refuse(PathTo(path, absl::StrCat("items[", i, "]")),
                         {
                             {!item.reason().empty(), "reason"},
                             {item.action() == v1::NACK_ACTION_DEAD_LETTER, "action"},
                         });
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status RefuseNotBuilt(const ApiContext& api, const broker::QueueConfigChange& config,
                            std::string_view path) {
  if (!api.options.refuse_not_built) return absl::OkStatus();
  const QueueConfig defaults;
  return Refuse(
      path,
      {
          {config.max_attempts.value_or(0) != 0, "retry.max_attempts"},
          {config.discard_when_exhausted.value_or(false), "retry.discard_when_exhausted"},
          {!config.dead_letter_queue.value_or("").empty(), "dead_letter_queue"},
          {config.ttl_ms.value_or(0) != 0, "ttl"},
          {config.max_length.value_or(0) != 0, "max_length"},
          {config.max_bytes.value_or(0) != 0, "max_bytes"},
          {config.overflow.value_or(defaults.overflow) != defaults.overflow, "overflow"},
          {config.dedup_window_ms.value_or(defaults.dedup_window_ms) != defaults.dedup_window_ms,
           "dedup_window"},
          {config.delivery_rate.value_or(defaults.delivery_rate) != defaults.delivery_rate,
           "delivery_rate"},
          {config.single_active_consumer.value_or(false), "single_active_consumer"},
          {config.priority_aging_ms.value_or(0) != 0, "priority_aging"},
          {config.idle_expiry_ms.value_or(0) != 0, "idle_expiry"},
      });
}

}  // namespace sluice::api
