#include "server/model/server_fields.h"

namespace sluice {
namespace {

constexpr int64_t kMsPerSecond = 1000;
constexpr int64_t kNsPerMs = 1'000'000;

char* PutPaddedVarint(uint64_t value, char* out) {
  for (int i = 0; i < 4; ++i) {
    *out++ = static_cast<char>((value & 0x7f) | 0x80);
    value >>= 7;
  }
  *out++ = static_cast<char>(value & 0x7f);
  return out;
}

}  // namespace

void WriteServerFields(const MessagePosition& position, int64_t publish_ms,
                       char out[kServerFieldsBytes]) {
  *out++ = (13 << 3) | 2;
  *out++ = static_cast<char>(kMessageIdBytes);
  WriteMessageId(position, out);
  out += kMessageIdBytes;
  *out++ = (14 << 3) | 2;
  *out++ = 2 * (1 + 5);
  *out++ = (1 << 3) | 0;
  out = PutPaddedVarint(static_cast<uint64_t>(publish_ms / kMsPerSecond), out);
  *out++ = (2 << 3) | 0;
  PutPaddedVarint(static_cast<uint64_t>(publish_ms % kMsPerSecond * kNsPerMs), out);
}

}  // namespace sluice
