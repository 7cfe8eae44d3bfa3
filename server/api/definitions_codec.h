// Definitions between the wire and the broker.
#ifndef SLUICE_SERVER_API_DEFINITIONS_CODEC_H_
#define SLUICE_SERVER_API_DEFINITIONS_CODEC_H_

#include <vector>

#include "absl/status/statusor.h"
#include "server/broker/definitions_commands.h"
#include "sluice/v1/definitions.pb.h"

namespace sluice::api {

// Checks every field as the calls that make the single objects do, and that no name comes twice.
// Errors name the field below "definitions".
absl::StatusOr<broker::Definitions> ToDefinitions(const v1::Definitions& definitions);

// Changes as an answer of at most kResponseBytesMax: where they are more, those that change nothing
// are left out, then the end of the list.
void ToProto(const std::vector<broker::DefinitionChange>& changes,
             v1::ApplyDefinitionsResponse* out);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_DEFINITIONS_CODEC_H_
