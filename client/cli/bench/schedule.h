// When each message is due. Pure arithmetic.
#ifndef SLUICE_CLIENT_CLI_BENCH_SCHEDULE_H_
#define SLUICE_CLIENT_CLI_BENCH_SCHEDULE_H_

#include <cstdint>

namespace sluice::cli::bench {

// An even pace, dealt out to producers in turn: of 2 producers at 1,000/s in all, one has messages
// due at 0, 2, 4 ms and the other at 1, 3, 5 ms. What is due does not depend on how the earlier
// ones fared, so a server that stalls is charged for every message it kept waiting.
class RateSchedule {
 public:
  // `per_second` is that of all producers; positive.
  RateSchedule(double per_second, int producers, int producer)
      : ns_between_(kNanosPerSecond / per_second), producers_(producers), producer_(producer) {}

  // Nanoseconds from the start to the producer's n-th message, from 0.
  int64_t DueNs(int64_t n) const {
    const double place = static_cast<double>(n) * producers_ + producer_;
    return static_cast<int64_t>(place * ns_between_);
  }

 private:
  static constexpr double kNanosPerSecond = 1e9;

  double ns_between_;
  int producers_;
  int producer_;
};

// The part of `total` that falls to one of `parts`; all parts together are the total.
inline int64_t ShareOf(int64_t total, int parts, int part) {
  return total / parts + (part < total % parts ? 1 : 0);
}

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_SCHEDULE_H_
