// Gives memory that the allocator keeps after a peak back to the system.
#ifndef SLUICE_SERVER_HEAP_TRIMMER_H_
#define SLUICE_SERVER_HEAP_TRIMMER_H_

#include <thread>

#include "absl/synchronization/notification.h"

namespace sluice {

// glibc's heaps shrink only at their top: one small block above freed megabytes keeps them all. A
// thread of its own looks every few seconds and trims when there is much to win; it never runs on
// the way of a message. Does nothing with other C libraries.
class HeapTrimmer {
 public:
  HeapTrimmer() : thread_([this] { Run(); }) {}
  ~HeapTrimmer() {
    stop_.Notify();
    thread_.join();
  }
  HeapTrimmer(const HeapTrimmer&) = delete;
  HeapTrimmer& operator=(const HeapTrimmer&) = delete;

 private:
  void Run();

  absl::Notification stop_;
  std::thread thread_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HEAP_TRIMMER_H_
