// Hashes of names that clients choose, keyed by the store so that nobody can make them collide at
// will. Persisted: the same key and text give the same hash for ever.
#ifndef SLUICE_SERVER_MODEL_HASH_H_
#define SLUICE_SERVER_MODEL_HASH_H_

#include <array>
#include <cstdint>
#include <string_view>

namespace sluice {

using Hash128 = std::array<uint8_t, 16>;

// SipHash-2-4 (Aumasson and Bernstein, 2012) as libsodium has it. Immutable: any thread.
class KeyedHash {
 public:
  static constexpr size_t kKeyBytes = 16;
  using Key = std::array<uint8_t, kKeyBytes>;

  explicit KeyedHash(const Key& key) : key_(key) {}

  // A random key, for a new store.
  static Key NewKey();

  // Of a message group: never 0. Two groups with one hash are served as if they were one, which
  // keeps every promise about order.
  uint64_t Group(std::string_view group) const;
  // Of a deduplication id, or of a producer: long enough to stand for the text itself.
  Hash128 Wide(std::string_view text) const;

 private:
  const Key key_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_HASH_H_
