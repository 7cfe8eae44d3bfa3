// Fixed-width big-endian integers, so that the order of bytes is the order of numbers.
#ifndef SLUICE_SERVER_MODEL_BIG_ENDIAN_H_
#define SLUICE_SERVER_MODEL_BIG_ENDIAN_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace sluice {

template <typename T>
char* PutBigEndian(T value, char* out) {
  static_assert(std::is_unsigned_v<T>);
  for (size_t i = 0; i < sizeof(T); ++i) {
    out[i] = static_cast<char>(value >> (8 * (sizeof(T) - 1 - i)));
  }
  return out + sizeof(T);
}

template <typename T>
T GetBigEndian(const char* in) {
  static_assert(std::is_unsigned_v<T>);
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(static_cast<uint64_t>(value) << 8 | static_cast<uint8_t>(in[i]));
  }
  return value;
}

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_BIG_ENDIAN_H_
