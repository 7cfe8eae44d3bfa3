// What applying definitions did, for people. A pure function.
#ifndef SLUICE_CLIENT_CLI_DEFINITIONS_DIFF_H_
#define SLUICE_CLIENT_CLI_DEFINITIONS_DIFF_H_

#include <string>

#include "sluice/v1/definitions.pb.h"

namespace sluice::cli {

// A line for each object that changes (+ created, ~ changed, - deleted) with its differences below,
// then how many of each.
std::string DefinitionsDiff(const v1::ApplyDefinitionsResponse& response, bool dry_run);

}  // namespace sluice::cli

#endif  // SLUICE_CLIENT_CLI_DEFINITIONS_DIFF_H_
