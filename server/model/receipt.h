// Receipts: the tokens by which a consumer settles one delivery.
#ifndef SLUICE_SERVER_MODEL_RECEIPT_H_
#define SLUICE_SERVER_MODEL_RECEIPT_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "server/model/ids.h"

namespace sluice {

// What a receipt says: this message, this hand-out. A hand-out is named by the boot in which it
// was made and its delivery count, so that a message granted again makes older receipts void.
struct Receipt {
  MessagePosition position;
  Boot boot = 0;
  uint32_t delivery_count = 0;

  friend bool operator==(const Receipt&, const Receipt&) = default;
};

// Characters of a receipt: 36 bytes in base64url.
inline constexpr size_t kReceiptBytes = 48;

// Turns receipts into opaque text and back. The text carries a keyed SipHash-2-4 (Aumasson and
// Bernstein, 2012; libsodium's crypto_shorthash_siphashx24) cut to 96 bits, so that a client can
// neither garble nor invent one unnoticed. Immutable: any thread.
class ReceiptCodec {
 public:
  static constexpr size_t kKeyBytes = 16;
  using Key = std::array<uint8_t, kKeyBytes>;

  explicit ReceiptCodec(const Key& key) : key_(key) {}

  // A fresh random key, made once per store and kept in it.
  static Key NewKey();

  void Encode(const Receipt& receipt, char out[kReceiptBytes]) const;
  // Nothing if the text was not made with this key. Compares in constant time.
  std::optional<Receipt> Decode(std::string_view text) const;

 private:
  const Key key_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_RECEIPT_H_
