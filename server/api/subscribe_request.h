// What a subscription asks for, for the shard.
#ifndef SLUICE_SERVER_API_SUBSCRIBE_REQUEST_H_
#define SLUICE_SERVER_API_SUBSCRIBE_REQUEST_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "server/broker/consumer_commands.h"
#include "sluice/v1/delivery.pb.h"

namespace sluice::api {

// Checks every field. `path` is where the request stands in a larger one, and empty where it is
// one: errors name the field below it. A temporary queue is given its name. Leaves out what the request
// does not say: peer, principal and sink.
absl::StatusOr<broker::SubscribeCommand> ToSubscribeCommand(const v1::SubscribeRequest& request,
                                                            std::string_view path);

// The queue that a command subscribes to.
const std::string& QueueOf(const broker::SubscribeCommand& command);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_SUBSCRIBE_REQUEST_H_
