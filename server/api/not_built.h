// The gate: what this server understands, and the shard behind it cannot do yet. Each refusal is
// one line of not_built.cc, which goes when the shard can. All answer UNIMPLEMENTED, naming the
// field.
// Whole calls are closed by ServerOptions::closed_calls.
#ifndef SLUICE_SERVER_API_NOT_BUILT_H_
#define SLUICE_SERVER_API_NOT_BUILT_H_

#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "server/api/context.h"
#include "server/broker/commands.h"
#include "sluice/v1/delivery.pb.h"
#include "sluice/v1/publish.pb.h"
#include "sluice/v1/settle.pb.h"

namespace sluice::api {

absl::Status RefuseNotBuilt(const ApiContext& api, const broker::Publish& publish);
absl::Status RefuseNotBuilt(const ApiContext& api,
                            const std::vector<broker::NewMessage>& messages);
absl::Status RefuseNotBuilt(const ApiContext& api, const v1::PublishStreamInit& init);
absl::Status RefuseNotBuilt(const ApiContext& api, const v1::SubscribeRequest& request);
// `path`: where the request stands in a larger one.
absl::Status RefuseNotBuilt(const ApiContext& api, const v1::NackRequest& request,
                            std::string_view path);
// `path`: where the config stands in its request. Values that ask for nothing special are taken.
absl::Status RefuseNotBuilt(const ApiContext& api, const broker::QueueConfigChange& config,
                            std::string_view path);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_NOT_BUILT_H_
