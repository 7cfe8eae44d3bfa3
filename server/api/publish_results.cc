#include "server/api/publish_results.h"

#include <cstdint>
#include <string>

#include "server/api/wire_format.h"
#include "server/model/ids.h"

namespace sluice::api {
namespace {

void AppendVarint(uint64_t value, std::string* out) {
  char bytes[kVarintBytesMax];
  out->append(bytes, PutVarint(value, bytes));
}

// Outer tag and length, id, duplicate, one byte of routed_queues.
constexpr size_t kUsualResultBytes = 2 + 2 + kMessageIdBytes + 2 + 2;

void AppendResult(const broker::PublishedMessage& message, std::string* out) {
  const auto routed = static_cast<uint64_t>(message.routed_queues);
  const bool has_id = HasId(message);
  const size_t bytes = (has_id ? 2 + kMessageIdBytes : 0) + (message.duplicate ? 2 : 0) +
                       (routed != 0 ? 1 + VarintBytes(routed) : 0);
  out->push_back(ShortTag(1, kLengthDelimited));
  AppendVarint(bytes, out);
  if (has_id) {
    out->push_back(ShortTag(1, kLengthDelimited));
    AppendVarint(kMessageIdBytes, out);
    char id[kMessageIdBytes];
    WriteMessageId(message.id, id);
    out->append(id, kMessageIdBytes);
  }
  if (message.duplicate) {
    out->push_back(ShortTag(2, kVarint));
    out->push_back(1);
  }
  if (routed != 0) {
    out->push_back(ShortTag(3, kVarint));
    AppendVarint(routed, out);
  }
}

}  // namespace

bool HasId(const broker::PublishedMessage& message) { return message.id.seq != 0; }

grpc::ByteBuffer PublishResponseBytes(const std::vector<broker::PublishedMessage>& messages) {
  std::string bytes;
  bytes.reserve(messages.size() * kUsualResultBytes);
  for (const auto& message : messages) AppendResult(message, &bytes);
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace sluice::api
