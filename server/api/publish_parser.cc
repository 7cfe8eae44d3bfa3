#include "server/api/publish_parser.h"

#include <google/protobuf/io/coded_stream.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/call.h"
#include "server/api/message_check.h"
#include "server/api/utf8.h"
#include "server/base/strings.h"
#include "server/model/error.h"
#include "server/model/limits.h"
#include "server/model/server_fields.h"

namespace sluice::api {
namespace {

using google::protobuf::io::CodedInputStream;

enum WireType : uint32_t { kVarint = 0, kLengthDelimited = 2 };
constexpr uint32_t MakeTag(uint32_t field, WireType type) { return field << 3 | type; }

constexpr uint32_t kRequestQueue = MakeTag(1, kLengthDelimited);
constexpr uint32_t kRequestExchange = MakeTag(2, kLengthDelimited);
constexpr uint32_t kRequestMessages = MakeTag(3, kLengthDelimited);
constexpr uint32_t kRequestMandatory = MakeTag(4, kVarint);
constexpr uint32_t kRequestWaitWhenFull = MakeTag(5, kLengthDelimited);
constexpr uint32_t kStreamInit = MakeTag(1, kLengthDelimited);
constexpr uint32_t kStreamBatch = MakeTag(2, kLengthDelimited);
constexpr uint32_t kBatchFirstSequence = MakeTag(1, kVarint);
constexpr uint32_t kBatchMessages = MakeTag(2, kLengthDelimited);

absl::Status Malformed() {
  return MakeError(ErrorReason::kInvalidField, "the request is not well-formed protobuf");
}

absl::Status NotKnown(uint32_t tag) {
  return MakeNotBuiltError(absl::StrCat("field ", tag >> 3, " of the request"));
}

// The length of a field that follows; false if it goes beyond the input. Lengths are checked before
// anything is allocated.
bool ReadLength(CodedInputStream* input, int64_t bytes_total, uint32_t* length) {
  if (!input->ReadVarint32(length)) return false;
  const int until_limit = input->BytesUntilLimit();
  const int64_t left =
      until_limit >= 0 ? until_limit : bytes_total - static_cast<int64_t>(input->CurrentPosition());
  return *length <= left;
}

bool ReadString(CodedInputStream* input, int64_t bytes_total, std::string* out) {
  uint32_t length;
  return ReadLength(input, bytes_total, &length) && input->ReadString(out, static_cast<int>(length));
}

// `payload` without `cut`, of exact size.
Payload CutOut(const Payload& payload, uint32_t bytes, const std::vector<ByteRange>& cut) {
  uint32_t cut_bytes = 0;
  for (const ByteRange& range : cut) cut_bytes += range.end - range.begin;
  Payload result =
      Payload::Allocate(bytes - cut_bytes + static_cast<uint32_t>(kServerFieldsBytes));
  char* out = result.mutable_data();
  uint32_t from = 0;
  for (const ByteRange& range : cut) {
    out = std::copy(payload.data() + from, payload.data() + range.begin, out);
    from = range.end;
  }
  std::copy(payload.data() + from, payload.data() + bytes, out);
  return result;
}

// Takes the messages of one request: reads them all, keeps them while no rule is broken.
class MessageReader {
 public:
  explicit MessageReader(int64_t bytes_total, int64_t body_bytes_max)
      : bytes_total_(bytes_total), body_bytes_max_(body_bytes_max) {}

  // False where the input is malformed beyond this message.
  bool Read(CodedInputStream* input) {
    uint32_t length;
    if (!ReadLength(input, bytes_total_, &length)) return false;
    const int64_t index = count_++;
    if (status_.ok() && count_ > kMessagesPerPublishMax) {
      status_ = MakeFieldError("messages", absl::StrCat("more than ", kMessagesPerPublishMax),
                               ErrorReason::kBatchTooLarge);
    }
    if (!status_.ok()) {
      messages_.clear();
      return input->Skip(static_cast<int>(length));
    }
    Payload payload = Payload::Allocate(length + static_cast<uint32_t>(kServerFieldsBytes));
    if (!input->ReadRaw(payload.mutable_data(), static_cast<int>(length))) return false;
    CheckedMessage checked;
    status_ = CheckMessage({payload.data(), length}, index, body_bytes_max_, &checked);
    if (!checked.server_fields.empty()) payload = CutOut(payload, length, checked.server_fields);
    messages_.push_back({std::move(payload)});
    return true;
  }

  int64_t count() const { return count_; }
  std::vector<broker::NewMessage> TakeMessages() { return std::move(messages_); }
  // Why the messages cannot be stored.
  absl::Status Finish() {
    if (status_.ok() && count_ == 0) status_ = MakeFieldError("messages", "must not be empty");
    if (!status_.ok()) messages_.clear();
    return status_;
  }

 private:
  const int64_t bytes_total_;
  const int64_t body_bytes_max_;
  int64_t count_ = 0;
  absl::Status status_;
  std::vector<broker::NewMessage> messages_;
};

absl::Status ReadRequestFields(CodedInputStream* input, int64_t bytes_total, std::string* queue,
                               bool* exchange, MessageReader* messages) {
  absl::Status refused;
  while (const uint32_t tag = input->ReadTag()) {
    bool read = false;
    std::string skipped;
    uint64_t flag = 0;
    if (tag == kRequestMessages) {
      read = messages->Read(input);
    } else if (tag == kRequestQueue) {
      read = ReadString(input, bytes_total, queue);
      *exchange = false;
    } else if (tag == kRequestExchange) {
      read = ReadString(input, bytes_total, &skipped);
      *exchange = true;
    } else if (tag == kRequestMandatory) {
      read = input->ReadVarint64(&flag);
      if (flag != 0) refused.Update(MakeNotBuiltError("mandatory"));
    } else if (tag == kRequestWaitWhenFull) {
      read = ReadString(input, bytes_total, &skipped);
      refused.Update(MakeNotBuiltError("wait_when_full"));
    } else {
      return NotKnown(tag);
    }
    if (!read) return Malformed();
  }
  // ReadTag answers 0 both at the end and at a broken tag.
  if (!input->ConsumedEntireMessage()) return Malformed();
  return refused;
}

absl::Status ReadBatch(CodedInputStream* input, int64_t bytes_total, int64_t body_bytes_max,
                       ParsedBatch* batch) {
  uint32_t length;
  if (!ReadLength(input, bytes_total, &length)) return Malformed();
  const auto limit = input->PushLimit(static_cast<int>(length));
  MessageReader messages(bytes_total, body_bytes_max);
  while (const uint32_t tag = input->ReadTag()) {
    bool read = false;
    if (tag == kBatchMessages) {
      read = messages.Read(input);
    } else if (tag == kBatchFirstSequence) {
      uint64_t value = 0;
      read = input->ReadVarint64(&value);
      batch->first_sequence = static_cast<int64_t>(value);
    } else {
      return NotKnown(tag);
    }
    if (!read) return Malformed();
  }
  if (!input->ConsumedEntireMessage()) return Malformed();
  input->PopLimit(limit);
  batch->message_count = messages.count();
  batch->status = messages.Finish();
  batch->messages = messages.TakeMessages();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ParsedPublish> ParsePublishRequest(const grpc::ByteBuffer& bytes,
                                                  int64_t body_bytes_max) {
  grpc::ByteBuffer buffer = bytes;  // shares the slices; the reader wants it mutable
  grpc::ProtoBufferReader reader(&buffer);
  if (!reader.status().ok()) return Malformed();
  CodedInputStream input(&reader);
  const auto bytes_total = static_cast<int64_t>(bytes.Length());
  MessageReader messages(bytes_total, body_bytes_max);
  ParsedPublish parsed;
  bool exchange = false;
  if (auto status = ReadRequestFields(&input, bytes_total, &parsed.queue, &exchange, &messages);
      !status.ok()) {
    return status;
  }
  if (exchange) return MakeNotBuiltError("exchange");
  if (parsed.queue.empty()) return MakeFieldError("queue", "must be set");
  if (!IsUtf8(parsed.queue)) return MakeFieldError("queue", "not valid UTF-8");
  if (auto status = messages.Finish(); !status.ok()) return status;
  parsed.messages = messages.TakeMessages();
  return parsed;
}

absl::StatusOr<ParsedStreamRequest> ParseStreamRequest(const grpc::ByteBuffer& bytes,
                                                       int64_t body_bytes_max) {
  grpc::ByteBuffer buffer = bytes;
  grpc::ProtoBufferReader reader(&buffer);
  if (!reader.status().ok()) return Malformed();
  CodedInputStream input(&reader);
  const auto bytes_total = static_cast<int64_t>(bytes.Length());
  ParsedStreamRequest parsed;
  while (const uint32_t tag = input.ReadTag()) {
    if (parsed.init || parsed.batch) {
      return MakeError(ErrorReason::kInvalidField, "a request carries one init or one batch");
    }
    if (tag == kStreamInit) {
      std::string init;
      if (!ReadString(&input, bytes_total, &init)) return Malformed();
      if (!parsed.init.emplace().ParseFromString(init)) return Malformed();
      if (auto status = RefuseUnknownFields(*parsed.init); !status.ok()) return status;
    } else if (tag == kStreamBatch) {
      auto status = ReadBatch(&input, bytes_total, body_bytes_max, &parsed.batch.emplace());
      if (!status.ok()) return status;
    } else {
      return NotKnown(tag);
    }
  }
  if (!input.ConsumedEntireMessage()) return Malformed();
  if (!parsed.init && !parsed.batch) {
    return MakeError(ErrorReason::kInvalidField, "neither init nor batch is set");
  }
  return parsed;
}

}  // namespace sluice::api
