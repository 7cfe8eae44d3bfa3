// What absl::Mutex and absl::Notification do, told to ThreadSanitizer. The linker sends our calls
// here (tsan_mutex.cmake); each does the real thing and announces it. Linked in TSan builds only.
//
// Not covered, as nothing uses them: absl::CondVar, and Await under a reader lock.
#include <sanitizer/tsan_interface.h>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace {

// Lock announcements come as a pair with nothing in between: TSan ignores a thread's accesses from
// the one to the other, and inside the real call conditions of ours may run.
void AnnounceLocked(absl::Mutex* mutex, unsigned flags = 0) {
  __tsan_mutex_pre_lock(mutex, flags);
  __tsan_mutex_post_lock(mutex, flags, 0);
}

// Before the real call: afterwards another thread may hold the mutex, or have destroyed it.
void AnnounceUnlocking(absl::Mutex* mutex, unsigned flags = 0) {
  __tsan_mutex_pre_unlock(mutex, flags);
  __tsan_mutex_post_unlock(mutex, flags);
}

// A condition runs with the mutex held, but in any thread: in the waiting one or in whichever
// unlocks, after that one has announced that it no longer holds the mutex.
class AnnouncedCondition {
 public:
  AnnouncedCondition(absl::Mutex* mutex, const absl::Condition& condition)
      : mutex_(mutex), condition_(condition), announced_(&Eval, this) {}

  const absl::Condition& announced() const { return announced_; }

 private:
  static bool Eval(AnnouncedCondition* self) {
    // As a try: it cannot block, so it says nothing about the order of locks.
    AnnounceLocked(self->mutex_, __tsan_mutex_try_lock);
    const bool holds = self->condition_.Eval();
    AnnounceUnlocking(self->mutex_);
    return holds;
  }

  absl::Mutex* const mutex_;
  const absl::Condition& condition_;
  const absl::Condition announced_;
};

}  // namespace

// A member function takes `this` as its first argument, so plain functions can stand in.
#define SLUICE_MUTEX(result, name, ...)                                                  \
  result __real__ZN4absl7debian35Mutex##name(absl::Mutex* mutex __VA_OPT__(, ) __VA_ARGS__); \
  result __wrap__ZN4absl7debian35Mutex##name(absl::Mutex* mutex __VA_OPT__(, ) __VA_ARGS__)
#define SLUICE_REAL(name) __real__ZN4absl7debian35Mutex##name

extern "C" {

SLUICE_MUTEX(void, 4LockEv) {
  SLUICE_REAL(4LockEv)(mutex);
  AnnounceLocked(mutex);
}

SLUICE_MUTEX(void, 6UnlockEv) {
  AnnounceUnlocking(mutex);
  SLUICE_REAL(6UnlockEv)(mutex);
}

SLUICE_MUTEX(bool, 7TryLockEv) {
  const bool locked = SLUICE_REAL(7TryLockEv)(mutex);
  if (locked) AnnounceLocked(mutex, __tsan_mutex_try_lock);
  return locked;
}

SLUICE_MUTEX(void, 10ReaderLockEv) {
  SLUICE_REAL(10ReaderLockEv)(mutex);
  AnnounceLocked(mutex, __tsan_mutex_read_lock);
}

SLUICE_MUTEX(void, 12ReaderUnlockEv) {
  AnnounceUnlocking(mutex, __tsan_mutex_read_lock);
  SLUICE_REAL(12ReaderUnlockEv)(mutex);
}

SLUICE_MUTEX(void, 5AwaitERKNS0_9ConditionE, const absl::Condition& condition) {
  const AnnouncedCondition wrapped(mutex, condition);
  AnnounceUnlocking(mutex);
  SLUICE_REAL(5AwaitERKNS0_9ConditionE)(mutex, wrapped.announced());
  AnnounceLocked(mutex);
}

SLUICE_MUTEX(bool, 16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE,
             const absl::Condition& condition, absl::Duration timeout) {
  const AnnouncedCondition wrapped(mutex, condition);
  AnnounceUnlocking(mutex);
  const bool holds = SLUICE_REAL(16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE)(
      mutex, wrapped.announced(), timeout);
  AnnounceLocked(mutex);
  return holds;
}

SLUICE_MUTEX(bool, 17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE,
             const absl::Condition& condition, absl::Time deadline) {
  const AnnouncedCondition wrapped(mutex, condition);
  AnnounceUnlocking(mutex);
  const bool holds = SLUICE_REAL(17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE)(
      mutex, wrapped.announced(), deadline);
  AnnounceLocked(mutex);
  return holds;
}

SLUICE_MUTEX(void, 8LockWhenERKNS0_9ConditionE, const absl::Condition& condition) {
  const AnnouncedCondition wrapped(mutex, condition);
  // The condition may run in another thread, which has to see what it was made from.
  __tsan_release(mutex);
  SLUICE_REAL(8LockWhenERKNS0_9ConditionE)(mutex, wrapped.announced());
  AnnounceLocked(mutex);
}

SLUICE_MUTEX(bool, 19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE,
             const absl::Condition& condition, absl::Duration timeout) {
  const AnnouncedCondition wrapped(mutex, condition);
  __tsan_release(mutex);
  const bool holds = SLUICE_REAL(19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE)(
      mutex, wrapped.announced(), timeout);
  AnnounceLocked(mutex);
  return holds;
}

SLUICE_MUTEX(void, D1Ev) {
  __tsan_mutex_destroy(mutex, 0);
  SLUICE_REAL(D1Ev)(mutex);
}

void __real__ZN4absl7debian312Notification6NotifyEv(absl::Notification* notification);
void __wrap__ZN4absl7debian312Notification6NotifyEv(absl::Notification* notification) {
  __tsan_release(notification);
  __real__ZN4absl7debian312Notification6NotifyEv(notification);
}

void __real__ZNK4absl7debian312Notification19WaitForNotificationEv(
    absl::Notification* notification);
void __wrap__ZNK4absl7debian312Notification19WaitForNotificationEv(
    absl::Notification* notification) {
  __real__ZNK4absl7debian312Notification19WaitForNotificationEv(notification);
  __tsan_acquire(notification);
}

bool __real__ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE(
    absl::Notification* notification, absl::Duration timeout);
bool __wrap__ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE(
    absl::Notification* notification, absl::Duration timeout) {
  const bool notified =
      __real__ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE(
          notification, timeout);
  if (notified) __tsan_acquire(notification);
  return notified;
}

}  // extern "C"
