// Definitions as a YAML document: their proto3 JSON, written as YAML. Both ends read it: the server
// at its start, the command line to apply and export.
#ifndef SLUICE_PROTO_YAML_DEFINITIONS_YAML_H_
#define SLUICE_PROTO_YAML_DEFINITIONS_YAML_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "sluice/v1/definitions.pb.h"

namespace sluice {

// Bounds of a document, aliases expanded: far above what a server holds, far below what memory
// does.
inline constexpr int kDefinitionsDepthMax = 16;
inline constexpr int kDefinitionsNodesMax = 4'000'000;

// Field names in either spelling of proto3 JSON (deadLetterQueue, dead_letter_queue). A scalar is
// taken as text and read as its field's type, so that a label `1.10` stays "1.10". An empty document
// defines nothing. INVALID_ARGUMENT, with the line where that is known: no YAML, an unknown or
// repeated key, a wrong value, more than one document.
absl::StatusOr<v1::Definitions> DefinitionsFromYaml(std::string_view yaml);
// The same from a file. NOT_FOUND: it cannot be read. Errors name the file.
absl::StatusOr<v1::Definitions> DefinitionsFromYamlFile(const std::string& path);

// Block style, fields in the order of the protos; DefinitionsFromYaml reads it back the same.
std::string DefinitionsToYaml(const v1::Definitions& definitions);

}  // namespace sluice

#endif  // SLUICE_PROTO_YAML_DEFINITIONS_YAML_H_
