// Bridges between std::string_view and Debian's absl::string_view, which are different types here.
#ifndef SLUICE_SERVER_BASE_STRINGS_H_
#define SLUICE_SERVER_BASE_STRINGS_H_

#include <string_view>

#include "absl/strings/string_view.h"

namespace sluice {

inline absl::string_view ToAbsl(std::string_view s) { return {s.data(), s.size()}; }
inline std::string_view ToStd(absl::string_view s) { return {s.data(), s.size()}; }

}  // namespace sluice

#endif  // SLUICE_SERVER_BASE_STRINGS_H_
