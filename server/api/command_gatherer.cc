#include "server/api/command_gatherer.h"

#include <algorithm>
#include <utility>
#include <variant>

namespace sluice::api {
namespace {

// More made single publishes no faster (docs/adr/0013), and would let the engine wait for longer
// while it has nothing to do.
constexpr size_t kItemsMax = 64;
// What other work of the loop may come between the first and the last.
constexpr std::chrono::milliseconds kTimeMax{5};

size_t ItemsIn(const broker::Command& command) {
  size_t items = 0;
  if (const auto* publish = std::get_if<broker::PublishCommand>(&command)) {
    items = publish->publish.messages.size();
  } else if (const auto* settle = std::get_if<broker::SettleCommand>(&command)) {
    items = settle->items.size();
  } else if (const auto* transaction = std::get_if<broker::TransactCommand>(&command)) {
    for (const broker::Publish& publish : transaction->publishes) items += publish.messages.size();
  }
  return std::max<size_t>(1, items);
}

}  // namespace

void CommandGatherer::Add(broker::Command command) {
  if (commands_.empty()) since_ = std::chrono::steady_clock::now();
  items_ += ItemsIn(command);
  commands_.push_back(std::move(command));
  if (items_ >= kItemsMax) Flush();
}

bool CommandGatherer::overdue() const {
  return std::chrono::steady_clock::now() - since_ >= kTimeMax;
}

void CommandGatherer::Flush() {
  items_ = 0;
  if (!commands_.empty()) sink_->SubmitAll(&commands_);
}

}  // namespace sluice::api
