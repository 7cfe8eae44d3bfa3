// Calls about queues, exchanges, bindings, consumers and definitions.
#include "server/model/error.h"
#include "tests/unit/api/calls_fixture.h"

namespace sluice::api {
namespace {

using AdminCallsTest = CallsTest;

TEST_F(AdminCallsTest, PauseAndResumeAreOneCommandEach) {
  v1::PauseQueueRequest pause;
  pause.set_queue("orders");
  auto paused = Call(&Admin::PauseQueue, pause);
  auto command = shard_.Take<broker::PauseQueueCommand>();
  EXPECT_EQ(command.queue, "orders");
  EXPECT_TRUE(command.paused);
  broker::QueueInfo info;
  info.config.name = "orders";
  command.done(info);
  const auto answer = paused.get();
  ASSERT_TRUE(answer.status.ok());
  EXPECT_EQ(answer.response.queue().config().name(), "orders");

  v1::ResumeQueueRequest resume;
  resume.set_queue("orders");
  auto resumed = Call(&Admin::ResumeQueue, resume);
  command = shard_.Take<broker::PauseQueueCommand>();
  EXPECT_FALSE(command.paused);
  command.done(MakeError(ErrorReason::kQueueNotFound, "gone"));
  EXPECT_EQ(resumed.get().status.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(AdminCallsTest, AnExchangeNeedsATypeAndANameOfItsOwn) {
  v1::CreateExchangeRequest request;
  request.mutable_exchange()->set_name("events");
  EXPECT_EQ(Refusal(&Admin::CreateExchange, request), grpc::StatusCode::INVALID_ARGUMENT);
  request.mutable_exchange()->set_type(v1::EXCHANGE_TYPE_DIRECT);
  request.mutable_exchange()->set_name("sluice.events");
  EXPECT_EQ(Refusal(&Admin::CreateExchange, request), grpc::StatusCode::INVALID_ARGUMENT);
  request.mutable_exchange()->set_name("events");
  auto created = Call(&Admin::CreateExchange, request);
  auto command = shard_.Take<broker::CreateExchangeCommand>();
  EXPECT_EQ(command.exchange.type, ExchangeType::kDirect);
  command.done(broker::CreateExchangeCommand::Outcome{{"events", ExchangeType::kDirect, "", {}},
                                                      true});
  const auto answer = created.get();
  ASSERT_TRUE(answer.status.ok());
  EXPECT_TRUE(answer.response.created());
  EXPECT_EQ(answer.response.exchange().type(), v1::EXCHANGE_TYPE_DIRECT);
}

TEST_F(AdminCallsTest, ExchangesComeInPagesThatFit) {
  v1::ListExchangesRequest request;
  request.set_name_glob("e*");
  auto first = Call(&Admin::ListExchanges, request);
  auto command = shard_.Take<broker::ListExchangesCommand>();
  EXPECT_EQ(command.name_glob, "e*");
  EXPECT_EQ(command.after_name, "");
  broker::ListExchangesCommand::Outcome outcome;
  for (int i = 100; i < 500; ++i) {  // each 16 KiB of labels: 6 MiB in all
    outcome.exchanges.push_back({absl::StrCat("e", i), ExchangeType::kFanout, "",
                                 {{"k", std::string(16'000, 'x')}}});
  }
  command.done(outcome);
  auto page = first.get();
  ASSERT_TRUE(page.status.ok());
  EXPECT_LE(page.response.ByteSizeLong(), static_cast<size_t>(kResponseBytesMax));
  ASSERT_GT(page.response.exchanges_size(), 100);
  ASSERT_FALSE(page.response.next_page_token().empty());

  request.set_page_token(page.response.next_page_token());
  auto second = Call(&Admin::ListExchanges, request);
  command = shard_.Take<broker::ListExchangesCommand>();
  EXPECT_EQ(command.after_name,
            page.response.exchanges(page.response.exchanges_size() - 1).name());
  command.done(broker::ListExchangesCommand::Outcome{});
  EXPECT_TRUE(second.get().response.next_page_token().empty());

  request.set_name_glob("other");
  EXPECT_EQ(Refusal(&Admin::ListExchanges, request), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(AdminCallsTest, BindingsGoOnAtTheShardsCursorHoweverLong) {
  const std::string cursor(32 * 1024, '\xff');
  v1::ListBindingsRequest request;
  request.set_exchange("events");
  request.set_page_size(1000);
  auto first = Call(&Admin::ListBindings, request);
  auto command = shard_.Take<broker::ListBindingsCommand>();
  EXPECT_EQ(command.exchange, "events");
  EXPECT_LT(command.limit, 200);  // so many fit whatever their headers
  command.done(broker::ListBindingsCommand::Outcome{{{"events", "orders", "", "k", {}}}, cursor});
  const auto page = first.get();
  ASSERT_TRUE(page.status.ok());
  EXPECT_EQ(page.response.bindings(0).queue(), "orders");
  request.set_page_token(page.response.next_page_token());
  auto second = Call(&Admin::ListBindings, request);
  command = shard_.Take<broker::ListBindingsCommand>();
  EXPECT_EQ(command.cursor, cursor);
  command.done(broker::ListBindingsCommand::Outcome{});
  EXPECT_TRUE(second.get().response.next_page_token().empty());
}

TEST_F(AdminCallsTest, ABindingIsNamedByTheWholeOfIt) {
  v1::DeleteBindingRequest request;
  request.mutable_binding()->set_exchange("events");
  EXPECT_EQ(Refusal(&Admin::DeleteBinding, request), grpc::StatusCode::INVALID_ARGUMENT);
  request.mutable_binding()->set_to_exchange("rest");
  request.mutable_binding()->set_binding_key("a.*");
  auto deleted = Call(&Admin::DeleteBinding, request);
  auto command = shard_.Take<broker::DeleteBindingCommand>();
  EXPECT_EQ(command.binding, (Binding{"events", "", "rest", "a.*", {}, HeaderMatch::kAll}));
  command.done(absl::OkStatus());
  EXPECT_TRUE(deleted.get().status.ok());
}

TEST_F(AdminCallsTest, ConsumersGoOnAfterTheLastId) {
  v1::ListConsumersRequest request;
  auto first = Call(&Admin::ListConsumers, request);
  auto command = shard_.Take<broker::ListConsumersCommand>();
  EXPECT_EQ(command.after, 0u);
  broker::ConsumerInfo info;
  info.id = 41;
  info.queue = "orders";
  info.in_flight = 3;
  info.active = false;
  command.done(broker::ListConsumersCommand::Outcome{{info}, true});
  const auto page = first.get();
  ASSERT_TRUE(page.status.ok());
  EXPECT_EQ(page.response.consumers(0).consumer_id(), "41");
  EXPECT_FALSE(page.response.consumers(0).active());
  request.set_page_token(page.response.next_page_token());
  auto second = Call(&Admin::ListConsumers, request);
  command = shard_.Take<broker::ListConsumersCommand>();
  EXPECT_EQ(command.after, 41u);
  command.done(broker::ListConsumersCommand::Outcome{});
  EXPECT_TRUE(second.get().response.next_page_token().empty());
}

TEST_F(AdminCallsTest, AConsumerIdThatWasNeverGivenIsNotFound) {
  v1::CloseConsumerRequest request;
  EXPECT_EQ(Refusal(&Admin::CloseConsumer, request), grpc::StatusCode::INVALID_ARGUMENT);
  for (const char* id : {"0", "-1", "x", "99999999999999999999"}) {
    request.set_consumer_id(id);
    EXPECT_EQ(Refusal(&Admin::CloseConsumer, request), grpc::StatusCode::NOT_FOUND) << id;
  }
  request.set_consumer_id("41");
  auto closed = Call(&Admin::CloseConsumer, request);
  auto command = shard_.Take<broker::CloseConsumerCommand>();
  EXPECT_EQ(command.id, 41u);
  command.done(absl::OkStatus());
  EXPECT_TRUE(closed.get().status.ok());
}

TEST_F(AdminCallsTest, AnExportIsOneCommand) {
  auto exported = Call(&Admin::ExportDefinitions, v1::ExportDefinitionsRequest());
  broker::DefinitionsSnapshot snapshot;
  snapshot.queues.resize(2);
  snapshot.queues[0].name = "a";
  snapshot.queues[1].name = "b";
  snapshot.exchanges = {{"e", ExchangeType::kTopic, "", {}}};
  snapshot.bindings = {{"e", "a", "", "", {}}};
  shard_.Take<broker::ExportDefinitionsCommand>().done(snapshot);
  const auto answer = exported.get();
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  const v1::Definitions& definitions = answer.response.definitions();
  ASSERT_EQ(definitions.queues_size(), 2);
  EXPECT_EQ(definitions.queues(1).name(), "b");
  EXPECT_EQ(definitions.exchanges_size(), 1);
  ASSERT_EQ(definitions.bindings_size(), 1);
  EXPECT_EQ(definitions.bindings(0).queue(), "a");
}

TEST_F(AdminCallsTest, AnExportThatOneAnswerCannotHoldIsRefused) {
  auto exported = Call(&Admin::ExportDefinitions, v1::ExportDefinitionsRequest());
  broker::DefinitionsSnapshot snapshot;
  QueueConfig config;
  config.labels["k"] = std::string(16'000, 'x');
  for (int i = 0; i < 300; ++i) {
    config.name = absl::StrCat("q", i);
    snapshot.queues.push_back(config);
  }
  shard_.Take<broker::ExportDefinitionsCommand>().done(snapshot);
  EXPECT_EQ(exported.get().status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(AdminCallsTest, DefinitionsAreAppliedAsOneCommand) {
  v1::ApplyDefinitionsRequest request;
  request.mutable_definitions()->add_queues()->set_name("a");
  request.set_dry_run(true);
  request.set_prune(true);
  auto applied = Call(&Admin::ApplyDefinitions, request);
  auto command = shard_.Take<broker::ApplyDefinitionsCommand>();
  EXPECT_EQ(command.definitions.queues.at(0).name, "a");
  EXPECT_TRUE(command.dry_run && command.prune);
  command.done(std::vector<broker::DefinitionChange>{
      {"queue a", broker::DefinitionChange::Action::kCreate, {}}});
  const auto answer = applied.get();
  ASSERT_TRUE(answer.status.ok());
  EXPECT_EQ(answer.response.changes(0).resource(), "queue a");
  EXPECT_EQ(answer.response.changes(0).action(), v1::CHANGE_ACTION_CREATE);
}

}  // namespace
}  // namespace sluice::api
