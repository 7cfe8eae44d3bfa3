#include "server/api/page_token.h"

#include <sodium.h>

#include <cstring>

#include "absl/strings/escaping.h"
#include "server/base/strings.h"
#include "server/model/error.h"

namespace sluice::api {
namespace {

constexpr uint8_t kVersion = 1;

}  // namespace

PageTokenCodec::PageTokenCodec(const ReceiptCodec& receipts) {
  // The seal of a receipt that is never handed out (queue 0 does not exist) is a secret of the
  // store: 96 bits, in the last 16 characters.
  char text[kReceiptBytes];
  receipts.Encode(Receipt{}, text);
  static_assert(sizeof(key_) == crypto_shorthash_siphashx24_KEYBYTES);
  std::memcpy(key_.data(), text + kReceiptBytes - key_.size(), key_.size());
}

std::array<uint8_t, PageTokenCodec::kMacBytes> PageTokenCodec::Mac(std::string_view listing,
                                                                   std::string_view last) const {
  std::string sealed;
  sealed.push_back(static_cast<char>(kVersion));
  sealed += listing;
  sealed.push_back('\0');
  sealed += last;
  std::array<uint8_t, kMacBytes> mac;
  static_assert(kMacBytes == crypto_shorthash_siphashx24_BYTES);
  crypto_shorthash_siphashx24(mac.data(), reinterpret_cast<const uint8_t*>(sealed.data()),
                              sealed.size(), key_.data());
  return mac;
}

std::string PageTokenCodec::Encode(std::string_view listing, std::string_view last) const {
  const auto mac = Mac(listing, last);
  std::string raw(1, static_cast<char>(kVersion));
  raw.append(reinterpret_cast<const char*>(mac.data()), mac.size());
  raw += last;
  return absl::WebSafeBase64Escape(raw);
}

absl::StatusOr<std::string> PageTokenCodec::Decode(std::string_view listing,
                                                   std::string_view token) const {
  if (token.empty()) return std::string();
  std::string raw;
  if (token.size() <= kTokenBytesMax && absl::WebSafeBase64Unescape(ToAbsl(token), &raw) &&
      raw.size() > 1 + kMacBytes && raw[0] == static_cast<char>(kVersion)) {
    std::string last = raw.substr(1 + kMacBytes);
    const auto mac = Mac(listing, last);
    if (sodium_memcmp(mac.data(), raw.data() + 1, kMacBytes) == 0) return last;
  }
  return MakeFieldError("page_token", "not made by this server for this listing; begin without one",
                        ErrorReason::kPageTokenInvalid);
}

}  // namespace sluice::api
