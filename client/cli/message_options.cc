#include "client/cli/message_options.h"

#include "client/cli/context.h"
#include "client/cpp/time.h"

namespace sluice::cli {
namespace {

void AddText(CLI::App& app, const std::string& name, const std::string& help,
             std::function<void(const std::string&)> take) {
  app.add_option_function<std::string>(name, std::move(take), help)->type_name("TEXT");
}

}  // namespace

void AddMessageOptions(CLI::App& app, v1::Message* message) {
  AddKeyValues(
      app, "--attribute,-a",
      [message](const std::string& key, const std::string& value) {
        (*message->mutable_attributes())[key] = value;
      },
      "An attribute of each message; may be repeated");
  AddText(app, "--content-type", "Media type of the body, for example application/json",
          [message](const std::string& text) { message->set_content_type(text); });
  AddText(app, "--group", "Message group: strictly in order, one at a time",
          [message](const std::string& text) { message->set_group(text); });
  AddText(app, "--routing-key", "What exchanges route by",
          [message](const std::string& text) { message->set_routing_key(text); });
  AddText(app, "--dedup-id", "The same id again within the queue's window stores nothing new",
          [message](const std::string& text) { message->set_dedup_id(text); });
  AddText(app, "--correlation-id", "Ties a reply to its request",
          [message](const std::string& text) { message->set_correlation_id(text); });
  AddText(app, "--reply-to", "Queue for replies",
          [message](const std::string& text) { message->set_reply_to(text); });
  app.add_option_function<int>(
      "--priority", [message](int priority) { message->set_priority(priority); },
      "0 to 9; 9 is delivered first [4]");
  AddDurationFunction(
      app, "--delay",
      [message](absl::Duration delay) { *message->mutable_delay() = client::ToProto(delay); },
      "Deliver this much later");
  AddTimeFunction(
      app, "--deliver-at",
      [message](absl::Time time) { *message->mutable_deliver_at() = client::ToProto(time); },
      "Deliver from this time on, for example 2026-03-01T08:30:00Z")
      ->excludes(app.get_option("--delay"));
  AddDurationFunction(
      app, "--ttl",
      [message](absl::Duration ttl) { *message->mutable_ttl() = client::ToProto(ttl); },
      "Expire when not delivered within this time");
}

}  // namespace sluice::cli
