// Invariant checks that stay on in release builds: a queue that has lost track of its own state
// must stop, not go on and corrupt what is on disk.
#ifndef SLUICE_SERVER_BASE_CHECK_H_
#define SLUICE_SERVER_BASE_CHECK_H_

#include <cstdio>
#include <cstdlib>

#define SLUICE_CHECK(condition)                                                              \
  do {                                                                                       \
    if (!(condition)) [[unlikely]] {                                                         \
      std::fprintf(stderr, "%s:%d: invariant broken: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                          \
    }                                                                                        \
  } while (false)

#endif  // SLUICE_SERVER_BASE_CHECK_H_
