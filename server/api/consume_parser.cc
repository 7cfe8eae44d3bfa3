#include "server/api/consume_parser.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/field_checks.h"
#include "server/api/wire_format.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

using google::protobuf::io::CodedInputStream;

constexpr uint32_t kInit = MakeTag(1, kLengthDelimited);
constexpr uint32_t kCredit = MakeTag(2, kLengthDelimited);
constexpr uint32_t kAck = MakeTag(3, kLengthDelimited);
constexpr uint32_t kNack = MakeTag(4, kLengthDelimited);
constexpr uint32_t kExtend = MakeTag(5, kLengthDelimited);
constexpr uint32_t kDrain = MakeTag(6, kLengthDelimited);
constexpr uint32_t kRequestId = MakeTag(7, kVarint);

absl::Status ReadMessage(CodedInputStream* input, const char* path,
                         google::protobuf::Message* out) {
  if (!out->MergeFromCodedStream(input) || !input->ConsumedEntireMessage()) return MalformedRequest();
  const auto& unknown = out->GetReflection()->GetUnknownFields(*out);
  if (unknown.empty()) return absl::OkStatus();
  return MakeNotBuiltError(PathTo(path, absl::StrCat("field ", unknown.field(0).number())));
}

// The request with this tag, which fills `input` up to its limit.
absl::Status ReadRequest(uint32_t tag, CodedInputStream* input, const ReceiptCodec& codec,
                         ParsedConsume* parsed) {
  switch (tag) {
    case kInit: return ReadMessage(input, "init", parsed->other.mutable_init());
    case kCredit: return ReadMessage(input, "credit", parsed->other.mutable_credit());
    case kNack: return ReadMessage(input, "nack", parsed->other.mutable_nack());
    case kExtend: return ReadMessage(input, "extend", parsed->other.mutable_extend());
    case kDrain: return ReadMessage(input, "drain", parsed->other.mutable_drain());
    case kAck: {
      auto ack = ReadAckRequest(input, "ack", codec);
      if (!ack.ok()) return ack.status();
      parsed->ack = *std::move(ack);
      return absl::OkStatus();
    }
    default: return UnknownField(tag);
  }
}

}  // namespace

absl::StatusOr<ParsedConsume> ParseConsumeRequest(const grpc::ByteBuffer& bytes,
                                                  const ReceiptCodec& codec) {
  grpc::ByteBuffer buffer = bytes;
  grpc::ProtoBufferReader reader(&buffer);
  if (!reader.status().ok()) return MalformedRequest();
  CodedInputStream input(&reader);
  ParsedConsume parsed;
  bool found = false;
  while (const uint32_t tag = input.ReadTag()) {
    if (tag == kRequestId) {
      uint64_t value;
      if (!input.ReadVarint64(&value)) return MalformedRequest();
      parsed.request_id = static_cast<int64_t>(value);
      continue;
    }
    if (tag < kInit || tag > kDrain || WireTypeOfTag(tag) != kLengthDelimited) return UnknownField(tag);
    if (std::exchange(found, true)) {
      return MakeError(ErrorReason::kInvalidField, "a message carries one request");
    }
    uint32_t length;
    if (!input.ReadVarint32(&length) || length > bytes.Length()) return MalformedRequest();
    const auto limit = input.PushLimit(static_cast<int>(length));
    if (auto status = ReadRequest(tag, &input, codec, &parsed); !status.ok()) return status;
    // A cut request ends where the bytes do, before its limit.
    if (input.BytesUntilLimit() != 0) return MalformedRequest();
    input.PopLimit(limit);
  }
  if (!input.ConsumedEntireMessage()) return MalformedRequest();
  if (!found) return MakeError(ErrorReason::kInvalidField, "the message carries no request");
  return parsed;
}

}  // namespace sluice::api
