// The pauses between attempts to reach a server.
#ifndef SLUICE_CLIENT_CPP_RECONNECT_H_
#define SLUICE_CLIENT_CPP_RECONNECT_H_

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/cpp/client.h"
#include "client/cpp/time.h"

namespace sluice::client {

// Doubling from the first to the longest: quick after a restart, quiet while a server is away.
inline constexpr absl::Duration kFirstPause = absl::Milliseconds(100);
inline constexpr absl::Duration kLongestPause = absl::Seconds(2);
// While it waits for a connection, a pause notices within this that it was stopped.
inline constexpr absl::Duration kStoppedWithin = absl::Milliseconds(50);

// Waits until `stopped`, for which `changed` is notified under `lock`'s mutex, or until `pause` has
// passed; not so long, but for kFirstPause, if a connection that was lost is there again. True:
// stopped.
template <typename Predicate>
bool PauseBeforeRetry(Client& client, std::condition_variable& changed,
                      std::unique_lock<std::mutex>& lock, absl::Duration pause,
                      Predicate stopped) {
  const absl::Time end = absl::Now() + pause;
  if (WaitFor(changed, lock, std::min(pause, kFirstPause), stopped)) return true;
  while (absl::Now() < end) {
    // Somebody has to wait for the connection: without a call that does, gRPC looks every 5 s only
    // what has become of its attempts.
    lock.unlock();
    const bool connected = client.connected();
    const bool back =
        !connected && client.AwaitConnection(std::min(end - absl::Now(), kStoppedWithin));
    lock.lock();
    if (connected) return WaitFor(changed, lock, end - absl::Now(), stopped);
    if (back || stopped()) break;
  }
  return stopped();
}

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CPP_RECONNECT_H_
