#include "server/heap_trimmer.h"

#include <malloc.h>

#include <cstddef>

#include "absl/time/time.h"
#include "server/base/thread_name.h"
#include "server/model/limits.h"

namespace sluice {
namespace {

// Pages given back and needed again cost a fault each: not more often than this.
constexpr absl::Duration kPeriod = absl::Seconds(2);
// Free memory in the heaps that is worth a trim.
[[maybe_unused]] constexpr size_t kFreeBytesWorthIt = 128 * kMiB;

void TrimIfWorthIt() {
#ifdef __GLIBC__
  if (mallinfo2().fordblks >= kFreeBytesWorthIt) malloc_trim(0);
#endif
}

}  // namespace

void HeapTrimmer::Run() {
  NameThread("heap-trimmer");
  while (!stop_.WaitForNotificationWithTimeout(kPeriod)) TrimIfWorthIt();
}

}  // namespace sluice
