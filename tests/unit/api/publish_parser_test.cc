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

constexpr int64_t kNowMs = 1'700'000'000'000;
class StoppedClock : public Clock {
 public:
  int64_t MonotonicNs() override { return 0; }
  int64_t WallMs() override { return kNowMs; }
};
StoppedClock stopped_clock;
const KeyedHash kHash{KeyedHash::Key{5}};
const MessageRules kRules{kBodyMax, &kHash, &stopped_clock};

absl::StatusOr<broker::Publish> Parse(const v1::PublishRequest& request,
                                      size_t slice_bytes = SIZE_MAX) {
  return ParsePublishRequest(Buffer(request.SerializeAsString(), slice_bytes), kRules);
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
    return ParsePublishRequest(Buffer(request + message), kRules).status();
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

// The one message of a publish to a queue.
absl::StatusOr<broker::NewMessage> ParseOne(const v1::Message& message) {
  auto request = Request();
  *request.add_messages() = message;
  auto parsed = Parse(request);
  if (!parsed.ok()) return parsed.status();
  return std::move(parsed->messages[0]);
}

TEST(PublishParserTest, PriorityIsZeroToNineAndFourWhereItIsNotSet) {
  v1::Message message;
  EXPECT_EQ(ParseOne(message)->priority, 4);
  for (int priority : {0, 1, 9}) {
    message.set_priority(priority);
    EXPECT_EQ(ParseOne(message)->priority, priority);
  }
  for (int priority : {-1, 10, INT32_MIN, INT32_MAX}) {
    message.set_priority(priority);
    EXPECT_EQ(FieldOf(StatusOf(message)), "messages[0].priority") << priority;
  }
}

TEST(PublishParserTest, PlainMessagesCarryNoOptions) {
  EXPECT_EQ(ParseOne({})->options, nullptr);
  EXPECT_EQ(ParseOne(FullMessage())->options, nullptr);  // to a queue: nothing routes
}

TEST(PublishParserTest, GroupAndDedupIdAreHashedAndLimitedTo255Bytes) {
  v1::Message message;
  message.set_group(std::string(kShortStringBytesMax, 'g'));
  message.set_dedup_id(std::string(kShortStringBytesMax, 'd'));
  const auto parsed = ParseOne(message);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->options->group_hash, kHash.Group(message.group()));
  EXPECT_EQ(parsed->options->dedup, kHash.Wide(message.dedup_id()));
  EXPECT_EQ(Stored(*parsed).SerializeAsString(), message.SerializeAsString());
  message.mutable_group()->push_back('g');
  EXPECT_EQ(FieldOf(StatusOf(message)), "messages[0].group");
  message.clear_group();
  EXPECT_EQ(ParseOne(message)->options->group_hash, 0u);
  message.mutable_dedup_id()->push_back('d');
  EXPECT_EQ(FieldOf(StatusOf(message)), "messages[0].dedup_id");
}

TEST(PublishParserTest, DelayIsZeroToItsLimitAndRoundedUp) {
  v1::Message message;
  auto* const delay = message.mutable_delay();
  EXPECT_EQ(ParseOne(message)->options->delay_ms, 0);
  delay->set_nanos(1);
  EXPECT_EQ(ParseOne(message)->options->delay_ms, 1);
  delay->set_nanos(0);
  delay->set_seconds(kDelayMsMax / 1000);
  EXPECT_EQ(ParseOne(message)->options->delay_ms, kDelayMsMax);
  delay->set_nanos(1);
  EXPECT_EQ(FieldOf(StatusOf(message)), "messages[0].delay");
  for (const int64_t seconds : {int64_t{-1}, INT64_MIN, INT64_MAX}) {
    delay->set_nanos(0);
    delay->set_seconds(seconds);
    EXPECT_EQ(FieldOf(StatusOf(message)), "messages[0].delay") << seconds;
  }
}

TEST(PublishParserTest, DeliverAtMayHavePassedAndIsAtMostItsLimitAhead) {
  v1::Message message;
  auto* const time = message.mutable_deliver_at();
  const auto at = [&](int64_t ms) {
    time->set_seconds(ms / 1000);
    time->set_nanos(static_cast<int32_t>(ms % 1000) * 1'000'000);
    return ParseOne(message);
  };
  EXPECT_EQ(at(kNowMs - 1)->options->deliver_at_ms, kNowMs - 1);
  EXPECT_EQ(at(1)->options->deliver_at_ms, 1);
  EXPECT_EQ(at(kNowMs + kDelayMsMax)->options->deliver_at_ms, kNowMs + kDelayMsMax);
  EXPECT_EQ(FieldOf(at(kNowMs + kDelayMsMax + 1).status()), "messages[0].deliver_at");
  time->set_seconds(-1);
  time->set_nanos(0);
  EXPECT_EQ(ParseOne(message)->options->deliver_at_ms, 0);  // at once
  for (const auto& [seconds, nanos] : std::initializer_list<std::pair<int64_t, int32_t>>{
           {0, -1}, {0, 1'000'000'000}, {INT64_MAX, 0}, {INT64_MIN, 0}}) {
    time->set_seconds(seconds);
    time->set_nanos(nanos);
    EXPECT_EQ(FieldOf(StatusOf(message)), "messages[0].deliver_at") << seconds << " " << nanos;
  }
}

TEST(PublishParserTest, DelayAndDeliverAtTogetherAreRefused) {
  // Only by hand: a oneof sends one of them.
  v1::Message delayed, dated;
  delayed.mutable_delay();
  dated.mutable_deliver_at();
  const std::string message = delayed.SerializeAsString() + dated.SerializeAsString();
  const std::string request = "\x0a\x01q\x1a" +
                              std::string(1, static_cast<char>(message.size())) + message;
  EXPECT_EQ(FieldOf(ParsePublishRequest(Buffer(request), kRules).status()),
            "messages[0].deliver_at");
}

TEST(PublishParserTest, TtlIsZeroToItsLimit) {
  v1::Message message;
  message.mutable_ttl();
  EXPECT_EQ(ParseOne(message)->options->ttl_ms, 0);
  message.mutable_ttl()->set_seconds(kTtlMsMax / 1000);
  EXPECT_EQ(ParseOne(message)->options->ttl_ms, kTtlMsMax);
  message.mutable_ttl()->set_nanos(1);
  EXPECT_EQ(FieldOf(StatusOf(message)), "messages[0].ttl");
  message.mutable_ttl()->set_nanos(0);
  message.mutable_ttl()->set_seconds(-1);
  EXPECT_EQ(FieldOf(StatusOf(message)), "messages[0].ttl");
}

TEST(PublishParserTest, PublishToAnExchangeCarriesWhatRoutesItAndNamesTheExchange) {
  v1::PublishRequest request;
  request.set_exchange("events");
  *request.add_messages() = FullMessage();
  request.mutable_messages(0)->set_exchange("an older one");
  request.add_messages()->set_body("nothing to route by");
  request.set_mandatory(true);
  request.mutable_wait_when_full()->set_seconds(300);
  v1::PublishRequest target;
  target.set_exchange("events");
  v1::PublishRequest rest = request;
  rest.clear_target();
  // Where the target stands must not matter.
  for (const std::string& bytes : {request.SerializeAsString(),
                                   rest.SerializeAsString() + target.SerializeAsString()}) {
    auto parsed = ParsePublishRequest(Buffer(bytes, 3), kRules);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->exchange, "events");
    EXPECT_EQ(parsed->queue, "");
    EXPECT_TRUE(parsed->mandatory);
    EXPECT_EQ(parsed->wait_when_full_ms, kWaitWhenFullMsMax);
    ASSERT_EQ(parsed->messages.size(), 2u);
    v1::Message expected = FullMessage();
    expected.set_exchange("events");
    EXPECT_EQ(Stored(parsed->messages[0]).SerializeAsString(), expected.SerializeAsString());
    EXPECT_EQ(Stored(parsed->messages[1]).exchange(), "events");
    const auto& options = *parsed->messages[0].options;
    EXPECT_EQ(options.routing_key, "a.b");
    ASSERT_EQ(options.attributes.size(), 1u);
    EXPECT_EQ(options.attributes[0], std::make_pair(std::string("k\xc3\xa4y"), std::string("value")));
    EXPECT_EQ(parsed->messages[1].options, nullptr);
  }
}

TEST(PublishParserTest, TheLastTargetCounts) {
  v1::PublishRequest request;
  request.set_exchange("events");
  *request.add_messages() = FullMessage();
  v1::PublishRequest queue;
  queue.set_queue("work");
  auto parsed = ParsePublishRequest(
      Buffer(request.SerializeAsString() + queue.SerializeAsString()), kRules);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->queue, "work");
  EXPECT_EQ(parsed->exchange, "");
  EXPECT_EQ(parsed->messages[0].options, nullptr);
  EXPECT_EQ(Stored(parsed->messages[0]).SerializeAsString(), FullMessage().SerializeAsString());
}

TEST(PublishParserTest, AttributeThatComesTwiceRoutesByItsLastValue) {
  v1::Message first, second;
  (*first.mutable_attributes())["k"] = "first";
  (*second.mutable_attributes())["k"] = "second";
  const std::string message = first.SerializeAsString() + second.SerializeAsString();
  const std::string bytes = "\x12\x01x\x1a" +
                            std::string(1, static_cast<char>(message.size())) + message;
  const auto parsed = ParsePublishRequest(Buffer(bytes), kRules);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->messages[0].options->attributes.size(), 1u);
  EXPECT_EQ(parsed->messages[0].options->attributes[0].second, "second");
}

TEST(PublishParserTest, WaitWhenFullIsLimited) {
  auto request = Request();
  request.add_messages();
  request.mutable_wait_when_full()->set_seconds(kWaitWhenFullMsMax / 1000);
  EXPECT_EQ(Parse(request)->wait_when_full_ms, kWaitWhenFullMsMax);
  request.mutable_wait_when_full()->set_nanos(1);
  EXPECT_EQ(FieldOf(Parse(request).status()), "wait_when_full");
  request.mutable_wait_when_full()->set_nanos(-1);
  EXPECT_EQ(FieldOf(Parse(request).status()), "wait_when_full");
}

TEST(PublishParserTest, NamesOfTargetsAreChecked) {
  v1::PublishRequest request;
  request.add_messages();
  EXPECT_EQ(FieldOf(Parse(request).status()), "queue");
  request.set_exchange(std::string(kNameBytesMax, 'x'));
  EXPECT_TRUE(Parse(request).ok());
  request.set_exchange(std::string(kNameBytesMax + 1, 'x'));
  EXPECT_EQ(FieldOf(Parse(request).status()), "exchange");
  request.set_queue("no spaces");
  EXPECT_EQ(FieldOf(Parse(request).status()), "queue");
}

TEST(PublishParserTest, StringsMustBeUtf8AndBodiesNeedNot) {
  // By hand: protobuf itself would not send it.
  const auto with = [](char tag, const std::string& value) {
    const std::string message = std::string(1, tag) + static_cast<char>(value.size()) + value;
    return ParsePublishRequest(Buffer("\x0a\x01" "q\x1a" +
                                      std::string(1, static_cast<char>(message.size())) + message),
                               kRules)
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
    const auto parsed = ParsePublishRequest(Buffer(bytes.substr(0, cut), 3), kRules);
    // A cut between two messages is a shorter, valid request.
    if (parsed.ok()) {
      EXPECT_EQ(parsed->messages.size(), 1u) << cut;
    }
    for (const char garbage : {'\0', '\x7f', '\xff'}) {
      std::string garbled = bytes;
      garbled[cut] = garbage;
      (void)ParsePublishRequest(Buffer(garbled, 3), kRules);
      garbled = bytes.substr(0, cut) + std::string(12, garbage);
      (void)ParsePublishRequest(Buffer(garbled), kRules);
    }
  }
  // A message that claims 4 GiB costs nothing.
  EXPECT_FALSE(ParsePublishRequest(Buffer("\x0a\x01" "q\x1a\xff\xff\xff\xff\x0f"), kRules).ok());
}

TEST(PublishParserTest, UnknownFieldsAreRefused) {
  std::string bytes = Request().SerializeAsString();
  bytes += std::string("\x1a\x00", 2);
  ASSERT_TRUE(ParsePublishRequest(Buffer(bytes), kRules).ok());
  EXPECT_EQ(ParsePublishRequest(Buffer(bytes + std::string("\x7a\x00", 2)), kRules)
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
  auto parsed = ParseStreamRequest(Buffer(request.SerializeAsString(), 5), {}, kRules);
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
  auto parsed = ParseStreamRequest(Buffer(init.SerializeAsString()), {}, kRules);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->init->queue(), "work");
  EXPECT_TRUE(ParseStreamRequest(Buffer(batch.SerializeAsString()), {}, kRules).ok());
  EXPECT_FALSE(ParseStreamRequest(Buffer(""), {}, kRules).ok());
  EXPECT_FALSE(ParseStreamRequest(
                   Buffer(init.SerializeAsString() + batch.SerializeAsString()), {}, kRules)
                   .ok());
}

// What is stored goes to consumers in all languages as it came.
TEST(PublishParserTest, TagsAndLengthsThatParsersRefuseAreMalformed) {
  const auto with = [](const std::string& message) {
    return ParsePublishRequest(Buffer("\x0a\x01q\x1a" + std::string(1, static_cast<char>(message.size())) +
                                      message),
                               kRules)
        .status();
  };
  using std::string;
  EXPECT_TRUE(with(string("\x8a\x80\x80\x80\x00\x01" "a", 7)).ok()) << "a tag of five bytes is";
  for (const string& bad : {
           string("\x8a\x80\x80\x80\x80\x00\x01" "a", 8),                  // a tag of six
           string("\x8a\x80\x80\x80\x80\x80\x80\x80\x80\x00\x01" "a", 12),  // of ten
           string("\x0a\x81\x80\x80\x80\x80\x00" "a", 8),                  // a length of six
           string("\x3a\x08\x88\x80\x80\x80\x80\x00\x01\x00", 10),        // within delay
           string("\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11),   // more than 64 bits
       }) {
    const absl::Status status = with(bad);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.size() << " " << status;
  }
}

}  // namespace
}  // namespace sluice::api
