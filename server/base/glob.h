// Patterns over names.
#ifndef SLUICE_SERVER_BASE_GLOB_H_
#define SLUICE_SERVER_BASE_GLOB_H_

#include <string_view>

namespace sluice {

// `*` stands for any run of characters, `?` for one. The whole text has to match. Time at most
// glob * text, whatever the pattern.
bool GlobMatches(std::string_view glob, std::string_view text);

}  // namespace sluice

#endif  // SLUICE_SERVER_BASE_GLOB_H_
