#include "client/cli/definitions_diff.h"

#include <map>

#include "absl/strings/str_cat.h"

namespace sluice::cli {
namespace {

char SignOf(v1::ChangeAction action) {
  switch (action) {
    case v1::CHANGE_ACTION_CREATE: return '+';
    case v1::CHANGE_ACTION_UPDATE: return '~';
    case v1::CHANGE_ACTION_DELETE: return '-';
    default: return ' ';
  }
}

}  // namespace

std::string DefinitionsDiff(const v1::ApplyDefinitionsResponse& response, bool dry_run) {
  std::string text;
  std::map<v1::ChangeAction, int> counts;
  for (const v1::DefinitionChange& change : response.changes()) {
    ++counts[change.action()];
    if (change.action() == v1::CHANGE_ACTION_NONE) continue;
    absl::StrAppend(&text, std::string(1, SignOf(change.action())), " ", change.resource(), "\n");
    for (const std::string& difference : change.differences()) {
      absl::StrAppend(&text, "    ", difference, "\n");
    }
  }
  const std::string would = dry_run ? "would be " : "";
  absl::StrAppend(&text, would, "created ", counts[v1::CHANGE_ACTION_CREATE], ", changed ",
                  counts[v1::CHANGE_ACTION_UPDATE], ", deleted ", counts[v1::CHANGE_ACTION_DELETE],
                  "; unchanged ", counts[v1::CHANGE_ACTION_NONE], "\n");
  return text;
}

}  // namespace sluice::cli
