#include "client/cli/bench/body.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <type_traits>
#include <utility>

namespace sluice::cli::bench {
namespace {

static_assert(sizeof(Stamp) == kStampBytes);
static_assert(std::is_trivially_copyable_v<Stamp>);

// Larger than any block that a store compresses, small enough to make in some milliseconds.
constexpr size_t kRandomBytesMin = 16 << 20;
// A prime apart, so that each lap cuts at places of its own.
constexpr size_t kLapShift = 8191;

}  // namespace

std::optional<Stamp> ReadStamp(absl::string_view body) {
  if (body.size() < kStampBytes) return std::nullopt;
  Stamp stamp;
  std::memcpy(&stamp, body.data(), sizeof(stamp));
  return stamp;
}

RandomBytes::RandomBytes(size_t body_bytes) {
  bytes_.resize(std::max(kRandomBytesMin, 2 * body_bytes));
  std::mt19937_64 random(std::random_device{}());
  for (size_t i = 0; i + sizeof(uint64_t) <= bytes_.size(); i += sizeof(uint64_t)) {
    const uint64_t word = random();
    std::memcpy(&bytes_[i], &word, sizeof(word));
  }
}

BodyMaker::BodyMaker(std::shared_ptr<const RandomBytes> random, size_t body_bytes, int producer)
    : random_(std::move(random)),
      body_bytes_(std::max(body_bytes, kStampBytes)),
      lap_(static_cast<size_t>(producer)) {
  next_ = lap_ * kLapShift % (random_->size() - body_bytes_ + 1);
}

std::string BodyMaker::Make(const Stamp& stamp) {
  if (next_ + body_bytes_ > random_->size()) {
    next_ = ++lap_ * kLapShift % (random_->size() - body_bytes_ + 1);
  }
  std::string body(random_->data() + next_, body_bytes_);
  next_ += body_bytes_;
  std::memcpy(body.data(), &stamp, sizeof(stamp));
  return body;
}

}  // namespace sluice::cli::bench
