// Names of threads, as tools such as top -H and perf show them.
#ifndef SLUICE_SERVER_BASE_THREAD_NAME_H_
#define SLUICE_SERVER_BASE_THREAD_NAME_H_

#include <pthread.h>

namespace sluice {

// Linux keeps no more than this many characters of a thread's name.
inline constexpr int kThreadNameBytesMax = 15;

// Names the calling thread.
template <int kBytes>
void NameThread(const char (&name)[kBytes]) {
  static_assert(kBytes - 1 <= kThreadNameBytesMax);
  pthread_setname_np(pthread_self(), name);
}

}  // namespace sluice

#endif  // SLUICE_SERVER_BASE_THREAD_NAME_H_
