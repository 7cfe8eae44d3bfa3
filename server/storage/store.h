// Reading what the log made durable.
#ifndef SLUICE_SERVER_STORAGE_STORE_H_
#define SLUICE_SERVER_STORAGE_STORE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/ids.h"
#include "server/model/message_info.h"
#include "server/model/payload.h"

namespace sluice::storage {

struct StoredMessage {
  Seq seq = 0;
  MessageInfo info;
  Payload payload;  // wire-ready sluice.v1.Message; empty for a skipped group
};

struct IndexRow {
  std::string key;
  std::string value;
};

// Messages of skipped groups in one page: they cost memory and time, though little.
inline constexpr uint32_t kSkippedPerPageMax = 65'536;

// Which rows of one lane to read, in order of seq.
struct ReadRange {
  QueueId qid = 0;
  Lane lane = 0;
  Seq begin = 0;  // inclusive
  Seq end = 0;    // exclusive
  uint32_t messages_max = 0;  // besides skipped ones, of which kSkippedPerPageMax may come
  uint64_t bytes_max = 0;  // stops after the message that reaches it; at least one is returned
  // Messages of these groups come without their payload and count no bytes. Null: none.
  std::shared_ptr<const absl::flat_hash_set<uint64_t>> skip_groups = nullptr;
};

// How much of a range's limits its first messages use up. A page that does not fill them holds all
// there is in the range.
struct PageSize {
  uint32_t messages = 0;  // with their payload
  uint32_t skipped = 0;
  uint64_t bytes = 0;

  void Count(const StoredMessage& message) {
    ++(message.payload ? messages : skipped);
    bytes += message.payload.size();
  }
  bool IsFull(const ReadRange& range) const {
    return messages >= range.messages_max || skipped >= kSkippedPerPageMax ||
           (messages > 0 && bytes >= range.bytes_max);
  }
};

// Blocking reads of synced state. Thread-safe; the engine thread never calls them while serving.
class Store {
 public:
  virtual ~Store() = default;

  // Every row of Family::kMeta in key order, at start. Stops at the first error of `row`.
  virtual absl::Status ScanMeta(
      absl::FunctionRef<absl::Status(std::string_view key, std::string_view value)> row) = 0;

  // DATA_LOSS when a row is damaged. Rows may be missing where they are settled.
  virtual absl::StatusOr<std::vector<StoredMessage>> ReadMessages(const ReadRange& range) = 0;

  // The messages with these seqs (rising); a missing one is left out. Stops after about `bytes_max`;
  // `*seqs_read` is how many of the seqs were looked at, at least one.
  virtual absl::StatusOr<std::vector<StoredMessage>> ReadMessagesAt(
      QueueId qid, Lane lane, const std::vector<Seq>& seqs, uint64_t bytes_max,
      size_t* seqs_read) = 0;

  // Rows of Family::kIndex with begin <= key < end in key order, at most `rows_max`. Rows of settled
  // messages may be among them.
  virtual absl::StatusOr<std::vector<IndexRow>> ScanIndex(std::string_view begin,
                                                          std::string_view end,
                                                          uint32_t rows_max) = 0;

  // The values of these rows of Family::kIndex, in the same order; nothing where there is none.
  virtual absl::StatusOr<std::vector<std::optional<std::string>>> GetIndex(
      const std::vector<std::string>& keys) = 0;
  // The same of Family::kMeta.
  virtual absl::StatusOr<std::vector<std::optional<std::string>>> GetMeta(
      const std::vector<std::string>& keys) = 0;
};

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_STORE_H_
