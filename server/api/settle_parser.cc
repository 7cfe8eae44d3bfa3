#include "server/api/settle_parser.h"

#include <google/protobuf/io/coded_stream.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include "absl/strings/str_cat.h"
#include "server/api/field_checks.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

constexpr uint32_t kQueueTag = 1 << 3 | 2;
constexpr uint32_t kReceiptsTag = 2 << 3 | 2;

absl::Status Malformed() {
  return MakeError(ErrorReason::kInvalidField, "the request is not well-formed protobuf");
}

}  // namespace

bool ReceiptCollector::Add(std::string_view text) {
  const int32_t item = count_++;
  if (item >= kReceiptsPerCallMax) return false;  // CheckCount will refuse the call
  const auto receipt = codec_.Decode(text);
  if (!receipt) {
    if (parsed_.failures.empty()) {
      for (int32_t i = 0; i < item; ++i) parsed_.index.push_back(i);
    }
    parsed_.failures.push_back(
        {item, MakeError(ErrorReason::kReceiptInvalid, "not a receipt of this server")});
    return false;
  }
  if (!parsed_.failures.empty()) parsed_.index.push_back(item);
  parsed_.receipts.push_back(*receipt);
  return true;
}

absl::Status ReceiptCollector::CheckCount(std::string_view field) const {
  if (count_ == 0) return MakeFieldError(field, "must not be empty");
  if (count_ > kReceiptsPerCallMax) {
    return MakeFieldError(field, absl::StrCat("more than ", kReceiptsPerCallMax),
                          ErrorReason::kBatchTooLarge);
  }
  return absl::OkStatus();
}

absl::StatusOr<ParsedReceipts> ParseAckRequest(const grpc::ByteBuffer& bytes,
                                               const ReceiptCodec& codec) {
  grpc::ByteBuffer buffer = bytes;
  grpc::ProtoBufferReader reader(&buffer);
  if (!reader.status().ok()) return Malformed();
  google::protobuf::io::CodedInputStream input(&reader);
  ReceiptCollector collector(codec);
  std::string queue;
  while (const uint32_t tag = input.ReadTag()) {
    if (tag != kQueueTag && tag != kReceiptsTag) {
      return MakeNotBuiltError(absl::StrCat("field ", tag >> 3, " of the request"));
    }
    uint32_t length;
    if (!input.ReadVarint32(&length) || length > bytes.Length()) return Malformed();
    char receipt[kReceiptBytes];
    if (tag == kQueueTag) {
      if (!input.ReadString(&queue, static_cast<int>(length))) return Malformed();
    } else if (length == kReceiptBytes) {
      if (!input.ReadRaw(receipt, kReceiptBytes)) return Malformed();
      collector.Add({receipt, kReceiptBytes});
    } else {
      if (!input.Skip(static_cast<int>(length))) return Malformed();
      collector.Add({});
    }
  }
  if (!input.ConsumedEntireMessage()) return Malformed();
  if (auto status = CheckName("queue", queue); !status.ok()) return status;
  if (auto status = collector.CheckCount("receipts"); !status.ok()) return status;
  ParsedReceipts parsed = collector.Take();
  parsed.queue = std::move(queue);
  return parsed;
}

}  // namespace sluice::api
