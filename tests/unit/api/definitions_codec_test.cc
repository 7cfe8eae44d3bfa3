#include "server/api/definitions_codec.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

v1::Definitions Small() {
  v1::Definitions definitions;
  definitions.add_queues()->set_name("orders");
  definitions.mutable_queues(0)->mutable_lease()->set_seconds(60);
  v1::Exchange* exchange = definitions.add_exchanges();
  exchange->set_name("events");
  exchange->set_type(v1::EXCHANGE_TYPE_FANOUT);
  v1::Binding* binding = definitions.add_bindings();
  binding->set_exchange("events");
  binding->set_queue("orders");
  return definitions;
}

std::string RefusedField(const v1::Definitions& definitions) {
  return FieldOf(ToDefinitions(definitions).status());
}

TEST(DefinitionsCodecTest, EachKindGoesThroughItsOwnChecks) {
  const auto definitions = ToDefinitions(Small());
  ASSERT_TRUE(definitions.ok()) << definitions.status();
  EXPECT_EQ(definitions->queues.at(0).lease_ms, 60'000);
  EXPECT_EQ(definitions->exchanges.at(0).type, ExchangeType::kFanout);
  EXPECT_EQ(definitions->bindings.at(0).queue, "orders");
}

TEST(DefinitionsCodecTest, RefusalsNameThePlaceInTheDocument) {
  v1::Definitions definitions = Small();
  definitions.add_queues()->set_name("mail");
  definitions.mutable_queues(1)->mutable_lease()->set_seconds(-1);
  EXPECT_EQ(RefusedField(definitions), "definitions.queues[1].lease");
  const absl::Status status = ToDefinitions(definitions).status();
  EXPECT_EQ(status.message(), "definitions.queues[1].lease: must not be negative");
  definitions.mutable_queues(1)->Clear();
  EXPECT_EQ(RefusedField(definitions), "definitions.queues[1].name");
  definitions.mutable_queues(1)->set_name("sluice.mine");
  EXPECT_EQ(RefusedField(definitions), "definitions.queues[1].name");

  definitions = Small();
  definitions.mutable_exchanges(0)->clear_type();
  EXPECT_EQ(RefusedField(definitions), "definitions.exchanges[0].type");
  definitions = Small();
  definitions.mutable_bindings(0)->clear_queue();
  EXPECT_EQ(RefusedField(definitions), "definitions.bindings[0].queue");
}

TEST(DefinitionsCodecTest, ANameComesOncePerKind) {
  v1::Definitions definitions = Small();
  definitions.mutable_exchanges(0)->set_name("orders");  // a queue may be called the same
  definitions.mutable_bindings(0)->set_exchange("orders");
  EXPECT_TRUE(ToDefinitions(definitions).ok());
  definitions.add_queues()->set_name("orders");
  EXPECT_EQ(RefusedField(definitions), "definitions.queues[1].name");
  definitions = Small();
  *definitions.add_exchanges() = definitions.exchanges(0);
  EXPECT_EQ(RefusedField(definitions), "definitions.exchanges[1].name");
}

TEST(DefinitionsCodecTest, ChangesBeyondOneAnswerLoseWhatStaysTheSameFirst) {
  using Action = broker::DefinitionChange::Action;
  std::vector<broker::DefinitionChange> changes;
  changes.push_back({"queue a", Action::kUpdate, {"lease: 30s -> 60s"}});
  changes.push_back({"queue b", Action::kNone, {}});
  v1::ApplyDefinitionsResponse small;
  ToProto(changes, &small);
  ASSERT_EQ(small.changes_size(), 2);
  EXPECT_EQ(small.changes(0).action(), v1::CHANGE_ACTION_UPDATE);
  EXPECT_EQ(small.changes(0).differences(0), "lease: 30s -> 60s");
  EXPECT_EQ(small.changes(1).action(), v1::CHANGE_ACTION_NONE);

  for (int i = 0; i < 20'000; ++i) {
    changes.push_back({absl::StrCat("queue ", std::string(200, 'x'), i), Action::kNone, {}});
  }
  changes.push_back({"queue z", Action::kCreate, {}});
  v1::ApplyDefinitionsResponse large;
  ToProto(changes, &large);
  ASSERT_EQ(large.changes_size(), 2);
  EXPECT_EQ(large.changes(1).resource(), "queue z");

  for (auto& change : changes) change.action = Action::kDelete;
  v1::ApplyDefinitionsResponse cut;
  ToProto(changes, &cut);
  EXPECT_GT(cut.changes_size(), 1000);
  EXPECT_LE(cut.ByteSizeLong(), static_cast<size_t>(kResponseBytesMax));
}

}  // namespace
}  // namespace sluice::api
