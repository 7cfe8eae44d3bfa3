#include "client/cli/bench/atomic_bits.h"

#include <memory>

namespace sluice::cli::bench {

AtomicBits::AtomicBits() : chunks_(kChunksMax) {}

AtomicBits::~AtomicBits() {
  for (std::atomic<Chunk*>& chunk : chunks_) delete chunk.load();
}

bool AtomicBits::Set(uint64_t number) {
  if (number >= kBitsMax) return false;
  std::atomic<Chunk*>& place = chunks_[number / kBitsPerChunk];
  Chunk* chunk = place.load(std::memory_order_acquire);
  if (chunk == nullptr) {
    auto made = std::make_unique<Chunk>();
    if (place.compare_exchange_strong(chunk, made.get())) chunk = made.release();
  }
  const uint64_t bit = uint64_t{1} << (number % kBitsPerWord);
  const uint64_t before = (*chunk)[number % kBitsPerChunk / kBitsPerWord].fetch_or(bit);
  return (before & bit) == 0;
}

}  // namespace sluice::cli::bench
