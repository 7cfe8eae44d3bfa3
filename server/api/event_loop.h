// One completion queue, the thread that polls it, and a way into that thread from others.
//
// Every call belongs to one loop, and everything it does happens on the loop's thread: calls need
// no locks. The engine never writes to gRPC, as a write does framing and system calls on the thread
// that asks for it; the engine posts its results here instead. One wake-up (a grpc::Alarm that is
// due at once) serves all that is posted until it fires.
#ifndef SLUICE_SERVER_API_EVENT_LOOP_H_
#define SLUICE_SERVER_API_EVENT_LOOP_H_

#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "server/api/answer_cork.h"
#include "server/api/command_gatherer.h"
#include "server/api/connections.h"
#include "server/broker/commands.h"

namespace sluice::api {

// One operation handed to gRPC. Keeps its owner alive until the operation has completed; may be
// armed again from then on, also inside the handler.
class Tag {
 public:
  // Calls `Method` of `owner` with gRPC's `ok` when the operation completes. The result is what
  // gRPC takes as the tag.
  template <auto Method, typename Owner>
  void* Arm(std::shared_ptr<Owner> owner) {
    object_ = owner.get();
    owner_ = std::move(owner);
    run_ = [](void* object, bool ok) { (static_cast<Owner*>(object)->*Method)(ok); };
    return this;
  }
  void Proceed(bool ok) {
    const std::shared_ptr<void> owner = std::move(owner_);
    run_(object_, ok);
  }
  // For operations that will never complete.
  void Release() { const std::shared_ptr<void> owner = std::move(owner_); }

 private:
  std::shared_ptr<void> owner_;
  void* object_ = nullptr;
  void (*run_)(void*, bool) = nullptr;
};

class EventLoop {
 public:
  using Task = absl::AnyInvocable<void()>;

  // `connections` must outlive the loop.
  EventLoop(std::unique_ptr<grpc::ServerCompletionQueue> queue, broker::CommandSink* sink,
            const Connections* connections);
  // Only after Stop, or without Start.
  ~EventLoop();

  // Before the first operation on the queue is expected to complete.
  void Start();
  // Closes the queue and joins the thread: handlers no longer run, tasks are dropped unrun, calls
  // are let go. The gRPC server must have been shut down.
  void Stop();

  // Which tasks run first of those that wait: what goes to consumers, as every answer sent before
  // it delays the work of others; each kind in order of posting.
  enum class Kind { kDelivery, kOther };
  // Any thread; never blocks for long. Runs `task` on the loop's thread, before the next gRPC event.
  // After Stop the task is destroyed unrun.
  void Post(Task task, Kind kind = Kind::kOther);

  // Hands the command of a short call to the engine: while many of those are open together with those
  // of others that come at the same time, when nothing more has come or some milliseconds later.
  // Loop thread only.
  void Submit(broker::Command command);
  // A call has come, or has been answered, that takes no longer than a commit.
  void ShortCallCame() { ++short_calls_; }
  void ShortCallWent() { --short_calls_; }

  // Before an answer to `call` is written: among many it leaves with those that follow it. Loop
  // thread only.
  void HoldAnswer(const grpc::ServerContext& call) {
    if (answers_are_many_) cork_.Hold(call);
  }

  // What to do about an open call, named by `key`, when the server drains. Loop thread only.
  void AddDrainable(const void* key, Task drain) { drainables_[key] = std::move(drain); }
  void RemoveDrainable(const void* key) { drainables_.erase(key); }
  // Any thread.
  void Drain();

  // Timers that must not keep the queue from draining when the loop stops. Loop thread only.
  void AddTimer(grpc::Alarm* timer) { timers_.insert(timer); }
  void RemoveTimer(grpc::Alarm* timer) { timers_.erase(timer); }

  // Calls accepted that a shutdown waits for. Any thread.
  void CallStarted() { calls_.fetch_add(1, std::memory_order_relaxed); }
  void CallEnded() { calls_.fetch_sub(1, std::memory_order_release); }
  int64_t calls() const { return calls_.load(std::memory_order_acquire); }

  grpc::ServerCompletionQueue* queue() { return queue_.get(); }

 private:
  void Run();
  // False once the queue is closed and drained.
  bool Next(void** event, bool* ok);
  void RunPosted(bool woken);

  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::thread thread_;
  bool started_ = false;
  std::atomic<int64_t> calls_{0};

  // Loop thread only.
  bool open_ = true;
  CommandGatherer commands_;
  int short_calls_ = 0;
  AnswerCork cork_;
  bool answers_are_many_ = false;
  std::map<const void*, Task> drainables_;
  std::set<grpc::Alarm*> timers_;

  std::atomic<bool> has_tasks_{false};
  absl::Mutex mutex_;
  std::vector<Task> deliveries_ ABSL_GUARDED_BY(mutex_);
  std::vector<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  bool wake_armed_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Alarm wake_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_EVENT_LOOP_H_
