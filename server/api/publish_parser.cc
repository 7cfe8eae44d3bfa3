#include "server/api/publish_parser.h"

#include <google/protobuf/io/coded_stream.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/call.h"
#include "server/api/field_checks.h"
#include "server/api/message_check.h"
#include "server/api/utf8.h"
#include "server/api/wire_format.h"
#include "server/base/strings.h"
#include "server/model/error.h"
#include "server/model/limits.h"
#include "server/model/server_fields.h"

namespace sluice::api {
namespace {

using google::protobuf::io::CodedInputStream;

constexpr uint32_t kRequestQueue = MakeTag(1, kLengthDelimited);
constexpr uint32_t kRequestExchange = MakeTag(2, kLengthDelimited);
constexpr uint32_t kRequestMessages = MakeTag(3, kLengthDelimited);
constexpr uint32_t kRequestMandatory = MakeTag(4, kVarint);
constexpr uint32_t kRequestWaitWhenFull = MakeTag(5, kLengthDelimited);
constexpr uint32_t kStreamInit = MakeTag(1, kLengthDelimited);
constexpr uint32_t kStreamBatch = MakeTag(2, kLengthDelimited);
constexpr uint32_t kBatchFirstSequence = MakeTag(1, kVarint);
constexpr uint32_t kBatchMessages = MakeTag(2, kLengthDelimited);

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

// The field `exchange` of sluice.v1.Message as it goes behind the publisher's bytes; empty for a
// publish to a queue, and for a name that will be refused anyway.
std::string ExchangeField(std::string_view exchange) {
  if (exchange.empty() || exchange.size() > kNameBytesMax) return {};
  v1::Message message;
  message.set_exchange(std::string(exchange));
  return message.SerializeAsString();
}

// `payload` without `cut`, followed by `exchange_field`, of exact size.
Payload CutOut(const Payload& payload, uint32_t bytes, const std::vector<ByteRange>& cut,
               std::string_view exchange_field) {
  uint32_t cut_bytes = 0;
  for (const ByteRange& range : cut) cut_bytes += range.end - range.begin;
  Payload result = Payload::Allocate(
      bytes - cut_bytes + static_cast<uint32_t>(exchange_field.size() + kServerFieldsBytes));
  char* out = result.mutable_data();
  uint32_t from = 0;
  for (const ByteRange& range : cut) {
    out = std::copy(payload.data() + from, payload.data() + range.begin, out);
    from = range.end;
  }
  out = std::copy(payload.data() + from, payload.data() + bytes, out);
  std::copy(exchange_field.begin(), exchange_field.end(), out);
  return result;
}

// Takes the messages of one request: reads them all, keeps them while no rule is broken.
class MessageReader {
 public:
  // `rules` must outlive it.
  MessageReader(int64_t bytes_total, const MessageRules& rules)
      : bytes_total_(bytes_total), rules_(rules) {}

  // Where the messages go, empty for a queue. Before the first of them.
  void SetExchange(std::string_view exchange) {
    if (exchange_fixed_ || exchange == exchange_) return;
    exchange_ = exchange;
    exchange_field_ = ExchangeField(exchange);
  }
  // Forgets what was read; the exchange is this one whatever SetExchange says.
  void Restart(std::string_view exchange) {
    SetExchange(exchange);
    exchange_fixed_ = true;
    count_ = 0;
    status_ = absl::OkStatus();
    messages_.clear();
  }
  const std::string& exchange() const { return exchange_; }

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
    Payload payload = Payload::Allocate(
        length + static_cast<uint32_t>(exchange_field_.size() + kServerFieldsBytes));
    if (!input->ReadRaw(payload.mutable_data(), static_cast<int>(length))) return false;
    CheckedMessage checked;
    status_ = CheckMessage({payload.data(), length}, index, !exchange_field_.empty(), rules_,
                           &checked);
    if (!checked.server_fields.empty()) {
      payload = CutOut(payload, length, checked.server_fields, exchange_field_);
    } else {
      std::copy(exchange_field_.begin(), exchange_field_.end(), payload.mutable_data() + length);
    }
    messages_.push_back({std::move(payload), checked.priority, std::move(checked.options)});
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
  const MessageRules& rules_;
  std::string exchange_;
  std::string exchange_field_;
  bool exchange_fixed_ = false;
  int64_t count_ = 0;
  absl::Status status_;
  std::vector<broker::NewMessage> messages_;
};

bool ReadDuration(CodedInputStream* input, int64_t bytes_total,
                  google::protobuf::Duration* duration) {
  std::string bytes;
  return ReadString(input, bytes_total, &bytes) && duration->MergeFromString(bytes);
}

// All of a request but its messages' rules: those `messages` tells.
absl::Status ReadRequestFields(CodedInputStream* input, int64_t bytes_total,
                               broker::Publish* publish, MessageReader* messages) {
  google::protobuf::Duration wait;
  const auto take_target = [&](std::string* target) {
    publish->queue.clear();
    publish->exchange.clear();
    if (!ReadString(input, bytes_total, target)) return false;
    if (messages->count() == 0) messages->SetExchange(publish->exchange);
    return true;
  };
  while (const uint32_t tag = input->ReadTag()) {
    bool read = false;
    if (tag == kRequestMessages) {
      read = messages->Read(input);
    } else if (tag == kRequestQueue) {
      read = take_target(&publish->queue);
    } else if (tag == kRequestExchange) {
      read = take_target(&publish->exchange);
    } else if (tag == kRequestMandatory) {
      uint64_t flag = 0;
      read = input->ReadVarint64(&flag);
      publish->mandatory = flag != 0;
    } else if (tag == kRequestWaitWhenFull) {
      read = ReadDuration(input, bytes_total, &wait);
    } else {
      return UnknownField(tag);
    }
    if (!read) return MalformedRequest();
  }
  // ReadTag answers 0 both at the end and at a broken tag.
  if (!input->ConsumedEntireMessage()) return MalformedRequest();
  const auto wait_ms = ToMs("wait_when_full", wait, 0, kWaitWhenFullMsMax);
  if (!wait_ms.ok()) return wait_ms.status();
  publish->wait_when_full_ms = *wait_ms;
  return absl::OkStatus();
}

absl::Status CheckTarget(const broker::Publish& publish) {
  if (!publish.exchange.empty()) return CheckName("exchange", publish.exchange);
  return CheckName("queue", publish.queue);
}

absl::Status ReadBatch(CodedInputStream* input, int64_t bytes_total, std::string_view exchange,
                       const MessageRules& rules, ParsedBatch* batch) {
  uint32_t length;
  if (!ReadLength(input, bytes_total, &length)) return MalformedRequest();
  const auto limit = input->PushLimit(static_cast<int>(length));
  MessageReader messages(bytes_total, rules);
  messages.SetExchange(exchange);
  while (const uint32_t tag = input->ReadTag()) {
    bool read = false;
    if (tag == kBatchMessages) {
      read = messages.Read(input);
    } else if (tag == kBatchFirstSequence) {
      uint64_t value = 0;
      read = input->ReadVarint64(&value);
      batch->first_sequence = static_cast<int64_t>(value);
    } else {
      return UnknownField(tag);
    }
    if (!read) return MalformedRequest();
  }
  if (!input->ConsumedEntireMessage()) return MalformedRequest();
  input->PopLimit(limit);
  batch->message_count = messages.count();
  batch->status = messages.Finish();
  batch->messages = messages.TakeMessages();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<broker::Publish> ParsePublishRequest(const grpc::ByteBuffer& bytes,
                                                    const MessageRules& rules) {
  const auto bytes_total = static_cast<int64_t>(bytes.Length());
  broker::Publish publish;
  MessageReader messages(bytes_total, rules);
  const auto read = [&] {
    grpc::ByteBuffer buffer = bytes;  // shares the slices; the reader wants it mutable
    grpc::ProtoBufferReader reader(&buffer);
    if (!reader.status().ok()) return MalformedRequest();
    CodedInputStream input(&reader);
    return ReadRequestFields(&input, bytes_total, &publish, &messages);
  };
  if (auto status = read(); !status.ok()) return status;
  if (auto status = CheckTarget(publish); !status.ok()) return status;
  if (messages.exchange() != publish.exchange) {
    // Clients write the target first. Messages before it are read again, knowing where they go.
    messages.Restart(publish.exchange);
    if (auto status = read(); !status.ok()) return status;
  }
  if (auto status = messages.Finish(); !status.ok()) return status;
  publish.messages = messages.TakeMessages();
  return publish;
}

absl::StatusOr<ParsedStreamRequest> ParseStreamRequest(const grpc::ByteBuffer& bytes,
                                                       std::string_view exchange,
                                                       const MessageRules& rules) {
  grpc::ByteBuffer buffer = bytes;
  grpc::ProtoBufferReader reader(&buffer);
  if (!reader.status().ok()) return MalformedRequest();
  CodedInputStream input(&reader);
  const auto bytes_total = static_cast<int64_t>(bytes.Length());
  ParsedStreamRequest parsed;
  while (const uint32_t tag = input.ReadTag()) {
    if (parsed.init || parsed.batch) {
      return MakeError(ErrorReason::kInvalidField, "a request carries one init or one batch");
    }
    if (tag == kStreamInit) {
      std::string init;
      if (!ReadString(&input, bytes_total, &init)) return MalformedRequest();
      if (!parsed.init.emplace().ParseFromString(init)) return MalformedRequest();
      if (auto status = RefuseUnknownFields(*parsed.init); !status.ok()) return status;
    } else if (tag == kStreamBatch) {
      auto status = ReadBatch(&input, bytes_total, exchange, rules, &parsed.batch.emplace());
      if (!status.ok()) return status;
    } else {
      return UnknownField(tag);
    }
  }
  if (!input.ConsumedEntireMessage()) return MalformedRequest();
  if (!parsed.init && !parsed.batch) {
    return MakeError(ErrorReason::kInvalidField, "neither init nor batch is set");
  }
  return parsed;
}

}  // namespace sluice::api
