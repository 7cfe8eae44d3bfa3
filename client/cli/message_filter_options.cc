#include "client/cli/message_filter_options.h"

#include "client/cli/context.h"
#include "client/cli/format.h"
#include "client/cpp/time.h"

namespace sluice::cli {
namespace {

using Texts = std::vector<std::string>;

// An option that may be repeated.
CLI::Option* AddTexts(CLI::App& app, const std::string& name, const std::string& type,
                      std::function<void(const std::string&)> take, const std::string& help) {
  return app
      .add_option_function<Texts>(
          name,
          [take = std::move(take)](const Texts& texts) {
            for (const std::string& text : texts) take(text);
          },
          help)
      ->type_name(type)
      ->allow_extra_args(false);
}

}  // namespace

void AddMessageFilterOptions(CLI::App& app, v1::MessageFilter* filter) {
  AddTexts(app, "--id", "ID", [=](const std::string& id) { filter->add_ids(id); },
           "Only this message; may be repeated");
  AddTexts(
      app, "--state", "STATE",
      [=](const std::string& word) {
        v1::MessageState state;
        if (v1::MessageState_Parse(EnumName(word, "MESSAGE_STATE_"), &state)) {
          filter->add_states(state);
        }
      },
      "Only in this state: ready, leased, delayed or blocked; may be repeated")
      ->check(CLI::IsMember({"ready", "leased", "delayed", "blocked"}));
  AddTexts(app, "--group", "GROUP", [=](const std::string& group) { filter->add_groups(group); },
           "Only of this message group; may be repeated");
  AddKeyValues(
      app, "--attribute,-a",
      [=](const std::string& key, const std::string& value) {
        (*filter->mutable_attributes())[key] = value;
      },
      "Only with this attribute; may be repeated, and all must agree");
  AddDurationFunction(
      app, "--min-age",
      [=](absl::Duration age) { *filter->mutable_min_age() = client::ToProto(age); },
      "Only published at least this long ago");
  AddDurationFunction(
      app, "--max-age",
      [=](absl::Duration age) { *filter->mutable_max_age() = client::ToProto(age); },
      "Only published at most this long ago");
  AddTexts(
      app, "--death-reason", "REASON",
      [=](const std::string& word) {
        v1::DeathReason reason;
        if (v1::DeathReason_Parse(EnumName(word, "DEATH_REASON_"), &reason)) {
          filter->add_death_reasons(reason);
        }
      },
      "Only last dead-lettered for this: attempts, rejected, expired or overflow; may be repeated")
      ->check(CLI::IsMember({"attempts", "rejected", "expired", "overflow"}));
  app.add_option("--death-queue", *filter->mutable_death_queue(),
                 "Only last dead-lettered from this queue");
}

bool IsSet(const v1::MessageFilter& filter) { return filter.ByteSizeLong() > 0; }

}  // namespace sluice::cli
