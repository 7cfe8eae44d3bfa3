// Reads what settles messages. Acks are as frequent as messages, so their receipts are decoded
// where they lie on the wire; the others come as parsed protobuf.
#ifndef SLUICE_SERVER_API_SETTLE_PARSER_H_
#define SLUICE_SERVER_API_SETTLE_PARSER_H_

#include <google/protobuf/io/coded_stream.h>
#include <grpcpp/support/byte_buffer.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/broker/settle_commands.h"
#include "server/model/receipt.h"
#include "sluice/v1/settle.pb.h"

namespace sluice::api {

// Items of a settling call that are fit for the shard, and those that failed before it. An item's
// place in the request is kept: `failures` name it, and `index[i]` is that of `receipts[i]`
// (`index` is empty where no item failed, as they agree then).
struct ParsedReceipts {
  std::string queue;
  std::vector<Receipt> receipts;
  std::vector<int32_t> index;
  std::vector<broker::SettleFailure> failures;

  // Items of the request.
  int32_t count() const { return static_cast<int32_t>(receipts.size() + failures.size()); }
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

// The same with what should become of each: `items[i]` is about `receipts.receipts[i]`.
struct ParsedSettle {
  ParsedReceipts receipts;
  std::vector<broker::SettleItem> items;
};

// In all of these garbled receipts are failures of their items, not errors; `path` is where the
// request stands in a larger one, and empty where it is one.

// A sluice.v1.AckRequest.
absl::StatusOr<ParsedReceipts> ParseAckRequest(const grpc::ByteBuffer& bytes,
                                               const ReceiptCodec& codec);
// The same from where `input` stands up to its limit, which must be set unless it is the end. Does
// not check the name of the queue.
absl::StatusOr<ParsedReceipts> ReadAckRequest(google::protobuf::io::CodedInputStream* input,
                                              std::string_view path, const ReceiptCodec& codec);
ParsedSettle ToAcks(ParsedReceipts receipts);
// Does not check the name of the queue.
absl::StatusOr<ParsedSettle> ToNacks(const v1::NackRequest& request, std::string_view path,
                                     const ReceiptCodec& codec);
// Does not check the name of the queue.
absl::StatusOr<ParsedReceipts> ToReceipts(const v1::ExtendLeaseRequest& request,
                                          std::string_view path, const ReceiptCodec& codec);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_SETTLE_PARSER_H_
