// A set of numbers that many threads add to.
#ifndef SLUICE_CLIENT_CLI_BENCH_ATOMIC_BITS_H_
#define SLUICE_CLIENT_CLI_BENCH_ATOMIC_BITS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

namespace sluice::cli::bench {

// A set of numbers that grows as they come, one bit each. Thread-safe, without locks. Sets numbers
// below kBitsMax; others are refused as already set.
class AtomicBits {
 public:
  static constexpr uint64_t kBitsMax = uint64_t{1} << 32;

  AtomicBits();
  ~AtomicBits();

  // True if it was not set before.
  bool Set(uint64_t number);

 private:
  static constexpr uint64_t kBitsPerWord = 64;
  static constexpr uint64_t kWordsPerChunk = 16384;
  static constexpr uint64_t kBitsPerChunk = kBitsPerWord * kWordsPerChunk;
  static constexpr uint64_t kChunksMax = kBitsMax / kBitsPerChunk;
  using Chunk = std::array<std::atomic<uint64_t>, kWordsPerChunk>;

  std::vector<std::atomic<Chunk*>> chunks_;
};

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_ATOMIC_BITS_H_
