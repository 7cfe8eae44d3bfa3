// A shard for tests of the gRPC edge: keeps the commands it is given and lets the test answer them.
#ifndef SLUICE_TESTS_UNIT_API_FAKE_SHARD_H_
#define SLUICE_TESTS_UNIT_API_FAKE_SHARD_H_

#include <deque>
#include <utility>
#include <variant>

#include "absl/synchronization/mutex.h"
#include "server/broker/commands.h"

namespace sluice::api {

class FakeShard : public broker::CommandSink {
 public:
  void Submit(broker::Command command) override {
    absl::MutexLock lock(&mutex_);
    commands_.push_back(std::move(command));
  }

  // Waits for the next command, which must be a `T`.
  template <typename T>
  T Take() {
    return std::get<T>(TakeAny());
  }
  // Waits for the next command.
  broker::Command TakeAny() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](std::deque<broker::Command>* commands) { return !commands->empty(); }, &commands_));
    broker::Command command = std::move(commands_.front());
    commands_.pop_front();
    return command;
  }

 private:
  absl::Mutex mutex_;
  std::deque<broker::Command> commands_;
};

}  // namespace sluice::api

#endif  // SLUICE_TESTS_UNIT_API_FAKE_SHARD_H_
