// Opaque tokens that continue a listing.
#ifndef SLUICE_SERVER_API_PAGE_TOKEN_H_
#define SLUICE_SERVER_API_PAGE_TOKEN_H_

#include <array>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/model/receipt.h"

namespace sluice::api {

// A token names the last item of a page and is sealed together with the request it belongs to, so
// that a client can neither make one up nor use it for another listing. Valid over restarts of the
// same store. Immutable: any thread.
class PageTokenCodec {
 public:
  // Anything longer was not made here: the longest item is a binding, with its names and headers.
  static constexpr size_t kTokenBytesMax = 96 * 1024;

  // The key comes from the store's receipt key.
  explicit PageTokenCodec(const ReceiptCodec& receipts);

  // `listing` identifies the request (call and filters).
  std::string Encode(std::string_view listing, std::string_view last) const;
  // The last item; "" for an empty token; PAGE_TOKEN_INVALID.
  absl::StatusOr<std::string> Decode(std::string_view listing, std::string_view token) const;

 private:
  static constexpr size_t kMacBytes = 16;
  std::array<uint8_t, kMacBytes> Mac(std::string_view listing, std::string_view last) const;

  std::array<uint8_t, 16> key_;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_PAGE_TOKEN_H_
