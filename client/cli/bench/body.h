// The bodies of a benchmark: random bytes that say which message they are and when it was due.
#ifndef SLUICE_CLIENT_CLI_BENCH_BODY_H_
#define SLUICE_CLIENT_CLI_BENCH_BODY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace sluice::cli::bench {

struct Stamp {
  uint64_t run = 0;      // tells this run's messages from others
  uint32_t phase = 0;    // warm-up or which measurement
  uint32_t producer = 0;
  uint64_t sequence = 0;  // of the producer, from 0
  int64_t due_ns = 0;     // on the steady clock of this process
};

// The smallest body there is.
inline constexpr size_t kStampBytes = 32;

// Nothing if the body is not one of bench's, as far as its size tells.
std::optional<Stamp> ReadStamp(absl::string_view body);

// Random bytes to cut bodies from, so that neither the store's compression nor a cache makes them
// cheaper than real ones, and making them costs no more than a copy.
class RandomBytes {
 public:
  // Holds at least `body_bytes`.
  explicit RandomBytes(size_t body_bytes);

  size_t size() const { return bytes_.size(); }
  const char* data() const { return bytes_.data(); }

 private:
  std::string bytes_;
};

// Makes the bodies of one producer; not thread-safe. Slices follow each other through the random
// bytes, so that no two within reach of a compressor overlap.
class BodyMaker {
 public:
  // `producer` makes several makers start at different places.
  BodyMaker(std::shared_ptr<const RandomBytes> random, size_t body_bytes, int producer);

  std::string Make(const Stamp& stamp);

 private:
  const std::shared_ptr<const RandomBytes> random_;
  const size_t body_bytes_;
  size_t next_;
  size_t lap_ = 0;
};

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_BODY_H_
