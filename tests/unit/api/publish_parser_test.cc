#include "server/api/publish_parser.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "server/model/error.h"
#include "server/model/limits.h"
#include "server/model/server_fields.h"

namespace sluice::api {
namespace {

constexpr int64_t kBodyMax = 64;

// Cut into slices of `slice_bytes`, as HTTP/2 frames cut requests.
grpc::ByteBuffer Buffer(const std::string& bytes, size_t slice_bytes = SIZE_MAX) {
  std::vector<grpc::Slice> slices;
  for (size_t at = 0; at < bytes.size(); at += std::min(slice_bytes, bytes.size())) {
    slices.emplace_back(bytes.substr(at, slice_bytes));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

v1::PublishRequest Request() {
  v1::PublishRequest request;
  request.set_queue("work");
  return request;
}

absl::StatusOr<ParsedPublish> Parse(const v1::PublishRequest& request,
                                    size_t slice_bytes = SIZE_MAX) {
  return ParsePublishRequest(Buffer(request.SerializeAsString(), slice_bytes), kBodyMax);
}

absl::Status StatusOf(const v1::Message& message) {
  auto request = Request();
  *request.add_messages() = message;
  return Parse(request).status();
}

v1::Message Stored(const broker::NewMessage& message) {
  v1::Message stored;
  EXPECT_TRUE(stored.ParseFromArray(
      message.payload.data(), static_cast<int>(message.payload.size() - kServerFieldsBytes)));
  return stored;
}

v1::Message FullMessage() {
  v1::Message message;
  message.set_body("body");
  (*message.mutable_attributes())["k\xc3\xa4y"] = "value";
  message.set_routing_key("a.b");
  message.set_content_type("text/plain");
  message.set_priority(4);
  message.set_correlation_id("c");
  message.set_reply_to("answers");
  return message;
}

TEST(PublishParserTest, KeepsEveryFieldHoweverTheBytesAreCut) {
  auto request = Request();
  *request.add_messages() = FullMessage();
  request.add_messages();
  for (size_t slice_bytes : {size_t{1}, size_t{2}, size_t{7}, SIZE_MAX}) {
    auto parsed = Parse(request, slice_bytes);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->queue, "work");
    ASSERT_EQ(parsed->messages.size(), 2u);
    EXPECT_EQ(Stored(parsed->messages[0]).SerializeAsString(), FullMessage().SerializeAsString());
    EXPECT_EQ(parsed->messages[1].payload.size(), kServerFieldsBytes);
  }
}

TEST(PublishParserTest, ForwardedMessageLosesOnlyWhatTheServerSets) {
  v1::Message forwarded = FullMessage();
  forwarded.set_id("someone-elses");
  forwarded.mutable_publish_time()->set_seconds(1'700'000'000);
  forwarded.set_exchange("old");
  auto request = Request();
  *request.add_messages() = forwarded;
  auto parsed = Parse(request);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const auto& payload = parsed->messages[0].payload;
  EXPECT_EQ(payload.size(), FullMessage().ByteSizeLong() + kServerFieldsBytes);
  EXPECT_EQ(Stored(parsed->messages[0]).SerializeAsString(), FullMessage().SerializeAsString());
}

TEST(PublishParserTest, ServerFieldsAppendedToThePayloadMakeAWholeMessage) {
  auto request = Request();
  *request.add_messages() = FullMessage();
  auto parsed = Parse(request);
  ASSERT_TRUE(parsed.ok());
  Payload payload = parsed->messages[0].payload;
  WriteServerFields({0, 1, 5, 9}, 1'700'000'000'123,
                    payload.mutable_data() + payload.size() - kServerFieldsBytes);
  v1::Message message;
  ASSERT_TRUE(message.ParseFromArray(payload.data(), static_cast<int>(payload.size())));
  EXPECT_EQ(message.id(), FormatMessageId({0, 1, 5, 9}));
  EXPECT_EQ(message.body(), "body");
}

TEST(PublishParserTest, BodyMayBeAsLargeAsTheLimitAndNotOneByteLarger) {
  v1::Message message;
  message.set_body(std::string(kBodyMax, 'x'));
  EXPECT_TRUE(StatusOf(message).ok());
  message.set_body(std::string(kBodyMax + 1, 'x'));
  EXPECT_EQ(ReasonOf(StatusOf(message)), ErrorReason::kMessageTooLarge);
  EXPECT_EQ(FieldOf(StatusOf(message)), "messages[0].body");
}

TEST(PublishParserTest, RepeatedFieldsCountThoughTheLastWins) {
  const auto with_bodies = [](int count) {
    const std::string body = std::string("\x0a") + static_cast<char>(kBodyMax) +
                             std::string(kBodyMax, 'x');
    std::string message;
    for (int i = 0; i < count; ++i) message += body;
    std::string request = "\x0a\x01" "q\x1a";
    for (size_t left = message.size(); ; left >>= 7) {
      request += static_cast<char>(left < 0x80 ? left : (left & 0x7f) | 0x80);
      if (left < 0x80) break;
    }
    return ParsePublishRequest(Buffer(request + message), kBodyMax).status();
  };
  const int fits = static_cast<int>((kBodyMax + kEnvelopeBytesMax) / (kBodyMax + 2));
  EXPECT_TRUE(with_bodies(fits).ok());
  EXPECT_EQ(ReasonOf(with_bodies(fits + 1)), ErrorReason::kMessageTooLarge);
  EXPECT_EQ(FieldOf(with_bodies(fits + 1)), "messages[0]");
}

TEST(PublishParserTest, AttributesAreLimitedInNumberAndSize) {
  v1::Message message;
  for (int i = 0; i < kAttributesMax; ++i) (*message.mutable_attributes())[absl::StrCat(i)] = "";
  EXPECT_TRUE(StatusOf(message).ok());
  (*message.mutable_attributes())["one more"] = "";
  EXPECT_EQ(FieldOf(StatusOf(message)), "messages[0].attributes");
  message.clear_attributes();
  (*message.mutable_attributes())["k"] = std::string(kAttributesBytesMax - 1, 'v');
  EXPECT_TRUE(StatusOf(message).ok());
  (*message.mutable_attributes())["k"] += "v";
  EXPECT_EQ(FieldOf(StatusOf(message)), "messages[0].attributes");
}

TEST(PublishParserTest, ShortStringsAreLimitedTo255Bytes) {
  v1::Message message;
  message.set_routing_key(std::string(kShortStringBytesMax, 'r'));
  EXPECT_TRUE(StatusOf(message).ok());
  message.set_routing_key(std::string(kShortStringBytesMax + 1, 'r'));
  EXPECT_EQ(FieldOf(StatusOf(message)), "messages[0].routing_key");
}

TEST(PublishParserTest, BatchHoldsOneToOneThousandMessages) {
  auto request = Request();
  EXPECT_EQ(FieldOf(Parse(request).status()), "messages");
  for (int i = 0; i < kMessagesPerPublishMax; ++i) request.add_messages();
  EXPECT_TRUE(Parse(request).ok());
  request.add_messages();
  EXPECT_EQ(ReasonOf(Parse(request).status()), ErrorReason::kBatchTooLarge);
}

TEST(PublishParserTest, PriorityIsCheckedBeforeItIsRefused) {
  v1::Message message;
  for (int priority : {-1, 10, INT32_MIN, INT32_MAX}) {
    message.set_priority(priority);
    EXPECT_EQ(StatusOf(message).code(), absl::StatusCode::kInvalidArgument) << priority;
  }
  for (int priority : {0, 9}) {
    message.set_priority(priority);
    EXPECT_EQ(StatusOf(message).code(), absl::StatusCode::kUnimplemented) << priority;
  }
}

TEST(PublishParserTest, FieldsOfLaterFeaturesAreRefusedByName) {
  const auto refused = [](auto set, const char* field) {
    v1::Message message;
    set(&message);
    const auto status = StatusOf(message);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << field;
    EXPECT_EQ(FieldOf(status), absl::StrCat("messages[0].", field));
  };
  refused([](v1::Message* m) { m->set_group("g"); }, "group");
  refused([](v1::Message* m) { m->mutable_delay(); }, "delay");
  refused([](v1::Message* m) { m->mutable_deliver_at(); }, "deliver_at");
  refused([](v1::Message* m) { m->mutable_ttl(); }, "ttl");
  refused([](v1::Message* m) { m->set_dedup_id("d"); }, "dedup_id");
  auto request = Request();
  request.add_messages();
  request.set_mandatory(true);
  EXPECT_EQ(FieldOf(Parse(request).status()), "mandatory");
  request.set_mandatory(false);
  request.mutable_wait_when_full();
  EXPECT_EQ(FieldOf(Parse(request).status()), "wait_when_full");
  request.clear_wait_when_full();
  request.set_exchange("x");
  EXPECT_EQ(FieldOf(Parse(request).status()), "exchange");
}

TEST(PublishParserTest, StringsMustBeUtf8AndBodiesNeedNot) {
  // By hand: protobuf itself would not send it.
  const auto with = [](char tag, const std::string& value) {
    const std::string message = std::string(1, tag) + static_cast<char>(value.size()) + value;
    return ParsePublishRequest(Buffer("\x0a\x01" "q\x1a" +
                                      std::string(1, static_cast<char>(message.size())) + message),
                               kBodyMax)
        .status();
  };
  for (const std::string bad : {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    EXPECT_EQ(FieldOf(with(0x1a, bad)), "messages[0].routing_key");
    EXPECT_TRUE(with(0x0a, bad).ok());
  }
  EXPECT_TRUE(with(0x1a, "\xe2\x82\xac \xf0\x9f\x98\x80").ok());
}

TEST(PublishParserTest, CutAndGarbledRequestsAreRefusedAndNeverReadBeyond) {
  auto request = Request();
  *request.add_messages() = FullMessage();
  *request.add_messages() = FullMessage();
  const std::string bytes = request.SerializeAsString();
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    const auto parsed = ParsePublishRequest(Buffer(bytes.substr(0, cut), 3), kBodyMax);
    // A cut between two messages is a shorter, valid request.
    if (parsed.ok()) {
      EXPECT_EQ(parsed->messages.size(), 1u) << cut;
    }
    for (const char garbage : {'\0', '\x7f', '\xff'}) {
      std::string garbled = bytes;
      garbled[cut] = garbage;
      (void)ParsePublishRequest(Buffer(garbled, 3), kBodyMax);
      garbled = bytes.substr(0, cut) + std::string(12, garbage);
      (void)ParsePublishRequest(Buffer(garbled), kBodyMax);
    }
  }
  // A message that claims 4 GiB costs nothing.
  EXPECT_FALSE(ParsePublishRequest(Buffer("\x0a\x01" "q\x1a\xff\xff\xff\xff\x0f"), kBodyMax).ok());
}

TEST(PublishParserTest, UnknownFieldsAreRefused) {
  std::string bytes = Request().SerializeAsString();
  bytes += std::string("\x1a\x00", 2);
  ASSERT_TRUE(ParsePublishRequest(Buffer(bytes), kBodyMax).ok());
  EXPECT_EQ(ParsePublishRequest(Buffer(bytes + std::string("\x7a\x00", 2)), kBodyMax)
                .status()
                .code(),
            absl::StatusCode::kUnimplemented);
}

TEST(StreamRequestTest, BatchKeepsItsCountAlsoWhereOneMessageIsRefused) {
  v1::PublishStreamRequest request;
  auto* batch = request.mutable_batch();
  batch->set_first_sequence(8);
  batch->add_messages()->set_body("fine");
  batch->add_messages()->set_body(std::string(kBodyMax + 1, 'x'));
  batch->add_messages()->set_body("fine");
  auto parsed = ParseStreamRequest(Buffer(request.SerializeAsString(), 5), kBodyMax);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_TRUE(parsed->batch.has_value());
  EXPECT_EQ(parsed->batch->first_sequence, 8);
  EXPECT_EQ(parsed->batch->message_count, 3);
  EXPECT_TRUE(parsed->batch->messages.empty());
  EXPECT_EQ(FieldOf(parsed->batch->status), "messages[1].body");
}

TEST(StreamRequestTest, TakesOneInitOrOneBatch) {
  v1::PublishStreamRequest init;
  init.mutable_init()->set_queue("work");
  v1::PublishStreamRequest batch;
  batch.mutable_batch()->add_messages();
  auto parsed = ParseStreamRequest(Buffer(init.SerializeAsString()), kBodyMax);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->init->queue(), "work");
  EXPECT_TRUE(ParseStreamRequest(Buffer(batch.SerializeAsString()), kBodyMax).ok());
  EXPECT_FALSE(ParseStreamRequest(Buffer(""), kBodyMax).ok());
  EXPECT_FALSE(ParseStreamRequest(
                   Buffer(init.SerializeAsString() + batch.SerializeAsString()), kBodyMax)
                   .ok());
}

}  // namespace
}  // namespace sluice::api
