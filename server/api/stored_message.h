// Messages as they lie in their queue, for the wire.
#ifndef SLUICE_SERVER_API_STORED_MESSAGE_H_
#define SLUICE_SERVER_API_STORED_MESSAGE_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "server/broker/message_commands.h"
#include "sluice/v1/message_admin.pb.h"

namespace sluice::api {

// Whole bodies.
inline constexpr int32_t kWholeBody = -1;

// 0: none, -1: all, otherwise bytes of each.
absl::Status CheckMaxBodyBytes(int32_t max_body_bytes);

// DATA_LOSS if the stored bytes are no message.
absl::Status ToProto(const broker::ListedMessage& message, int32_t max_body_bytes,
                     v1::StoredMessage* out);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_STORED_MESSAGE_H_
