#include "server/api/event_loop.h"
#include "server/base/thread_name.h"

#include <grpc/support/time.h>

#include <utility>

namespace sluice::api {
namespace {

// With fewer calls open little would come together, and the look for it costs some microseconds.
constexpr int kCallsToGather = 16;
// With fewer tasks to run, few answers would share a packet.
constexpr size_t kTasksToCork = 4;

}  // namespace

EventLoop::EventLoop(std::unique_ptr<grpc::ServerCompletionQueue> queue, broker::CommandSink* sink,
                     const Connections* connections)
    : queue_(std::move(queue)), commands_(sink), cork_(connections) {}

EventLoop::~EventLoop() {
  if (thread_.joinable()) Stop();
  if (started_) return;
  // gRPC wants every queue closed and drained before it goes.
  queue_->Shutdown();
  void* event = nullptr;
  bool ok = false;
  while (queue_->Next(&event, &ok)) static_cast<Tag*>(event)->Release();
}

void EventLoop::Start() {
  started_ = true;
  thread_ = std::thread([this] { Run(); });
}

void EventLoop::Stop() {
  // gRPC forbids new operations on a closed queue, and handlers start them: so the thread that runs
  // the handlers closes it.
  Post([this] {
    open_ = false;
    {
      absl::MutexLock lock(&mutex_);
      stopped_ = true;
    }
    // Handlers would have cancelled them, but run no more.
    for (grpc::Alarm* timer : timers_) timer->Cancel();
    queue_->Shutdown();
  });
  thread_.join();
  // What a task holds may post again when it goes: not under the lock.
  std::vector<Task> dropped_deliveries;
  std::vector<Task> dropped;
  {
    absl::MutexLock lock(&mutex_);
    dropped_deliveries.swap(deliveries_);
    dropped.swap(tasks_);
  }
}

void EventLoop::Post(Task task, Kind kind) {
  absl::MutexLock lock(&mutex_);
  if (stopped_) return;
  (kind == Kind::kDelivery ? deliveries_ : tasks_).push_back(std::move(task));
  has_tasks_.store(true, std::memory_order_release);
  if (wake_armed_) return;
  wake_armed_ = true;
  wake_.Set(queue_.get(), gpr_time_0(GPR_CLOCK_MONOTONIC), &wake_);
}

void EventLoop::Drain() {
  Post([this] {
    // Draining a call may take it off the list.
    std::map<const void*, Task> drainables;
    drainables.swap(drainables_);
    for (auto& [key, drain] : drainables) drain();
  });
}

void EventLoop::RunPosted(bool woken) {
  if (!woken && !has_tasks_.load(std::memory_order_acquire)) return;
  std::vector<Task> deliveries;
  std::vector<Task> tasks;
  {
    absl::MutexLock lock(&mutex_);
    if (woken) wake_armed_ = false;
    deliveries.swap(deliveries_);
    tasks.swap(tasks_);
    has_tasks_.store(false, std::memory_order_release);
  }
  for (Task& task : deliveries) {
    if (open_) task();
  }
  answers_are_many_ = tasks.size() >= kTasksToCork;
  for (Task& task : tasks) {
    if (open_) task();
  }
  answers_are_many_ = false;
  cork_.Release();
}

void EventLoop::Submit(broker::Command command) {
  commands_.Add(std::move(command));
  if (short_calls_ < kCallsToGather) commands_.Flush();
}

bool EventLoop::Next(void** event, bool* ok) {
  if (!commands_.empty() && !commands_.overdue() &&
      queue_->AsyncNext(event, ok, gpr_time_0(GPR_CLOCK_MONOTONIC)) ==
          grpc::CompletionQueue::GOT_EVENT) {
    return true;
  }
  commands_.Flush();
  return queue_->Next(event, ok);
}

void EventLoop::Run() {
  NameThread("grpc-loop");
  void* event = nullptr;
  bool ok = false;
  while (Next(&event, &ok)) {
    // Tasks go first: what the engine has decided (deliveries, answers) leaves before more work is
    // taken in.
    const bool woken = event == &wake_;
    RunPosted(woken);
    if (woken) continue;
    Tag* const tag = static_cast<Tag*>(event);
    if (open_) {
      tag->Proceed(ok);
    } else {
      tag->Release();
    }
  }
}

}  // namespace sluice::api
