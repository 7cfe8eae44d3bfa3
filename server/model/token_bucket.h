// A rate with a burst, in the caller's time.
#ifndef SLUICE_SERVER_MODEL_TOKEN_BUCKET_H_
#define SLUICE_SERVER_MODEL_TOKEN_BUCKET_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "server/model/queue_config.h"

namespace sluice {

// Starts full. Keeps no token but the time at which the bucket would be full again, so that an idle
// one needs no upkeep (the "virtual scheduling" form of the generic cell rate algorithm,
// ITU-T I.371 annex A). Not thread-safe.
class TokenBucket {
 public:
  // What has been taken stays taken, as so many tokens: they come back at the new rate.
  void Configure(const RateLimit& limit, int64_t now_ns) {
    const auto now = static_cast<double>(now_ns);
    const double missing = limited() ? std::max(0.0, full_at_ns_ - now) / interval_ns_ : 0;
    const int burst = std::max(1, limit.burst);
    interval_ns_ = limit.per_second > 0 ? kNsPerSecond / limit.per_second : 0;
    burst_ns_ = interval_ns_ * burst;
    full_at_ns_ = now + std::min<double>(missing, burst) * interval_ns_;
  }
  bool limited() const { return interval_ns_ > 0; }

  // When the next token is there: now or earlier if it can be taken at once.
  int64_t NextTokenNs() const {
    return limited() ? static_cast<int64_t>(std::ceil(full_at_ns_ + interval_ns_ - burst_ns_)) : 0;
  }
  bool HasToken(int64_t now_ns) const { return NextTokenNs() <= now_ns; }
  void Take(int64_t now_ns, int64_t tokens = 1) {
    if (!limited()) return;
    full_at_ns_ = std::max(full_at_ns_, static_cast<double>(now_ns)) +
                  interval_ns_ * static_cast<double>(tokens);
  }

  // How many tokens there are, at most `wanted`.
  int64_t Available(int64_t wanted, int64_t now_ns) const {
    if (!limited()) return wanted;
    const double missing_ns = std::max(0.0, full_at_ns_ - static_cast<double>(now_ns));
    const double tokens = std::floor((burst_ns_ - missing_ns) / interval_ns_ + kRounding);
    return std::clamp(static_cast<int64_t>(tokens), int64_t{0}, wanted);
  }
  // When `wanted` tokens, or as many as it ever holds, are there: now or earlier if they can be
  // taken at once.
  int64_t TokensAtNs(int64_t wanted) const {
    const double needed_ns = std::min(interval_ns_ * static_cast<double>(wanted), burst_ns_);
    return static_cast<int64_t>(std::ceil(full_at_ns_ + needed_ns - burst_ns_));
  }
  // For what was taken and not used.
  void GiveBack() { full_at_ns_ -= interval_ns_; }

 private:
  static constexpr double kNsPerSecond = 1e9;
  // What the doubles of a whole number of tokens may lack.
  static constexpr double kRounding = 1e-6;
  // Doubles hold nanoseconds of a process's life (100 days) to within a few nanoseconds.
  double interval_ns_ = 0;
  double burst_ns_ = 0;
  double full_at_ns_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_TOKEN_BUCKET_H_
