#include "server/storage/compression_choice.h"

#include <algorithm>

#include "rocksdb/convenience.h"

namespace sluice::storage {
namespace {

// Compressed to what values take, above and below which it is changed: apart, so that bodies at the
// border do not make it change with every file.
constexpr double kShrinksMax = 0.80;
constexpr double kStaysMin = 0.90;

}  // namespace

rocksdb::CompressionType FastCompression() {
  const auto supported = rocksdb::GetSupportedCompressions();
  const bool lz4 =
      std::find(supported.begin(), supported.end(), rocksdb::kLZ4Compression) != supported.end();
  return lz4 ? rocksdb::kLZ4Compression : rocksdb::kNoCompression;
}

void CompressionChoice::OnFlushCompleted(rocksdb::DB*, const rocksdb::FlushJobInfo& flush) {
  if (flush.cf_name != family_) return;
  const rocksdb::TableProperties& file = flush.table_properties;
  // No sample of a file with few blocks says anything, and it costs little either way.
  if (file.fast_compression_estimated_data_size == 0 || file.raw_value_size == 0) return;
  const double shrunk = static_cast<double>(file.fast_compression_estimated_data_size) /
                        static_cast<double>(file.raw_value_size);
  if (shrunk <= kShrinksMax) wanted_ = FastCompression();
  if (shrunk >= kStaysMin) wanted_ = rocksdb::kNoCompression;
}

rocksdb::Status CompressionChoice::Apply(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* family) {
  const rocksdb::CompressionType wanted = wanted_;
  if (wanted == compression_) return rocksdb::Status::OK();
  std::string name;
  rocksdb::Status status = rocksdb::GetStringFromCompressionType(&name, wanted);
  if (!status.ok()) return status;
  status = db->SetOptions(family, {{"compression", name}});
  if (status.ok()) compression_ = wanted;
  return status;
}

}  // namespace sluice::storage
