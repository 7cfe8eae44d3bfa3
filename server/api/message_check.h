// Checks one serialised sluice.v1.Message, as a publisher sent it, and reads from it what the shard
// must know.
#ifndef SLUICE_SERVER_API_MESSAGE_CHECK_H_
#define SLUICE_SERVER_API_MESSAGE_CHECK_H_

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "server/base/clock.h"
#include "server/broker/publish_commands.h"
#include "server/model/hash.h"

namespace sluice::api {

// What does not change from message to message. Lives as long as the server.
struct MessageRules {
  int64_t body_bytes_max = 0;
  const KeyedHash* hash = nullptr;
  Clock* clock = nullptr;  // bounds deliver_at
};

// A range of bytes of the message.
struct ByteRange {
  uint32_t begin = 0;
  uint32_t end = 0;
};

struct CheckedMessage {
  // The fields that only the server sets and a publish may carry all the same (a forwarded
  // message): they are to be cut out. In order.
  std::vector<ByteRange> server_fields;
  int priority = kPriorityDefault;
  std::unique_ptr<broker::MessageOptions> options;  // null: none of them is set
};

// Types, UTF-8 and limits of every field; unknown fields are refused UNIMPLEMENTED. Errors name the
// field below "messages[index]". `routed`: the publish goes to an exchange, so routing key and
// attributes are wanted too.
absl::Status CheckMessage(std::string_view bytes, int64_t index, bool routed,
                          const MessageRules& rules, CheckedMessage* out);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_MESSAGE_CHECK_H_
