// Queues between proto and model.
#ifndef SLUICE_SERVER_API_QUEUE_CODEC_H_
#define SLUICE_SERVER_API_QUEUE_CODEC_H_

#include <google/protobuf/field_mask.pb.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/broker/queue_commands.h"
#include "sluice/v1/queue.pb.h"

namespace sluice::api {

// Checks every field and takes over those that are set. `path` is where the config stands in its
// request: errors name the field below it. The name is not checked.
absl::StatusOr<broker::QueueConfigChange> ToConfigChange(const v1::QueueConfig& config,
                                                         std::string_view path = "config");

// Narrows `change`, made of `config`, to the fields that `mask` names; a field that it names and
// `config` does not set becomes its default. `*replace` is set for the mask `*`.
absl::Status ApplyMask(const google::protobuf::FieldMask& mask, broker::QueueConfigChange* change,
                       bool* replace);

// With all defaults filled in; sent back it asks for the same.
void ToProto(const QueueConfig& config, v1::QueueConfig* out);
void ToProto(const broker::QueueInfo& info, v1::Queue* out);

// 0 for an empty etag; ETAG_MISMATCH for one that no revision has.
absl::StatusOr<uint64_t> RevisionOf(std::string_view etag);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_QUEUE_CODEC_H_
