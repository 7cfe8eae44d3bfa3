#include "server/model/ids.h"

#include "server/model/base64url.h"
#include "server/model/big_endian.h"

namespace sluice {
namespace {

// version:1 shard:2 qid:4 lane:1 seq:8
constexpr size_t kRawBytes = 16;
constexpr uint8_t kVersion = 1;
static_assert(Base64UrlBytes(kRawBytes) == kMessageIdBytes);

}  // namespace

void WriteMessageId(const MessagePosition& position, char out[kMessageIdBytes]) {
  char raw[kRawBytes];
  char* p = PutBigEndian(kVersion, raw);
  p = PutBigEndian(position.shard, p);
  p = PutBigEndian(position.qid, p);
  p = PutBigEndian(position.lane, p);
  PutBigEndian(position.seq, p);
  Base64UrlEncode({raw, kRawBytes}, out);
}

std::string FormatMessageId(const MessagePosition& position) {
  std::string id(kMessageIdBytes, '\0');
  WriteMessageId(position, id.data());
  return id;
}

std::optional<MessagePosition> ParseMessageId(std::string_view id) {
  char raw[kRawBytes];
  if (!Base64UrlDecode(id, kRawBytes, raw) || GetBigEndian<uint8_t>(raw) != kVersion) {
    return std::nullopt;
  }
  return MessagePosition{GetBigEndian<ShardId>(raw + 1), GetBigEndian<QueueId>(raw + 3),
                         GetBigEndian<Lane>(raw + 7), GetBigEndian<Seq>(raw + 8)};
}

}  // namespace sluice
