// Answers to publishes, written straight to the wire: they are as frequent as publishes.
#ifndef SLUICE_SERVER_API_PUBLISH_RESULTS_H_
#define SLUICE_SERVER_API_PUBLISH_RESULTS_H_

#include <grpcpp/support/byte_buffer.h>

#include <vector>

#include "server/broker/publish_commands.h"

namespace sluice::api {

// False where nothing was stored as there was no route, and for a sequence that its producer sent
// before: which message that became is not remembered.
bool HasId(const broker::PublishedMessage& message);

// A sluice.v1.PublishResponse.
grpc::ByteBuffer PublishResponseBytes(const std::vector<broker::PublishedMessage>& messages);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_PUBLISH_RESULTS_H_
