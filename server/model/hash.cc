#include "server/model/hash.h"

#include <sodium.h>

#include <cstring>

#include "server/base/check.h"

namespace sluice {

static_assert(KeyedHash::kKeyBytes == crypto_shorthash_siphash24_KEYBYTES);
static_assert(sizeof(Hash128) == crypto_shorthash_siphashx24_BYTES);

KeyedHash::Key KeyedHash::NewKey() {
  SLUICE_CHECK(sodium_init() >= 0);
  Key key;
  randombytes_buf(key.data(), key.size());
  return key;
}

uint64_t KeyedHash::Group(std::string_view group) const {
  uint8_t bytes[crypto_shorthash_siphash24_BYTES];
  crypto_shorthash_siphash24(bytes, reinterpret_cast<const uint8_t*>(group.data()), group.size(),
                             key_.data());
  uint64_t hash;
  static_assert(sizeof(hash) == sizeof(bytes));
  std::memcpy(&hash, bytes, sizeof(hash));
  return hash == 0 ? 1 : hash;
}

Hash128 KeyedHash::Wide(std::string_view text) const {
  Hash128 hash;
  crypto_shorthash_siphashx24(hash.data(), reinterpret_cast<const uint8_t*>(text.data()),
                              text.size(), key_.data());
  return hash;
}

}  // namespace sluice
