// Commands of calls that came together, on their way to the engine.
#ifndef SLUICE_SERVER_API_COMMAND_GATHERER_H_
#define SLUICE_SERVER_API_COMMAND_GATHERER_H_

#include <chrono>
#include <cstddef>
#include <vector>

#include "server/broker/commands.h"

namespace sluice::api {

// Under load one read from a connection brings dozens of single publishes or acks. An engine that is
// woken by the first would make a commit of its own for it, with a write and a sync; what is
// gathered here makes one. One thread only.
class CommandGatherer {
 public:
  explicit CommandGatherer(broker::CommandSink* sink) : sink_(sink) {}
  CommandGatherer(const CommandGatherer&) = delete;
  CommandGatherer& operator=(const CommandGatherer&) = delete;

  // Keeps `command` until the next Flush; flushes by itself when there is enough for a good commit.
  void Add(broker::Command command);
  // Hands over what was added, in order.
  void Flush();
  bool empty() const { return commands_.empty(); }
  // The first has been kept for long enough.
  bool overdue() const;

 private:
  broker::CommandSink* const sink_;
  std::vector<broker::Command> commands_;
  size_t items_ = 0;  // messages and receipts in them, at least one for each
  std::chrono::steady_clock::time_point since_;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_COMMAND_GATHERER_H_
