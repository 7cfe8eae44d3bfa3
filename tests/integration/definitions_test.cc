// Definitions: everything that is configured as one document, at start and while it runs.
#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/integration/feature_fixture.h"
#include "tests/support/command.h"

namespace sluice::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr grpc::StatusCode kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
constexpr grpc::StatusCode kPrecondition = grpc::StatusCode::FAILED_PRECONDITION;

class DefinitionsTest : public FeatureTest {
 protected:
  // A queue with its dead letters, an exchange and a binding.
  static v1::Definitions Shop() {
    v1::Definitions definitions;
    v1::QueueConfig& orders = *definitions.add_queues();
    orders.set_name("orders");
    orders.set_dead_letter_queue("orders.dead");  // which comes after it
    orders.mutable_retry()->set_max_attempts(3);
    definitions.add_queues()->set_name("orders.dead");
    v1::Exchange& events = *definitions.add_exchanges();
    events.set_name("events");
    events.set_type(v1::EXCHANGE_TYPE_TOPIC);
    v1::Binding& binding = *definitions.add_bindings();
    binding.set_exchange("events");
    binding.set_queue("orders");
    binding.set_binding_key("order.#");
    return definitions;
  }
  grpc::Status TryApply(const v1::Definitions& definitions, bool dry_run, bool prune,
                        std::vector<std::string>* changes = nullptr) {
    v1::ApplyDefinitionsRequest request;
    *request.mutable_definitions() = definitions;
    request.set_dry_run(dry_run);
    request.set_prune(prune);
    v1::ApplyDefinitionsResponse response;
    const grpc::Status status =
        CallAdmin(&AdminService::Stub::ApplyDefinitions, request, &response);
    for (const v1::DefinitionChange& change : response.changes()) {
      if (!changes || change.action() == v1::CHANGE_ACTION_NONE) continue;
      changes->push_back(absl::StrCat(v1::ChangeAction_Name(change.action()).substr(14), " ",
                                      change.resource()));
      for (const std::string& difference : change.differences()) changes->push_back(difference);
    }
    return status;
  }
  // What was done, without what is as it should be.
  std::vector<std::string> Apply(const v1::Definitions& definitions, bool dry_run = false,
                                 bool prune = false) {
    std::vector<std::string> changes;
    EXPECT_THAT(TryApply(definitions, dry_run, prune, &changes), IsOk());
    return changes;
  }
  v1::Definitions Export() {
    v1::ExportDefinitionsResponse response;
    EXPECT_THAT(CallAdmin(&AdminService::Stub::ExportDefinitions, v1::ExportDefinitionsRequest(),
                          &response),
                IsOk());
    return response.definitions();
  }
  std::string WriteFile(const std::string& text) {
    const std::string path = dir_.path() + "/definitions.yaml";
    std::ofstream(path) << text;
    return path;
  }

  TempDir dir_;
};

TEST_F(DefinitionsTest, MakesWhatIsMissingOnceAndForGood) {
  EXPECT_THAT(Apply(Shop(), /*dry_run=*/true),
              ElementsAre("CREATE queue orders", "CREATE queue orders.dead",
                          "CREATE exchange events", "CREATE binding events -> orders"));
  EXPECT_EQ(Export().ByteSizeLong(), 0u) << "a dry run does nothing";
  EXPECT_EQ(Apply(Shop()).size(), 4u);
  EXPECT_THAT(Apply(Shop()), IsEmpty());
  KillAndRestart();
  EXPECT_THAT(Apply(Shop()), IsEmpty());
  EXPECT_EQ(Get("orders").config().retry().max_attempts(), 3);
}

TEST_F(DefinitionsTest, SaysWhatDiffersAndLeavesWhatIsNotSet) {
  Apply(Shop());
  v1::Definitions definitions;
  v1::QueueConfig& orders = *definitions.add_queues();
  orders.set_name("orders");
  orders.set_max_length(7);
  EXPECT_THAT(Apply(definitions), ElementsAre("UPDATE queue orders", HasSubstr("max_length")));
  EXPECT_EQ(Get("orders").config().max_length(), 7);
  EXPECT_EQ(Get("orders").config().retry().max_attempts(), 3);
}

TEST_F(DefinitionsTest, AnExportAppliesElsewhereAndAgreesWithWhatItCameFrom) {
  Apply(Shop());
  v1::QueueConfig paced = QueueNamed("paced");
  paced.mutable_delivery_rate()->set_per_second(2.5);
  paced.set_overflow(v1::OVERFLOW_DROP_HEAD);
  (*paced.mutable_labels())["team"] = "blue";
  Create(paced);
  v1::SubscribeRequest temporary;
  temporary.mutable_temporary_queue()->add_bindings()->set_exchange("events");
  Subscription replies(*client_, temporary);
  const v1::Definitions exported = Export();
  EXPECT_EQ(exported.queues_size(), 3) << "temporary queues are their streams'";
  EXPECT_EQ(exported.bindings_size(), 1);
  EXPECT_THAT(Apply(exported, false, /*prune=*/true), IsEmpty());

  ServerProcess other;
  ASSERT_TRUE(other.Start().ok());
  Client client(other.address());
  v1::ApplyDefinitionsRequest request;
  *request.mutable_definitions() = exported;
  v1::ApplyDefinitionsResponse response;
  ASSERT_THAT(Call(client.admin, &AdminService::Stub::ApplyDefinitions, request, &response),
              IsOk());
  v1::ExportDefinitionsResponse again;
  ASSERT_THAT(Call(client.admin, &AdminService::Stub::ExportDefinitions,
                   v1::ExportDefinitionsRequest(), &again),
              IsOk());
  EXPECT_EQ(again.definitions().SerializeAsString(), exported.SerializeAsString());
}

TEST_F(DefinitionsTest, PruneTakesWhatIsNotNamedUnlessItHoldsMessagesOrHasConsumers) {
  Apply(Shop());
  MakeQueue("spare");
  v1::Definitions only;
  only.add_queues()->set_name("orders.dead");
  Send("spare", MessageOf("m"));
  EXPECT_THAT(TryApply(only, false, true), FailsWith(kPrecondition, "NOT_EMPTY"));
  Drain("spare");
  {
    Subscription subscription(*client_, SubscribeTo("spare"));
    EXPECT_THAT(TryApply(only, false, true), FailsWith(kPrecondition, "IN_USE"));
  }
  ASSERT_TRUE(WaitUntil([&] { return Stats("spare").consumers() == 0; }));
  EXPECT_THAT(Apply(only, /*dry_run=*/true, /*prune=*/true), Contains("DELETE queue spare"));
  EXPECT_THAT(Apply(only, false, /*prune=*/true),
              ElementsAre("DELETE queue orders", "DELETE queue spare", "DELETE exchange events",
                          "DELETE binding events -> orders"));
  KillAndRestart();
  v1::Definitions left = Export();
  ASSERT_EQ(left.queues_size(), 1);
  EXPECT_EQ(left.queues(0).name(), "orders.dead");
  EXPECT_EQ(left.exchanges_size(), 0);
}

TEST_F(DefinitionsTest, OnePartThatCannotBeRefusesAll) {
  v1::Definitions definitions = Shop();
  definitions.mutable_bindings(0)->set_queue("nowhere");
  EXPECT_THAT(TryApply(definitions, false, false),
              FailsWithField(grpc::StatusCode::NOT_FOUND, "QUEUE_NOT_FOUND",
                             "definitions.bindings[0].queue"));
  definitions = Shop();
  *definitions.add_queues() = definitions.queues(0);
  EXPECT_THAT(TryApply(definitions, false, false),
              FailsWithField(kInvalid, "INVALID_FIELD", "definitions.queues[2].name"));
  definitions = Shop();
  definitions.mutable_queues(1)->set_dead_letter_queue("orders");
  EXPECT_EQ(TryApply(definitions, false, false).error_code(), kInvalid) << "a circle";
  EXPECT_EQ(Export().ByteSizeLong(), 0u);
  Apply(Shop());
  definitions = Shop();
  definitions.mutable_exchanges(0)->set_type(v1::EXCHANGE_TYPE_DIRECT);
  definitions.add_queues()->set_name("new");
  EXPECT_THAT(TryApply(definitions, false, false),
              FailsWithField(grpc::StatusCode::ALREADY_EXISTS, "CONFIG_CONFLICT",
                             "definitions.exchanges[0].type"));
  EXPECT_EQ(Export().queues_size(), 2);
}

TEST_F(DefinitionsTest, AFileIsAppliedAtEachStartAndWhatItDoesNotNameStays) {
  MakeQueue("by-hand");
  const std::string path = WriteFile("queues:\n  - {name: orders, ttl: 60s}\n");
  ASSERT_TRUE(server_.Terminate().ok());
  server_.set_flags({"--definitions", path});
  StartServer();
  EXPECT_EQ(Get("orders").config().ttl().seconds(), 60);
  Send("orders", MessageOf("m"));
  WriteFile("queues:\n  - {name: orders, maxLength: 5}\n");
  KillAndRestart();
  EXPECT_EQ(Get("orders").config().ttl().seconds(), 60) << "a field that is not set stays";
  EXPECT_EQ(Get("orders").config().max_length(), 5);
  EXPECT_THAT(Drain("orders"), ElementsAre("m"));
  EXPECT_EQ(Export().queues_size(), 2);
}

TEST_F(DefinitionsTest, TheFileOfAnExportIsWhatTheServerTakesAtStart) {
  Apply(Shop());
  const CommandResult exported = RunSluice(server_.address(), {"definitions", "export"});
  ASSERT_EQ(exported.exit_code, 0) << exported.err;
  ServerProcess other({"--definitions", WriteFile(exported.out)});
  ASSERT_TRUE(other.Start().ok());
  Client client(other.address());
  v1::ExportDefinitionsResponse response;
  ASSERT_THAT(Call(client.admin, &AdminService::Stub::ExportDefinitions,
                   v1::ExportDefinitionsRequest(), &response),
              IsOk());
  EXPECT_EQ(response.definitions().SerializeAsString(), Export().SerializeAsString());
}

TEST_F(DefinitionsTest, AStartThatCannotApplyItsFileIsRefusedInWords) {
  ASSERT_TRUE(server_.Terminate().ok());
  server_.set_flags({"--definitions", dir_.path() + "/missing.yaml"});
  EXPECT_THAT(std::string(server_.Start().message()), HasSubstr("missing.yaml"));
  server_.set_flags({"--definitions", WriteFile("queues:\n  - name: a\n    ttlx: 3s\n")});
  EXPECT_THAT(std::string(server_.Start().message()), HasSubstr("ttlx"));
  server_.set_flags(
      {"--definitions", WriteFile("queues:\n  - {name: a, deadLetterQueue: nowhere}\n")});
  EXPECT_THAT(std::string(server_.Start().message()), HasSubstr("nowhere"));
  server_.set_flags({});
  StartServer();
  EXPECT_EQ(Export().queues_size(), 0) << "nothing of a refused file is applied";
}

TEST_F(DefinitionsTest, ThousandsComeInOneDocument) {
  v1::Definitions definitions;
  for (int i = 0; i < 3000; ++i) {
    definitions.add_queues()->set_name(absl::StrCat("queue-", 10'000 + i));
  }
  EXPECT_EQ(Apply(definitions).size(), 3000u);
  EXPECT_EQ(Export().queues_size(), 3000);
  EXPECT_THAT(Apply(v1::Definitions(), false, /*prune=*/true).size(), 3000u);
}

}  // namespace
}  // namespace sluice::testing
