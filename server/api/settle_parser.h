// Reads acks from the wire: as frequent as messages, so receipts are decoded where they lie.
#ifndef SLUICE_SERVER_API_SETTLE_PARSER_H_
#define SLUICE_SERVER_API_SETTLE_PARSER_H_

#include <grpcpp/support/byte_buffer.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/broker/commands.h"
#include "server/model/receipt.h"

namespace sluice::api {

// Items of a settling call that are fit for the shard, and those that failed before it. An item's
// place in the request is kept: `failures` name it, and `index[i]` is that of `receipts[i]`
// (`index` is empty where no item failed, as they agree then).
struct ParsedReceipts {
  std::string queue;
  std::vector<Receipt> receipts;
  std::vector<int32_t> index;
  std::vector<broker::SettleFailure> failures;

  int32_t IndexOf(int32_t item) const { return index.empty() ? item : index[item]; }
};

// Collects receipts in the order of the request.
class ReceiptCollector {
 public:
  explicit ReceiptCollector(const ReceiptCodec& codec) : codec_(codec) {}
  // True if the receipt was good.
  bool Add(std::string_view text);
  int32_t count() const { return count_; }
  // Whether it holds 1 to kReceiptsPerCallMax; `field` names the list.
  absl::Status CheckCount(std::string_view field) const;
  ParsedReceipts Take() { return std::move(parsed_); }

 private:
  const ReceiptCodec& codec_;
  int32_t count_ = 0;
  ParsedReceipts parsed_;
};

// A sluice.v1.AckRequest. Garbled receipts are failures of their items, not errors.
absl::StatusOr<ParsedReceipts> ParseAckRequest(const grpc::ByteBuffer& bytes,
                                               const ReceiptCodec& codec);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_SETTLE_PARSER_H_
