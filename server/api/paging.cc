#include "server/api/paging.h"

#include "absl/strings/str_cat.h"
#include "server/model/error.h"

namespace sluice::api {

absl::Status CheckGlob(std::string_view field, std::string_view glob) {
  // Longer ones could match no name.
  if (glob.size() <= kNameBytesMax) return absl::OkStatus();
  return MakeFieldError(field, absl::StrCat("longer than ", kNameBytesMax, " bytes"));
}

}  // namespace sluice::api
