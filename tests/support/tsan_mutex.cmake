# Tells ThreadSanitizer about absl::Mutex and absl::Notification: the system's Abseil is not
# instrumented, so what they order would be reported as races. Link sluice_tsan_mutex with a program
# and its calls into them pass through tsan_mutex.cc. The names are those of Debian's Abseil; were
# they to change, nothing would be wrapped and every test with a Mutex would report races.
set(mutex _ZN4absl7debian35Mutex)
set(notification absl7debian312Notification)
set(wrapped_names
  ${mutex}4LockEv
  ${mutex}6UnlockEv
  ${mutex}7TryLockEv
  ${mutex}10ReaderLockEv
  ${mutex}12ReaderUnlockEv
  ${mutex}5AwaitERKNS0_9ConditionE
  ${mutex}16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE
  ${mutex}17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE
  ${mutex}8LockWhenERKNS0_9ConditionE
  ${mutex}19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE
  ${mutex}D1Ev
  _ZN4${notification}6NotifyEv
  _ZNK4${notification}19WaitForNotificationEv
  _ZNK4${notification}30WaitForNotificationWithTimeoutENS0_8DurationE)

add_library(sluice_tsan_mutex OBJECT ${CMAKE_CURRENT_LIST_DIR}/tsan_mutex.cc)
# Its own accesses are on behalf of whoever waits; only what it announces may count.
target_compile_options(sluice_tsan_mutex PRIVATE -fno-sanitize=thread)
target_link_libraries(sluice_tsan_mutex PUBLIC absl::synchronization PRIVATE sluice::warnings)
foreach(name IN LISTS wrapped_names)
  target_link_options(sluice_tsan_mutex INTERFACE LINKER:--wrap=${name})
endforeach()
