#include "server/api/command_gatherer.h"

#include <utility>
#include <variant>

namespace sluice::api {
namespace {

// More made single publishes no faster (docs/adr/0013), and would let the engine wait for longer
// while it has nothing to do.
constexpr size_t kItemsMax = 64;

size_t ItemsIn(const broker::Command& command) {
  if (const auto* publish = std::get_if<broker::PublishCommand>(&command)) {
    return publish->publish.messages.size();
  }
  if (const auto* settle = std::get_if<broker::SettleCommand>(&command)) {
    return settle->items.size();
  }
  return 1;
}

}  // namespace

void CommandGatherer::Add(broker::Command command) {
  items_ += ItemsIn(command);
  commands_.push_back(std::move(command));
  if (items_ >= kItemsMax) Flush();
}

void CommandGatherer::Flush() {
  items_ = 0;
  if (!commands_.empty()) sink_->SubmitAll(&commands_);
}

}  // namespace sluice::api
