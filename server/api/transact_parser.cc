#include "server/api/transact_parser.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/api/field_checks.h"
#include "server/api/publish_parser.h"
#include "server/api/settle_parser.h"
#include "server/api/wire_format.h"
#include "server/base/strings.h"
#include "server/model/error.h"
#include "server/model/limits.h"
#include "sluice/v1/settle.pb.h"

namespace sluice::api {
namespace {

using google::protobuf::io::CodedInputStream;

constexpr uint32_t kAcksTag = MakeTag(1, kLengthDelimited);
constexpr uint32_t kNacksTag = MakeTag(2, kLengthDelimited);
constexpr uint32_t kPublishesTag = MakeTag(3, kLengthDelimited);

// An error about a field of a request that stands at `path` in a larger one.
absl::Status Below(const std::string& path, const absl::Status& status) {
  const std::string field = FieldOf(status);
  if (field.empty()) return status;
  const std::string moved = absl::StrCat(path, ".", field);
  if (absl::IsUnimplemented(status)) return MakeNotBuiltError(moved);
  absl::string_view problem = status.message();
  absl::ConsumePrefix(&problem, absl::StrCat(field, ": "));
  return MakeFieldError(moved, ToStd(problem), ReasonOf(status));
}

class TransactReader {
 public:
  TransactReader(const MessageRules& rules, const ReceiptCodec& receipts)
      : rules_(rules), receipts_(receipts) {}

  absl::Status Read(CodedInputStream* input) {
    while (const uint32_t tag = input->ReadTag()) {
      if (tag != kAcksTag && tag != kNacksTag && tag != kPublishesTag) {
        return UnknownField(tag);
      }
      uint32_t length;
      std::string part;
      if (!input->ReadVarint32(&length) || length > kRequestBytesMax ||
          !input->ReadString(&part, static_cast<int>(length))) {
        return MalformedRequest();
      }
      const absl::Status status = tag == kAcksTag    ? ReadAcks(part)
                                  : tag == kNacksTag ? ReadNacks(part)
                                                     : ReadPublish(part);
      if (!status.ok()) return status;
    }
    // ReadTag answers 0 both at the end and at a broken tag.
    if (!input->ConsumedEntireMessage()) return MalformedRequest();
    if (settled_ == 0 && published_ == 0) {
      return MakeError(ErrorReason::kInvalidField, "acks, nacks and publishes are all empty");
    }
    return absl::OkStatus();
  }
  broker::TransactCommand Take() { return std::move(command_); }

 private:
  absl::Status ReadAcks(const std::string& bytes) {
    const std::string path = absl::StrCat("acks[", command_.acks.size(), "]");
    CodedInputStream input(reinterpret_cast<const uint8_t*>(bytes.data()),
                           static_cast<int>(bytes.size()));
    auto receipts = ReadAckRequest(&input, path, receipts_);
    if (!receipts.ok()) return receipts.status();
    return AddSettle(path, "receipts", ToAcks(*std::move(receipts)), &command_.acks);
  }

  absl::Status ReadNacks(const std::string& bytes) {
    const std::string path = absl::StrCat("nacks[", command_.nacks.size(), "]");
    v1::NackRequest request;
    if (!request.ParseFromString(bytes)) return MalformedRequest();
    const auto& unknown = request.GetReflection()->GetUnknownFields(request);
    if (!unknown.empty()) {
      return MakeNotBuiltError(absl::StrCat(path, ".field ", unknown.field(0).number()));
    }
    auto settle = ToNacks(request, path, receipts_);
    if (!settle.ok()) return settle.status();
    return AddSettle(path, "items", *std::move(settle), &command_.nacks);
  }

  absl::Status AddSettle(const std::string& path, const char* list, ParsedSettle settle,
                         std::vector<broker::TransactCommand::Settle>* out) {
    if (auto status = CheckName(absl::StrCat(path, ".queue"), settle.receipts.queue);
        !status.ok()) {
      return status;
    }
    if (!settle.receipts.failures.empty()) {
      const broker::SettleFailure& first = settle.receipts.failures.front();
      return MakeFieldError(absl::StrCat(path, ".", list, "[", first.index, "]"),
                            ToStd(first.status.message()), ReasonOf(first.status));
    }
    settled_ += static_cast<int64_t>(settle.items.size());
    if (settled_ > kReceiptsPerCallMax) {
      return MakeFieldError(path, absl::StrCat("more than ", kReceiptsPerCallMax,
                                               " receipts in one transaction"),
                            ErrorReason::kBatchTooLarge);
    }
    out->push_back({std::move(settle.receipts.queue), std::move(settle.items)});
    return absl::OkStatus();
  }

  absl::Status ReadPublish(const std::string& bytes) {
    const std::string path = absl::StrCat("publishes[", command_.publishes.size(), "]");
    const grpc::Slice slice(bytes);
    auto publish = ParsePublishRequest(grpc::ByteBuffer(&slice, 1), rules_);
    if (!publish.ok()) return Below(path, publish.status());
    if (publish->wait_when_full_ms > 0) {
      return MakeFieldError(absl::StrCat(path, ".wait_when_full"), "a transaction does not wait");
    }
    published_ += static_cast<int64_t>(publish->messages.size());
    if (published_ > kMessagesPerPublishMax) {
      return MakeFieldError(path, absl::StrCat("more than ", kMessagesPerPublishMax,
                                               " messages in one transaction"),
                            ErrorReason::kBatchTooLarge);
    }
    command_.publishes.push_back(*std::move(publish));
    return absl::OkStatus();
  }

  const MessageRules& rules_;
  const ReceiptCodec& receipts_;
  broker::TransactCommand command_;
  int64_t settled_ = 0;
  int64_t published_ = 0;
};

}  // namespace

absl::StatusOr<broker::TransactCommand> ParseTransactRequest(const grpc::ByteBuffer& bytes,
                                                             const MessageRules& rules,
                                                             const ReceiptCodec& receipts) {
  grpc::ByteBuffer buffer = bytes;  // shares the slices; the reader wants it mutable
  grpc::ProtoBufferReader reader(&buffer);
  if (!reader.status().ok()) return MalformedRequest();
  CodedInputStream input(&reader);
  TransactReader transaction(rules, receipts);
  if (auto status = transaction.Read(&input); !status.ok()) return status;
  return transaction.Take();
}

}  // namespace sluice::api
