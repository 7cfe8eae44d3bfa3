#include "server/model/base64url.h"

#include <array>
#include <cstdint>

namespace sluice {
namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

constexpr std::array<int8_t, 256> MakeReverse() {
  std::array<int8_t, 256> reverse{};
  for (auto& value : reverse) value = -1;
  for (size_t i = 0; i < kAlphabet.size(); ++i) {
    reverse[static_cast<uint8_t>(kAlphabet[i])] = static_cast<int8_t>(i);
  }
  return reverse;
}
constexpr std::array<int8_t, 256> kReverse = MakeReverse();

}  // namespace

void Base64UrlEncode(std::string_view raw, char* out) {
  uint32_t bits = 0;
  int held = 0;
  for (const char c : raw) {
    bits = (bits << 8) | static_cast<uint8_t>(c);
    held += 8;
    while (held >= 6) {
      held -= 6;
      *out++ = kAlphabet[(bits >> held) & 0x3f];
    }
  }
  if (held > 0) *out++ = kAlphabet[(bits << (6 - held)) & 0x3f];
}

bool Base64UrlDecode(std::string_view text, size_t raw_bytes, char* out) {
  if (text.size() != Base64UrlBytes(raw_bytes)) return false;
  uint32_t bits = 0;
  int held = 0;
  size_t written = 0;
  for (const char c : text) {
    const int8_t value = kReverse[static_cast<uint8_t>(c)];
    if (value < 0) return false;
    bits = (bits << 6) | static_cast<uint32_t>(value);
    held += 6;
    if (held >= 8) {
      held -= 8;
      if (written == raw_bytes) return false;
      out[written++] = static_cast<char>((bits >> held) & 0xff);
    }
  }
  // Left-over bits must be zero, or two texts would mean one token.
  return written == raw_bytes && (bits & ((1u << held) - 1)) == 0;
}

}  // namespace sluice
