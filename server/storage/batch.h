// A batch: every change of persistent state of one engine turn, and the record of the log.
#ifndef SLUICE_SERVER_STORAGE_BATCH_H_
#define SLUICE_SERVER_STORAGE_BATCH_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/model/ids.h"

namespace sluice::storage {

// Groups of rows with one life: see docs/storage_format.md. Numbers are persisted.
enum class Family : uint8_t {
  kMessages = 1,  // written once, never overwritten, never deleted row by row
  kMeta = 2,
  kIndex = 3,  // ways to find messages; rows of settled ones are dropped by compactions
};

struct BatchHeader {
  ShardId shard = 0;
  uint64_t term = 0;        // who owns the log; 1 while there is one owner
  Lsn lsn = 0;              // rises by one per batch
  int64_t log_time_ms = 0;  // engine time of the turn
  Lsn durable_lsn = 0;      // known to be durable when this batch was made
};

// Rows appended in order, kept in the versioned record format of docs/storage_format.md.
// Movable, not copyable. Not thread-safe.
class Batch {
 public:
  static constexpr uint8_t kFormatVersion = 1;

  // `bytes_expected`: growing to it costs no copies.
  explicit Batch(size_t bytes_expected = 0);
  Batch(Batch&&) = default;
  Batch& operator=(Batch&&) = default;

  void Put(Family family, std::string_view key, std::string_view value);
  // The value is the parts one after the other.
  void Put(Family family, std::string_view key, std::initializer_list<std::string_view> value);
  // Rows of kMessages are never deleted one by one (checked).
  void Delete(Family family, std::string_view key);
  // Deletes kMeta rows with begin <= key < end.
  void DeleteMetaRange(std::string_view begin, std::string_view end);

  // Filled in when the batch is handed to the log.
  void SetHeader(const BatchHeader& header);
  const BatchHeader& header() const { return header_; }

  bool empty() const { return rows_ == 0; }
  uint32_t rows() const { return rows_; }
  size_t bytes() const { return record_.size(); }
  // Rows that hold messages, and their value bytes.
  uint32_t messages() const { return messages_; }

  // The whole record, header included.
  std::string_view record() const { return record_; }

  class Visitor {
   public:
    virtual ~Visitor() = default;
    virtual void OnPut(Family family, std::string_view key, std::string_view value) = 0;
    virtual void OnDelete(Family family, std::string_view key) = 0;
    virtual void OnDeleteMetaRange(std::string_view begin, std::string_view end) = 0;
  };
  // Walks a record; DATA_LOSS if it is cut short, garbled or of an unknown version.
  static absl::Status Visit(std::string_view record, BatchHeader* header, Visitor* visitor);
  // Only the header: `record` may be just its first kHeaderBytes bytes.
  static absl::Status ReadHeader(std::string_view record, BatchHeader* header);
  // version:1 shard:2 term:8 lsn:8 log_time_ms:8 durable_lsn:8 rows:4
  static constexpr size_t kHeaderBytes = 39;

 private:
  void Begin(uint8_t op, Family family);

  BatchHeader header_;
  uint32_t rows_ = 0;
  uint32_t messages_ = 0;
  std::string record_;
};

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_BATCH_H_
