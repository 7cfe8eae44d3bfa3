// What a shard wants read from the store, and what comes back.
#ifndef SLUICE_SERVER_BROKER_READS_H_
#define SLUICE_SERVER_BROKER_READS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/ids.h"
#include "server/storage/store.h"

namespace sluice::broker {

// One of: messages of a range, messages by seq, rows of the index in order, rows of the index by key.
// Any of them, or none, with meta rows by key.
struct ReadRequest {
  uint64_t ticket = 0;      // names the request; the shard's
  storage::ReadRange range; // messages_max > 0: these messages
  std::vector<Seq> seqs;    // not empty: these of range's lane, up to range.bytes_max
  uint32_t rows_max = 0;    // > 0: rows in [index_begin, index_end)
  std::string index_begin;
  std::string index_end;
  std::vector<std::string> keys;  // not empty: these rows
  std::vector<std::string> meta_keys;
};

struct ReadResult {
  std::vector<storage::StoredMessage> messages;
  size_t seqs_read = 0;
  std::vector<storage::IndexRow> rows;
  std::vector<std::optional<std::string>> values;
  std::vector<std::optional<std::string>> meta_values;
};

// Blocks; on any thread but the engine's.
absl::StatusOr<ReadResult> Read(storage::Store& store, const ReadRequest& request);

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_READS_H_
