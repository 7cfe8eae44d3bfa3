// Answers to publishes, written straight to the wire: they are as frequent as publishes.
#ifndef SLUICE_SERVER_API_PUBLISH_RESULTS_H_
#define SLUICE_SERVER_API_PUBLISH_RESULTS_H_

#include <grpcpp/support/byte_buffer.h>

#include <string>
#include <vector>

#include "server/broker/commands.h"

namespace sluice::api {

// Appends one sluice.v1.PublishResult as field `field` (1 to 15) of the message around it.
void AppendPublishResult(int field, const broker::PublishedMessage& message, std::string* out);

// A sluice.v1.PublishResponse.
grpc::ByteBuffer PublishResponseBytes(const std::vector<broker::PublishedMessage>& messages);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_PUBLISH_RESULTS_H_
