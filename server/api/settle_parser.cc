#include "server/api/settle_parser.h"

#include <grpcpp/support/proto_buffer_reader.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/field_checks.h"
#include "server/api/wire_format.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

using google::protobuf::io::CodedInputStream;

constexpr uint32_t kQueueTag = MakeTag(1, kLengthDelimited);
constexpr uint32_t kReceiptsTag = MakeTag(2, kLengthDelimited);

absl::StatusOr<broker::SettleItem> ToSettleItem(const v1::NackItem& item, std::string_view path) {
  if (item.reason().size() > kNackReasonBytesMax) {
    return MakeFieldError(PathTo(path, "reason"),
                          absl::StrCat("longer than ", kNackReasonBytesMax, " bytes"));
  }
  if (item.has_delay() && item.action() != v1::NACK_ACTION_DELAY) {
    return MakeFieldError(PathTo(path, "delay"), "goes with the action DELAY only");
  }
  broker::SettleItem settle;
  settle.reason = item.reason();
  switch (item.action()) {
    case v1::NACK_ACTION_UNSPECIFIED:
    case v1::NACK_ACTION_RETRY: settle.action = broker::SettleAction::kRetry; return settle;
    case v1::NACK_ACTION_DISCARD: settle.action = broker::SettleAction::kDiscard; return settle;
    case v1::NACK_ACTION_RELEASE: settle.action = broker::SettleAction::kRelease; return settle;
    case v1::NACK_ACTION_DEAD_LETTER:
      settle.action = broker::SettleAction::kDeadLetter;
      return settle;
    case v1::NACK_ACTION_DELAY: {
      settle.action = broker::SettleAction::kDelay;
      auto delay_ms = ToMs(PathTo(path, "delay"), item.delay(), 0, kDelayMsMax);
      if (!delay_ms.ok()) return delay_ms.status();
      settle.delay_ms = *delay_ms;
      return settle;
    }
    case v1::NackAction_INT_MIN_SENTINEL_DO_NOT_USE_:
    case v1::NackAction_INT_MAX_SENTINEL_DO_NOT_USE_: break;
  }
  return MakeFieldError(PathTo(path, "action"), "not a known action");
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

absl::StatusOr<ParsedReceipts> ReadAckRequest(CodedInputStream* input, std::string_view path,
                                              const ReceiptCodec& codec) {
  ReceiptCollector collector(codec);
  std::string queue;
  while (const uint32_t tag = input->ReadTag()) {
    if (tag != kQueueTag && tag != kReceiptsTag) {
      return MakeNotBuiltError(PathTo(path, absl::StrCat("field ", FieldOfTag(tag))));
    }
    uint32_t length;
    if (!input->ReadVarint32(&length) || length > kRequestBytesMax) return MalformedRequest();
    char receipt[kReceiptBytes];
    if (tag == kQueueTag) {
      if (!input->ReadString(&queue, static_cast<int>(length))) return MalformedRequest();
    } else if (length == kReceiptBytes) {
      if (!input->ReadRaw(receipt, kReceiptBytes)) return MalformedRequest();
      collector.Add({receipt, kReceiptBytes});
    } else {
      if (!input->Skip(static_cast<int>(length))) return MalformedRequest();
      collector.Add({});
    }
  }
  if (!input->ConsumedEntireMessage()) return MalformedRequest();
  if (auto status = collector.CheckCount(PathTo(path, "receipts")); !status.ok()) return status;
  ParsedReceipts parsed = collector.Take();
  parsed.queue = std::move(queue);
  return parsed;
}

absl::StatusOr<ParsedReceipts> ParseAckRequest(const grpc::ByteBuffer& bytes,
                                               const ReceiptCodec& codec) {
  grpc::ByteBuffer buffer = bytes;
  grpc::ProtoBufferReader reader(&buffer);
  if (!reader.status().ok()) return MalformedRequest();
  CodedInputStream input(&reader);
  auto parsed = ReadAckRequest(&input, {}, codec);
  if (!parsed.ok()) return parsed;
  if (auto status = CheckName("queue", parsed->queue); !status.ok()) return status;
  return parsed;
}

ParsedSettle ToAcks(ParsedReceipts receipts) {
  ParsedSettle settle;
  settle.items.reserve(receipts.receipts.size());
  for (const Receipt& receipt : receipts.receipts) settle.items.push_back({.receipt = receipt});
  settle.receipts = std::move(receipts);
  return settle;
}

absl::StatusOr<ParsedSettle> ToNacks(const v1::NackRequest& request, std::string_view path,
                                     const ReceiptCodec& codec) {
  ReceiptCollector collector(codec);
  ParsedSettle settle;
  for (int i = 0; i < request.items_size() && i < kReceiptsPerCallMax; ++i) {
    const v1::NackItem& item = request.items(i);
    auto action = ToSettleItem(item, PathTo(path, absl::StrCat("items[", i, "]")));
    if (!action.ok()) return action.status();
    if (collector.Add(item.receipt())) settle.items.push_back(*std::move(action));
  }
  const int beyond = request.items_size() - collector.count();
  for (int i = 0; i < beyond; ++i) collector.Add({});
  if (auto status = collector.CheckCount(PathTo(path, "items")); !status.ok()) return status;
  settle.receipts = collector.Take();
  settle.receipts.queue = request.queue();
  for (size_t i = 0; i < settle.items.size(); ++i) {
    settle.items[i].receipt = settle.receipts.receipts[i];
  }
  return settle;
}

absl::StatusOr<ParsedReceipts> ToReceipts(const v1::ExtendLeaseRequest& request,
                                          std::string_view path, const ReceiptCodec& codec) {
  ReceiptCollector collector(codec);
  for (const std::string& receipt : request.receipts()) collector.Add(receipt);
  if (auto status = collector.CheckCount(PathTo(path, "receipts")); !status.ok()) return status;
  ParsedReceipts parsed = collector.Take();
  parsed.queue = request.queue();
  return parsed;
}

}  // namespace sluice::api
