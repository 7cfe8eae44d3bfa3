#include "client/cli/bench/histogram.h"

#include <algorithm>
#include <boost/histogram.hpp>
#include <cmath>

namespace sluice::cli::bench {
namespace {

constexpr double kShortestUs = 1;
constexpr double kLongestUs = 3.6e9;
constexpr double kBucketGrowth = 1.005;
constexpr double kNanosPerMicro = 1000;

using Axis = boost::histogram::axis::regular<double, boost::histogram::axis::transform::log>;

Axis MakeAxis() {
  const double buckets = std::log(kLongestUs / kShortestUs) / std::log(kBucketGrowth);
  return Axis(static_cast<unsigned>(std::ceil(buckets)), kShortestUs, kLongestUs);
}

}  // namespace

class LatencyHistogram::Impl {
 public:
  void Record(double us) {
    buckets_(us);
    ++count_;
    sum_us_ += us;
    max_us_ = std::max(max_us_, us);
  }

  void Merge(const Impl& other) {
    buckets_ += other.buckets_;
    count_ += other.count_;
    sum_us_ += other.sum_us_;
    max_us_ = std::max(max_us_, other.max_us_);
  }

  LatencySummary Summary() const {
    LatencySummary summary;
    summary.count = count_;
    if (count_ == 0) return summary;
    summary.mean = sum_us_ / static_cast<double>(count_);
    summary.p50 = Percentile(0.5);
    summary.p90 = Percentile(0.9);
    summary.p99 = Percentile(0.99);
    summary.p999 = Percentile(0.999);
    summary.max = max_us_;
    return summary;
  }

 private:
  double Percentile(double part) const {
    const auto rank = std::max<int64_t>(
        1, static_cast<int64_t>(std::ceil(part * static_cast<double>(count_))));
    const Axis& axis = buckets_.axis();
    int64_t below = 0;
    // -1 and size() are what lies outside of the range.
    for (int i = -1; i <= axis.size(); ++i) {
      below += buckets_.at(i);
      if (below >= rank) return i == axis.size() ? max_us_ : std::min(axis.bin(i).upper(), max_us_);
    }
    return max_us_;
  }

  decltype(boost::histogram::make_histogram_with(
      boost::histogram::dense_storage<int64_t>(), MakeAxis())) buckets_ =
      boost::histogram::make_histogram_with(boost::histogram::dense_storage<int64_t>(), MakeAxis());
  int64_t count_ = 0;
  double sum_us_ = 0;
  double max_us_ = 0;
};

LatencyHistogram::LatencyHistogram() : impl_(std::make_unique<Impl>()) {}
LatencyHistogram::~LatencyHistogram() = default;
LatencyHistogram::LatencyHistogram(LatencyHistogram&&) noexcept = default;
LatencyHistogram& LatencyHistogram::operator=(LatencyHistogram&&) noexcept = default;

void LatencyHistogram::Record(int64_t nanoseconds) {
  impl_->Record(static_cast<double>(std::max<int64_t>(nanoseconds, 0)) / kNanosPerMicro);
}
void LatencyHistogram::Merge(const LatencyHistogram& other) { impl_->Merge(*other.impl_); }
void LatencyHistogram::Clear() { *impl_ = Impl(); }
LatencySummary LatencyHistogram::Summary() const { return impl_->Summary(); }

}  // namespace sluice::cli::bench
