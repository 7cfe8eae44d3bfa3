// Reads publishes from the wire: each message is copied once, from gRPC's buffers into the payload
// that is stored and delivered, and checked there.
#ifndef SLUICE_SERVER_API_PUBLISH_PARSER_H_
#define SLUICE_SERVER_API_PUBLISH_PARSER_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/api/message_check.h"
#include "server/broker/publish_commands.h"
#include "sluice/v1/publish.pb.h"

namespace sluice::api {

// A sluice.v1.PublishRequest. The first broken rule is the error. The names of queue and exchange
// are not checked beyond being UTF-8.
absl::StatusOr<broker::Publish> ParsePublishRequest(const grpc::ByteBuffer& bytes,
                                                    const MessageRules& rules);

struct ParsedBatch {
  int64_t first_sequence = 0;
  // As sent, also where `status` says no: a refused batch uses up its sequences.
  int64_t message_count = 0;
  std::vector<broker::NewMessage> messages;  // empty if refused
  absl::Status status;                       // why the batch is refused, as one item
};

struct ParsedStreamRequest {
  // Exactly one is set.
  std::optional<v1::PublishStreamInit> init;
  std::optional<ParsedBatch> batch;
};

// A sluice.v1.PublishStreamRequest. An error means that the stream makes no sense and must end; a
// message that breaks a rule is no such error but refuses its batch. `exchange`: where the stream
// publishes to, empty for a queue.
absl::StatusOr<ParsedStreamRequest> ParseStreamRequest(const grpc::ByteBuffer& bytes,
                                                       std::string_view exchange,
                                                       const MessageRules& rules);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_PUBLISH_PARSER_H_
