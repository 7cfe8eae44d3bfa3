#include "server/api/not_built.h"

#include <gtest/gtest.h>

#include "server/api/queue_codec.h"
#include "server/model/error.h"

namespace sluice::api {
namespace {

// Each line of a test goes with its line in not_built.cc.
class NotBuiltTest : public testing::Test {
 protected:
  static void Refused(const absl::Status& status, std::string_view field) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << field;
    EXPECT_EQ(FieldOf(status), field);
  }

  const ReceiptCodec codec_{ReceiptCodec::Key{1}};
  const KeyedHash hash_{KeyedHash::Key{2}};
  ApiContext api_{ServerOptions{}, nullptr, codec_, hash_, Clock::System(), nullptr};
};

TEST_F(NotBuiltTest, MessagesThatNeedALaterFeatureNameIt) {
  std::vector<broker::NewMessage> messages(2);
  EXPECT_TRUE(RefuseNotBuilt(api_, messages).ok());
  auto& message = messages[1];
  message.priority = 5;
  Refused(RefuseNotBuilt(api_, messages), "messages[1].priority");
  message.priority = kPriorityDefault;
  const auto refused = [&](auto set, std::string_view field) {
    message.options = std::make_unique<broker::MessageOptions>();
    EXPECT_TRUE(RefuseNotBuilt(api_, messages).ok());
    set(message.options.get());
    Refused(RefuseNotBuilt(api_, messages), field);
  };
  refused([](auto* options) { options->group_hash = 1; }, "messages[1].group");
  refused([](auto* options) { options->delay_ms = 1; }, "messages[1].delay");
  refused([](auto* options) { options->deliver_at_ms = 1; }, "messages[1].deliver_at");
  refused([](auto* options) { options->ttl_ms = 1; }, "messages[1].ttl");
  refused([](auto* options) { options->dedup.emplace(); }, "messages[1].dedup_id");
}

TEST_F(NotBuiltTest, PublishesThatNeedALaterFeatureNameIt) {
  broker::Publish publish;
  EXPECT_TRUE(RefuseNotBuilt(api_, publish).ok());
  publish.wait_when_full_ms = 1;
  Refused(RefuseNotBuilt(api_, publish), "wait_when_full");
  publish.mandatory = true;
  Refused(RefuseNotBuilt(api_, publish), "mandatory");
  publish.exchange = "x";
  Refused(RefuseNotBuilt(api_, publish), "exchange");
}

TEST_F(NotBuiltTest, ConfigsMayRepeatTheirDefaults) {
  QueueConfig defaults;
  v1::QueueConfig shown;
  ToProto(defaults, &shown);
  EXPECT_TRUE(RefuseNotBuilt(api_, *ToConfigChange(shown), "config").ok());
  shown.set_max_length(1);
  Refused(RefuseNotBuilt(api_, *ToConfigChange(shown), "config"), "config.max_length");
}

}  // namespace
}  // namespace sluice::api
