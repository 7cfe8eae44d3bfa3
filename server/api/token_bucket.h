// A steady pace with room for bursts, for work that the gRPC edge does by itself.
#ifndef SLUICE_SERVER_API_TOKEN_BUCKET_H_
#define SLUICE_SERVER_API_TOKEN_BUCKET_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "server/model/queue_config.h"

namespace sluice::api {

// Not thread-safe. Times are monotonic nanoseconds. Starts full.
class TokenBucket {
 public:
  // `rate`: both numbers positive.
  TokenBucket(const RateLimit& rate, int64_t now_ns)
      : rate_(rate), tokens_(rate.burst), filled_ns_(now_ns) {}

  // Up to `wanted` tokens, as many as there are.
  int64_t Take(int64_t wanted, int64_t now_ns) {
    Fill(now_ns);
    const int64_t taken = std::clamp<int64_t>(static_cast<int64_t>(tokens_), 0, wanted);
    tokens_ -= static_cast<double>(taken);
    return taken;
  }

  // Until `wanted` tokens are there, or as many as it ever holds. Rounded up; 0: now.
  int64_t WaitMs(int64_t wanted, int64_t now_ns) {
    Fill(now_ns);
    const double missing =
        std::min(static_cast<double>(wanted), static_cast<double>(rate_.burst)) - tokens_;
    if (missing <= 0) return 0;
    return static_cast<int64_t>(std::ceil(missing / rate_.per_second * kMsPerSecond));
  }

 private:
  static constexpr double kNsPerSecond = 1e9;
  static constexpr double kMsPerSecond = 1e3;

  void Fill(int64_t now_ns) {
    const double seconds = static_cast<double>(now_ns - filled_ns_) / kNsPerSecond;
    tokens_ = std::min(static_cast<double>(rate_.burst), tokens_ + seconds * rate_.per_second);
    filled_ns_ = now_ns;
  }

  const RateLimit rate_;
  double tokens_;
  int64_t filled_ns_;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_TOKEN_BUCKET_H_
