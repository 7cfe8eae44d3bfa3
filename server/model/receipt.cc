#include "server/model/receipt.h"

#include <sodium.h>

#include <cstring>

#include "server/base/check.h"
#include "server/model/base64url.h"
#include "server/model/big_endian.h"

namespace sluice {
namespace {

// version:1 shard:2 qid:4 lane:1 seq:8 boot:4 delivery_count:4, then the MAC.
constexpr size_t kBodyBytes = 24;
constexpr size_t kMacBytes = 12;
constexpr uint8_t kVersion = 1;
static_assert(Base64UrlBytes(kBodyBytes + kMacBytes) == kReceiptBytes);
static_assert(ReceiptCodec::kKeyBytes == crypto_shorthash_siphashx24_KEYBYTES);
static_assert(kMacBytes <= crypto_shorthash_siphashx24_BYTES);

void Mac(const char* body, const ReceiptCodec::Key& key,
         uint8_t out[crypto_shorthash_siphashx24_BYTES]) {
  crypto_shorthash_siphashx24(out, reinterpret_cast<const uint8_t*>(body), kBodyBytes, key.data());
}

}  // namespace

ReceiptCodec::Key ReceiptCodec::NewKey() {
  SLUICE_CHECK(sodium_init() >= 0);
  Key key;
  randombytes_buf(key.data(), key.size());
  return key;
}

void ReceiptCodec::Encode(const Receipt& receipt, char out[kReceiptBytes]) const {
  char raw[kBodyBytes + kMacBytes];
  char* p = PutBigEndian(kVersion, raw);
  p = PutBigEndian(receipt.position.shard, p);
  p = PutBigEndian(receipt.position.qid, p);
  p = PutBigEndian(receipt.position.lane, p);
  p = PutBigEndian(receipt.position.seq, p);
  p = PutBigEndian(receipt.boot, p);
  p = PutBigEndian(receipt.delivery_count, p);
  uint8_t mac[crypto_shorthash_siphashx24_BYTES];
  Mac(raw, key_, mac);
  std::memcpy(p, mac, kMacBytes);
  Base64UrlEncode({raw, sizeof(raw)}, out);
}

std::optional<Receipt> ReceiptCodec::Decode(std::string_view text) const {
  char raw[kBodyBytes + kMacBytes];
  if (!Base64UrlDecode(text, sizeof(raw), raw)) return std::nullopt;
  uint8_t mac[crypto_shorthash_siphashx24_BYTES];
  Mac(raw, key_, mac);
  if (sodium_memcmp(raw + kBodyBytes, mac, kMacBytes) != 0) return std::nullopt;
  if (GetBigEndian<uint8_t>(raw) != kVersion) return std::nullopt;
  return Receipt{{GetBigEndian<ShardId>(raw + 1), GetBigEndian<QueueId>(raw + 3),
                  GetBigEndian<Lane>(raw + 7), GetBigEndian<Seq>(raw + 8)},
                 GetBigEndian<Boot>(raw + 16),
                 GetBigEndian<uint32_t>(raw + 20)};
}

}  // namespace sluice
