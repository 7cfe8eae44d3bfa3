// What all listings share: a page ends early where its response would grow too large.
#ifndef SLUICE_SERVER_API_PAGING_H_
#define SLUICE_SERVER_API_PAGING_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/model/limits.h"

namespace sluice::api {

// Counts what goes into one response.
class PageSize {
 public:
  // False if `bytes` more would not fit. The first entry always does.
  bool Fits(size_t bytes) {
    const auto more = static_cast<int64_t>(bytes) + kEnvelopeBytesMax;
    if (bytes_ > 0 && bytes_ + more > kEntriesBytesMax) return false;
    bytes_ += more;
    return true;
  }

 private:
  // Tag and length of one entry.
  static constexpr int64_t kEnvelopeBytesMax = 6;
  // Leaves room for the page token (PageTokenCodec::kTokenBytesMax).
  static constexpr int64_t kEntriesBytesMax = kResponseBytesMax - 128 * kKiB;
  int64_t bytes_ = 0;
};

// A pattern with `*` and `?` over names.
absl::Status CheckGlob(std::string_view field, std::string_view glob);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_PAGING_H_
