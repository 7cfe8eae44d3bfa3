// Whether files of messages are worth compressing.
#ifndef SLUICE_SERVER_STORAGE_COMPRESSION_CHOICE_H_
#define SLUICE_SERVER_STORAGE_COMPRESSION_CHOICE_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "rocksdb/compression_type.h"
#include "rocksdb/db.h"
#include "rocksdb/listener.h"

namespace sluice::storage {

// Text shrinks to a third, and what is random, packed or encrypted costs a seventh of a publish's
// processor time for nothing (docs/adr/0014). RocksDB samples the blocks of each file whatever is
// done with them; the next files are compressed if those of the last one shrink.
class CompressionChoice : public rocksdb::EventListener {
 public:
  // `family`: whose files count. `compression`: which it has when it is opened.
  CompressionChoice(std::string family, rocksdb::CompressionType compression)
      : family_(std::move(family)), compression_(compression), wanted_(compression) {}

  const char* Name() const override { return "sluice.compression_choice"; }
  // A thread of RocksDB's.
  void OnFlushCompleted(rocksdb::DB* db, const rocksdb::FlushJobInfo& flush) override;

  // Has the files of the family written from now on as the last ones suggest. One thread; holds
  // up writes for a moment if there is something to change, and so must not be a thread of RocksDB's.
  rocksdb::Status Apply(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* family);
  // Any thread.
  rocksdb::CompressionType wanted() const { return wanted_; }

 private:
  const std::string family_;
  rocksdb::CompressionType compression_;  // Apply's thread only
  std::atomic<rocksdb::CompressionType> wanted_;
};

// How many blocks RocksDB writes for each that it samples. A full memtable makes 64 samples, which cost
// 1 % of a publish; fewer would leave small files without any.
inline constexpr uint64_t kBlocksPerSample = 64;

// LZ4, or none if this RocksDB was built without it.
rocksdb::CompressionType FastCompression();

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_COMPRESSION_CHOICE_H_
