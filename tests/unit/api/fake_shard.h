// A shard for tests of the gRPC edge: keeps the commands it is given and lets the test answer them.
#ifndef SLUICE_TESTS_UNIT_API_FAKE_SHARD_H_
#define SLUICE_TESTS_UNIT_API_FAKE_SHARD_H_

#include <deque>
#include <optional>
#include <utility>
#include <variant>

#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/broker/commands.h"

namespace sluice::api {

class FakeShard : public broker::CommandSink {
 public:
  void Submit(broker::Command command) override {
    absl::AnyInvocable<void()> before;
    {
      absl::MutexLock lock(&mutex_);
      before = std::exchange(before_next_, nullptr);
    }
    if (before) before();
    absl::MutexLock lock(&mutex_);
    commands_.push_back(std::move(command));
  }

  // Runs `task` where the next command is submitted, before it is.
  void BeforeNext(absl::AnyInvocable<void()> task) {
    absl::MutexLock lock(&mutex_);
    before_next_ = std::move(task);
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

  // The next command, which must be a `T`; none if it does not come in time.
  template <typename T>
  std::optional<T> TryTake(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    const auto come = +[](std::deque<broker::Command>* commands) { return !commands->empty(); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(come, &commands_), timeout)) return std::nullopt;
    broker::Command command = std::move(commands_.front());
    commands_.pop_front();
    return std::get<T>(std::move(command));
  }

 private:
  absl::Mutex mutex_;
  absl::AnyInvocable<void()> before_next_;
  std::deque<broker::Command> commands_;
};

}  // namespace sluice::api

#endif  // SLUICE_TESTS_UNIT_API_FAKE_SHARD_H_
