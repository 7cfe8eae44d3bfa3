// CRC-32C (Castagnoli), as RocksDB's files carry it.
#ifndef SLUICE_SERVER_STORAGE_CRC32C_H_
#define SLUICE_SERVER_STORAGE_CRC32C_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice::storage {

// CRC of what `crc` covers followed by `data`; 0 covers nothing. Uses SSE4.2 where there is some.
uint32_t ExtendCrc32c(uint32_t crc, std::string_view data);
// The same without special instructions, to check against.
uint32_t ExtendCrc32cPortable(uint32_t crc, std::string_view data);

// RocksDB stores CRCs rotated and offset, so that a CRC over CRCs is not degenerate.
inline constexpr uint32_t MaskCrc(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_CRC32C_H_
