// Reads publishes from the wire: each message is copied once, from gRPC's buffers into the payload
// that is stored and delivered, and checked there.
#ifndef SLUICE_SERVER_API_PUBLISH_PARSER_H_
#define SLUICE_SERVER_API_PUBLISH_PARSER_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/broker/commands.h"
#include "sluice/v1/publish.pb.h"

namespace sluice::api {

struct ParsedPublish {
  std::string queue;
  std::vector<broker::NewMessage> messages;
};

// A sluice.v1.PublishRequest. The first broken rule is the error.
absl::StatusOr<ParsedPublish> ParsePublishRequest(const grpc::ByteBuffer& bytes,
                                                  int64_t body_bytes_max);

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
// message that breaks a rule is no such error but refuses its batch.
absl::StatusOr<ParsedStreamRequest> ParseStreamRequest(const grpc::ByteBuffer& bytes,
                                                       int64_t body_bytes_max);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_PUBLISH_PARSER_H_
