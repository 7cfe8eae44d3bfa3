#include "server/api/exchange_codec.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/message_differencer.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

using google::protobuf::util::MessageDifferencer;

v1::Exchange Topic() {
  v1::Exchange exchange;
  exchange.set_name("events");
  exchange.set_type(v1::EXCHANGE_TYPE_TOPIC);
  exchange.set_alternate_exchange("rest");
  (*exchange.mutable_labels())["team"] = "web";
  return exchange;
}

v1::Binding ToQueue() {
  v1::Binding binding;
  binding.set_exchange("events");
  binding.set_queue("orders");
  return binding;
}

std::string RefusedField(const v1::Exchange& exchange) {
  return FieldOf(ToExchangeChange("exchange", exchange).status());
}
std::string RefusedField(const v1::Binding& binding) {
  return FieldOf(ToBinding("bindings[2]", binding).status());
}

TEST(ExchangeCodecTest, OnlyWhatIsSetIsAChange) {
  const auto whole = ToExchangeChange("exchange", Topic());
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(whole->name, "events");
  EXPECT_EQ(whole->type, ExchangeType::kTopic);
  EXPECT_EQ(whole->alternate_exchange, "rest");
  EXPECT_EQ(whole->labels->at("team"), "web");
  v1::Exchange bare;
  bare.set_name("events");
  const auto change = ToExchangeChange("exchange", bare);
  ASSERT_TRUE(change.ok());
  EXPECT_FALSE(change->type || change->alternate_exchange || change->labels);
}

TEST(ExchangeCodecTest, RefusalsNameTheField) {
  v1::Exchange exchange = Topic();
  exchange.set_name("no spaces");
  EXPECT_EQ(RefusedField(exchange), "exchange.name");
  exchange = Topic();
  exchange.set_type(static_cast<v1::ExchangeType>(99));
  EXPECT_EQ(RefusedField(exchange), "exchange.type");
  exchange = Topic();
  exchange.set_alternate_exchange("?");
  EXPECT_EQ(RefusedField(exchange), "exchange.alternate_exchange");
  exchange = Topic();
  for (int i = 0; i < kLabelsMax; ++i) (*exchange.mutable_labels())[absl::StrCat(i)] = "";
  EXPECT_EQ(RefusedField(exchange), "exchange.labels");  // one more than fits
  exchange = Topic();
  (*exchange.mutable_labels())["team"] = std::string(kLabelsBytesMax, 'x');
  EXPECT_EQ(RefusedField(exchange), "exchange.labels");
}

TEST(ExchangeCodecTest, TheMaskDecidesWhatChanges) {
  const ExchangeChange given = *ToExchangeChange("exchange", Topic());
  bool replace = true;
  ExchangeChange change = given;
  google::protobuf::FieldMask mask;
  ASSERT_TRUE(ApplyMask(mask, &change, &replace).ok());
  EXPECT_FALSE(replace);
  EXPECT_TRUE(change.type && change.alternate_exchange && change.labels);

  mask.add_paths("labels");
  ASSERT_TRUE(ApplyMask(mask, &change, &replace).ok());
  EXPECT_FALSE(change.type || change.alternate_exchange);
  EXPECT_EQ(change.labels, given.labels);

  // Named and not set: back to the default.
  change = {};
  change.name = "events";
  mask.add_paths("alternate_exchange");
  ASSERT_TRUE(ApplyMask(mask, &change, &replace).ok());
  EXPECT_EQ(change.alternate_exchange, "");
  EXPECT_TRUE(change.labels && change.labels->empty());

  mask.clear_paths();
  mask.add_paths("*");
  ASSERT_TRUE(ApplyMask(mask, &change, &replace).ok());
  EXPECT_TRUE(replace);

  for (const char* path : {"type", "name", "colour"}) {
    mask.set_paths(0, path);
    EXPECT_EQ(FieldOf(ApplyMask(mask, &change, &replace)), "update_mask") << path;
  }
}

TEST(BindingCodecTest, ComesBackAsItWasWritten) {
  v1::Binding binding = ToQueue();
  binding.set_binding_key("order.#");
  v1::Binding again;
  ToProto(*ToBinding("binding", binding), &again);
  EXPECT_TRUE(MessageDifferencer::Equals(binding, again));

  binding.set_to_exchange("others");
  (*binding.mutable_headers())["shop"] = "north";
  binding.set_header_match(v1::HEADER_MATCH_ANY);
  again.Clear();
  ToProto(*ToBinding("binding", binding), &again);
  EXPECT_TRUE(MessageDifferencer::Equals(binding, again));
}

TEST(BindingCodecTest, UnspecifiedMatchIsAll) {
  EXPECT_EQ(ToBinding("binding", ToQueue())->header_match, HeaderMatch::kAll);
}

TEST(BindingCodecTest, RefusalsNameTheField) {
  v1::Binding binding = ToQueue();
  binding.clear_exchange();
  EXPECT_EQ(RefusedField(binding), "bindings[2].exchange");
  binding = ToQueue();
  binding.clear_queue();
  EXPECT_EQ(RefusedField(binding), "bindings[2].queue");
  binding.set_to_exchange("");
  EXPECT_EQ(RefusedField(binding), "bindings[2].to_exchange");
  binding = ToQueue();
  binding.set_binding_key(std::string(kShortStringBytesMax, 'x'));
  EXPECT_TRUE(ToBinding("binding", binding).ok());
  binding.set_binding_key(std::string(kShortStringBytesMax + 1, 'x'));
  EXPECT_EQ(RefusedField(binding), "bindings[2].binding_key");
  binding = ToQueue();
  for (int i = 0; i <= kBindingHeadersMax; ++i) (*binding.mutable_headers())[absl::StrCat(i)] = "";
  EXPECT_EQ(RefusedField(binding), "bindings[2].headers");
  binding = ToQueue();
  binding.set_header_match(static_cast<v1::HeaderMatch>(9));
  EXPECT_EQ(RefusedField(binding), "bindings[2].header_match");
}

TEST(BindingCodecTest, WhereTheRequestSaysTheDestinationItMustNot) {
  v1::Binding binding = ToQueue();
  EXPECT_FALSE(ToBinding("binding", binding, Destination::kForbidden).ok());
  binding.clear_queue();
  const auto bound = ToBinding("binding", binding, Destination::kForbidden);
  ASSERT_TRUE(bound.ok());
  EXPECT_TRUE(bound->queue.empty() && bound->to_exchange.empty());
}

}  // namespace
}  // namespace sluice::api
