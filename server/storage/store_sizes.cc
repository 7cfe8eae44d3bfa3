#include "server/storage/store_sizes.h"

#include <sys/statvfs.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/model/error.h"

namespace sluice::storage {
namespace {

// From here on the reserve is an eighth of the disk or less, and sizes need not give way.
constexpr uint64_t kFullSizesDiskBytes = 8 * 1024 * kMiB;
// Below these, the store would be flushing all the time.
constexpr uint64_t kMemtablesBytesMin = 16 * kMiB;
constexpr uint64_t kMessageMemtableBytesMin = 5 * kMiB;
constexpr uint64_t kWalBytesMin = 24 * kMiB;
constexpr uint64_t kCompactionBytesMin = 24 * kMiB;
// One turn: what it collects and the request that goes over.
constexpr uint64_t kAppendedBytesMin = 24 * kMiB;
// The reserve may take this share of a disk; with more there would be little left to work with.
constexpr uint64_t kReserveShareDivisor = 2;

}  // namespace

std::optional<DiskSpace> AskFileSystem(const std::string& dir) {
  struct statvfs stats;
  if (statvfs(dir.c_str(), &stats) != 0) return std::nullopt;
  return DiskSpace{uint64_t{stats.f_blocks} * stats.f_frsize,
                   uint64_t{stats.f_bavail} * stats.f_frsize};
}

absl::StatusOr<StoreSizes> FitToDisk(const StoreSizes& sizes, uint64_t disk_bytes,
                                     const std::string& dir) {
  StoreSizes fitted = sizes;
  const auto fit = [disk_bytes](uint64_t* size, uint64_t floor) {
    // In MiB, so that the product fits.
    const uint64_t scaled =
        *size / kMiB * std::min(disk_bytes, kFullSizesDiskBytes) / (kFullSizesDiskBytes / kMiB);
    *size = std::min(*size, std::max(scaled, floor));
  };
  if (disk_bytes < kFullSizesDiskBytes) {
    fit(&fitted.wal_bytes_max, kWalBytesMin);
    fit(&fitted.memtables_bytes_max, kMemtablesBytesMin);
    fit(&fitted.message_memtable_bytes, kMessageMemtableBytesMin);
    fit(&fitted.appended_bytes_max, kAppendedBytesMin);
    fit(&fitted.compaction_bytes_max, kCompactionBytesMin);
  }
  const uint64_t needed = fitted.ReserveBytes() * kReserveShareDivisor;
  if (disk_bytes < needed) {
    return MakeError(
        ErrorReason::kStorageFull,
        absl::StrCat("the disk of ", dir, " has ", disk_bytes / kMiB, " MiB in all; at least ",
                     needed / kMiB, " MiB are needed, of which ", fitted.ReserveBytes() / kMiB,
                     " MiB stay free so that messages can always be acknowledged: use a larger one"));
  }
  return fitted;
}

}  // namespace sluice::storage
