// Durations on the wire, waiting with a limit, and the pauses between attempts to reach a server.
#ifndef SLUICE_CLIENT_CPP_TIME_H_
#define SLUICE_CLIENT_CPP_TIME_H_

#include <google/protobuf/duration.pb.h>

#include <condition_variable>
#include <mutex>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace sluice::client {

// Doubling from the first to the longest: quick after a restart, quiet while a server is away.
inline constexpr absl::Duration kFirstPause = absl::Milliseconds(100);
inline constexpr absl::Duration kLongestPause = absl::Seconds(2);

inline google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration proto;
  absl::Duration rest;
  proto.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &rest));
  proto.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  return proto;
}

// False: `timeout` passed first. Infinite is allowed.
template <typename Predicate>
bool WaitFor(std::condition_variable& changed, std::unique_lock<std::mutex>& lock,
             absl::Duration timeout, Predicate predicate) {
  if (timeout == absl::InfiniteDuration()) {
    changed.wait(lock, predicate);
    return true;
  }
  return changed.wait_for(lock, absl::ToChronoNanoseconds(timeout), predicate);
}

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CPP_TIME_H_
