// Checks one serialised sluice.v1.Message, as a publisher sent it.
#ifndef SLUICE_SERVER_API_MESSAGE_CHECK_H_
#define SLUICE_SERVER_API_MESSAGE_CHECK_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace sluice::api {

// A range of bytes of the message.
struct ByteRange {
  uint32_t begin = 0;
  uint32_t end = 0;
};

struct CheckedMessage {
  // The fields that only the server sets and a publish may carry all the same (a forwarded
  // message): they are to be cut out. In order.
  std::vector<ByteRange> server_fields;
};

// Types, UTF-8 and limits of every field; fields whose feature is not there yet and unknown fields
// are refused UNIMPLEMENTED. Errors name the field below "messages[index]".
absl::Status CheckMessage(std::string_view bytes, int64_t index, int64_t body_bytes_max,
                          CheckedMessage* out);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_MESSAGE_CHECK_H_
