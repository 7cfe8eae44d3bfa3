#include "server/storage/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace sluice::storage {
namespace {

constexpr uint32_t kPolynomialReversed = 0x82f63b78;

constexpr std::array<uint32_t, 256> MakeTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < table.size(); ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? kPolynomialReversed : 0);
    table[byte] = crc;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kTable = MakeTable();

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t ExtendSse42(uint32_t crc, std::string_view data) {
  uint64_t state = ~crc;
  const char* in = data.data();
  size_t left = data.size();
  for (; left >= sizeof(uint64_t); left -= sizeof(uint64_t), in += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, in, sizeof(word));
    state = _mm_crc32_u64(state, word);
  }
  auto tail = static_cast<uint32_t>(state);
  for (; left > 0; --left, ++in) tail = _mm_crc32_u8(tail, static_cast<uint8_t>(*in));
  return ~tail;
}

bool HasSse42() {
  // Also called before main, when the library's constructors run.
  __builtin_cpu_init();
  return __builtin_cpu_supports("sse4.2");
}
#endif

}  // namespace

uint32_t ExtendCrc32cPortable(uint32_t crc, std::string_view data) {
  uint32_t state = ~crc;
  for (const char byte : data) {
    state = (state >> 8) ^ kTable[(state ^ static_cast<uint8_t>(byte)) & 0xff];
  }
  return ~state;
}

uint32_t ExtendCrc32c(uint32_t crc, std::string_view data) {
#if defined(__x86_64__)
  static const bool has_sse42 = HasSse42();
  if (has_sse42) return ExtendSse42(crc, data);
#endif
  return ExtendCrc32cPortable(crc, data);
}

}  // namespace sluice::storage

// Debian builds RocksDB without SSE4.2, and its table-driven CRC takes a quarter of the CPU of a
// publish. This definition, in the executable, takes the place of the library's own at load time;
// it is the same function, checked against the portable one in wal_scan_test.cc.
namespace rocksdb::crc32c {

uint32_t Extend(uint32_t crc, const char* data, size_t size);
uint32_t Extend(uint32_t crc, const char* data, size_t size) {
  return sluice::storage::ExtendCrc32c(crc, {data, size});
}

}  // namespace rocksdb::crc32c
