// Queues between proto and model.
#ifndef SLUICE_SERVER_API_QUEUE_CODEC_H_
#define SLUICE_SERVER_API_QUEUE_CODEC_H_

#include <google/protobuf/field_mask.pb.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/broker/commands.h"
#include "sluice/v1/queue.pb.h"

namespace sluice::api {

// The fields that are set. Refuses fields whose feature is not there yet.
absl::StatusOr<broker::QueueConfigChange> ToConfigChange(const v1::QueueConfig& config);

// Narrows `change`, made of `config`, to the fields that `mask` names; a field that it names and
// `config` does not set becomes its default. `*replace` is set for the mask `*`.
absl::Status ApplyMask(const google::protobuf::FieldMask& mask, broker::QueueConfigChange* change,
                       bool* replace);

void ToProto(const broker::QueueInfo& info, v1::Queue* out);

// 0 for an empty etag; ETAG_MISMATCH for one that no revision has.
absl::StatusOr<uint64_t> RevisionOf(std::string_view etag);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_QUEUE_CODEC_H_
