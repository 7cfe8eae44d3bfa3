// Durations on the wire, and waiting with a limit.
#ifndef SLUICE_CLIENT_CPP_TIME_H_
#define SLUICE_CLIENT_CPP_TIME_H_

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <condition_variable>
#include <mutex>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace sluice::client {

inline google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration proto;
  absl::Duration rest;
  proto.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &rest));
  proto.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  return proto;
}

inline google::protobuf::Timestamp ToProto(absl::Time time) {
  const google::protobuf::Duration since_1970 = ToProto(time - absl::UnixEpoch());
  google::protobuf::Timestamp proto;
  proto.set_seconds(since_1970.seconds());
  proto.set_nanos(since_1970.nanos());
  // Before 1970 both are negative, and a timestamp's nanoseconds count forwards.
  if (proto.nanos() < 0) {
    constexpr int32_t kNanosPerSecond = 1'000'000'000;
    proto.set_seconds(proto.seconds() - 1);
    proto.set_nanos(proto.nanos() + kNanosPerSecond);
  }
  return proto;
}

inline absl::Duration FromProto(const google::protobuf::Duration& proto) {
  return absl::Seconds(proto.seconds()) + absl::Nanoseconds(proto.nanos());
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
