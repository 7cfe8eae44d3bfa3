// Unpadded base64url (RFC 4648 §5) of fixed-size tokens, without allocation.
#ifndef SLUICE_SERVER_MODEL_BASE64URL_H_
#define SLUICE_SERVER_MODEL_BASE64URL_H_

#include <cstddef>
#include <string_view>

namespace sluice {

inline constexpr size_t Base64UrlBytes(size_t raw_bytes) { return (raw_bytes * 8 + 5) / 6; }

// Writes exactly Base64UrlBytes(raw.size()) characters.
void Base64UrlEncode(std::string_view raw, char* out);

// Decodes exactly `raw_bytes` bytes; false unless `text` is their canonical encoding.
bool Base64UrlDecode(std::string_view text, size_t raw_bytes, char* out);

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_BASE64URL_H_
