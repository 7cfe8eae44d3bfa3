// Exchanges: which queues a publish reaches, and what becomes of it where there is none.
#include "absl/strings/str_cat.h"
#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr grpc::StatusCode kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
constexpr grpc::StatusCode kNotFound = grpc::StatusCode::NOT_FOUND;

v1::Binding ToExchange(const std::string& exchange, const std::string& to) {
  v1::Binding binding;
  binding.set_exchange(exchange);
  binding.set_to_exchange(to);
  return binding;
}

v1::Binding WithHeaders(v1::Binding binding, const std::map<std::string, std::string>& headers,
                        v1::HeaderMatch match) {
  for (const auto& [name, value] : headers) (*binding.mutable_headers())[name] = value;
  binding.set_header_match(match);
  return binding;
}

class ExchangesTest : public FeatureTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    for (const char* queue : {"a", "b", "c"}) MakeQueue(queue);
  }
  grpc::Status Unbind(const v1::Binding& binding) {
    v1::DeleteBindingRequest request;
    *request.mutable_binding() = binding;
    v1::DeleteBindingResponse response;
    return CallAdmin(&AdminService::Stub::DeleteBinding, request, &response);
  }
  grpc::Status TryDelete(const std::string& exchange) {
    v1::DeleteExchangeRequest request;
    request.set_exchange(exchange);
    v1::DeleteExchangeResponse response;
    return CallAdmin(&AdminService::Stub::DeleteExchange, request, &response);
  }
  std::vector<v1::Binding> Bindings(const std::string& exchange = "", int page_size = 0) {
    std::vector<v1::Binding> all;
    v1::ListBindingsRequest request;
    request.set_exchange(exchange);
    request.set_page_size(page_size);
    do {
      v1::ListBindingsResponse response;
      EXPECT_THAT(CallAdmin(&AdminService::Stub::ListBindings, request, &response), IsOk());
      all.insert(all.end(), response.bindings().begin(), response.bindings().end());
      request.set_page_token(response.next_page_token());
    } while (!request.page_token().empty());
    return all;
  }
  // Publishes and answers which of a, b and c it reached, for example "ac".
  std::string Reach(const std::string& exchange, const std::string& key,
                    const std::map<std::string, std::string>& attributes = {}) {
    v1::PublishRequest request;
    request.set_exchange(exchange);
    v1::Message& message = *request.add_messages();
    message.set_body("m");
    message.set_routing_key(key);
    for (const auto& [name, value] : attributes) (*message.mutable_attributes())[name] = value;
    v1::PublishResponse response;
    EXPECT_THAT(CallQueues(&QueueService::Stub::Publish, request, &response), IsOk());
    std::string reached;
    for (const char* queue : {"a", "b", "c"}) {
      const size_t count = Drain(queue).size();
      EXPECT_LE(count, 1u) << "once to each queue";
      if (count > 0) reached += queue;
    }
    if (response.results_size() == 1) {
      EXPECT_EQ(response.results(0).routed_queues(), static_cast<int>(reached.size()));
      EXPECT_EQ(response.results(0).message_id().empty(), reached.empty());
    }
    return reached;
  }
};

TEST_F(ExchangesTest, DirectGoesByTheEqualKey) {
  CreateExchange("x", v1::EXCHANGE_TYPE_DIRECT);
  Bind(ToQueue("x", "a", "red"));
  Bind(ToQueue("x", "b", "red"));
  Bind(ToQueue("x", "c", ""));
  EXPECT_EQ(Reach("x", "red"), "ab");
  EXPECT_EQ(Reach("x", ""), "c");
  EXPECT_EQ(Reach("x", "red.green"), "");
}

TEST_F(ExchangesTest, FanoutGoesToAllAndTheMessageIsTheSameInEach) {
  CreateExchange("x", v1::EXCHANGE_TYPE_FANOUT);
  EXPECT_EQ(Reach("x", ""), "");
  for (const char* queue : {"a", "b"}) Bind(ToQueue("x", queue, "not looked at"));
  v1::PublishRequest request;
  request.set_exchange("x");
  request.add_messages()->set_body("m");
  request.mutable_messages(0)->set_routing_key("key");
  v1::PublishResponse response;
  ASSERT_THAT(CallQueues(&QueueService::Stub::Publish, request, &response), IsOk());
  EXPECT_EQ(response.results(0).routed_queues(), 2);
  KillAndRestart();
  for (const char* queue : {"a", "b"}) {
    const v1::Delivery delivery = ReceiveAll(queue, 1)[0];
    EXPECT_EQ(delivery.message().id(), response.results(0).message_id());
    EXPECT_EQ(delivery.message().exchange(), "x");
    EXPECT_EQ(delivery.message().routing_key(), "key");
    EXPECT_EQ(delivery.queue(), queue);
    EXPECT_EQ(Look(queue, delivery.message().id()).state(), v1::MESSAGE_STATE_LEASED)
        << "the id finds it in each";
  }
}

TEST_F(ExchangesTest, TopicGoesByPatterns) {
  CreateExchange("x", v1::EXCHANGE_TYPE_TOPIC);
  Bind(ToQueue("x", "a", "order.*.paid"));
  Bind(ToQueue("x", "b", "order.#"));
  Bind(ToQueue("x", "c", "#.paid"));
  EXPECT_EQ(Reach("x", "order.7.paid"), "abc");
  EXPECT_EQ(Reach("x", "order.7.8.paid"), "bc") << "* is exactly one word";
  EXPECT_EQ(Reach("x", "order"), "b") << "# is also none";
  EXPECT_EQ(Reach("x", "paid"), "c");
  EXPECT_EQ(Reach("x", "order..paid"), "abc") << "an empty word is a word";
  EXPECT_EQ(Reach("x", "orders.7"), "");
  EXPECT_EQ(Reach("x", ""), "");
}

TEST_F(ExchangesTest, HeadersGoByAttributes) {
  CreateExchange("x", v1::EXCHANGE_TYPE_HEADERS);
  const std::map<std::string, std::string> both = {{"shop", "north"}, {"kind", "fruit"}};
  Bind(WithHeaders(ToQueue("x", "a"), both, v1::HEADER_MATCH_UNSPECIFIED));
  Bind(WithHeaders(ToQueue("x", "b"), both, v1::HEADER_MATCH_ANY));
  Bind(WithHeaders(ToQueue("x", "c"), {{"shop", ""}}, v1::HEADER_MATCH_ALL));
  EXPECT_EQ(Reach("x", "", {{"shop", "north"}, {"kind", "fruit"}, {"more", "m"}}), "ab");
  EXPECT_EQ(Reach("x", "", {{"shop", "north"}}), "b");
  EXPECT_EQ(Reach("x", "", {{"shop", ""}}), "c") << "the empty value, not any";
  EXPECT_EQ(Reach("x", "", {}), "");
  EXPECT_EQ(TryBind(WithHeaders(ToQueue("x", "a"), {}, v1::HEADER_MATCH_ANY)).error_code(),
            kInvalid);
  Bind(WithHeaders(ToQueue("x", "c"), {}, v1::HEADER_MATCH_ALL));
  EXPECT_EQ(Reach("x", "", {}), "c") << "none of them to agree: every message";
}

TEST_F(ExchangesTest, ExchangesLeadToOthersAndCirclesEnd) {
  CreateExchange("first", v1::EXCHANGE_TYPE_FANOUT);
  CreateExchange("second", v1::EXCHANGE_TYPE_DIRECT);
  Bind(ToExchange("first", "second"));
  Bind(ToExchange("second", "first"));
  Bind(ToQueue("first", "a"));
  Bind(ToQueue("second", "a", "key"));
  Bind(ToQueue("second", "b", "key"));
  EXPECT_EQ(Reach("first", "key"), "ab") << "once to each queue, however many ways lead there";
  EXPECT_EQ(Reach("first", "other"), "a");
}

TEST_F(ExchangesTest, WithoutARouteTheAlternateTakesItOrMandatoryRefuses) {
  CreateExchange("rest", v1::EXCHANGE_TYPE_FANOUT);
  CreateExchange("x", v1::EXCHANGE_TYPE_DIRECT, "rest");
  Bind(ToQueue("x", "a", "known"));
  v1::PublishRequest request;
  request.set_exchange("x");
  request.set_mandatory(true);
  request.add_messages()->set_routing_key("known");
  request.add_messages()->set_routing_key("unknown");
  const grpc::Status refused = TryPublish(request);
  EXPECT_THAT(refused, FailsWith(kNotFound, "NO_ROUTE"));
  EXPECT_THAT(refused.error_message(), HasSubstr("messages[1]"));
  EXPECT_EQ(Stats("a").ready(), 0) << "all or none";
  EXPECT_EQ(Metric("sluice_messages_unrouted_total", {}), 0);
  request.set_mandatory(false);
  EXPECT_THAT(TryPublish(request), IsOk());
  EXPECT_EQ(Metric("sluice_messages_unrouted_total", {}), 1);
  EXPECT_EQ(Drain("a").size(), 1u);
  request.set_mandatory(true);
  Bind(ToQueue("rest", "b"));
  EXPECT_THAT(TryPublish(request), IsOk());
  EXPECT_EQ(Drain("a").size(), 1u);
  EXPECT_EQ(Drain("b").size(), 1u);
  EXPECT_EQ(Reach("x", "known"), "a") << "only what x has no way for";
  EXPECT_THAT(TryDelete("rest"), FailsWith(grpc::StatusCode::FAILED_PRECONDITION, "IN_USE"));
  EXPECT_THAT(TryDelete("x"), IsOk());
  EXPECT_THAT(TryDelete("rest"), IsOk());
}

TEST_F(ExchangesTest, BindingsOutlastRestartsAndGoWithTheirEnds) {
  CreateExchange("x", v1::EXCHANGE_TYPE_TOPIC);
  CreateExchange("y", v1::EXCHANGE_TYPE_HEADERS);
  const v1::Binding topic = ToQueue("x", "a", "k.*");
  Bind(topic);
  Bind(ToExchange("x", "y"));
  Bind(ToQueue("x", "b", "#"));
  Bind(WithHeaders(ToQueue("y", "c"), {{"h", "1"}}, v1::HEADER_MATCH_ANY));
  KillAndRestart();
  EXPECT_THAT(Bindings("", /*page_size=*/1), SizeIs(4));
  EXPECT_EQ(Reach("x", "k.1"), "ab");
  EXPECT_EQ(Reach("y", "", {{"h", "1"}}), "c");
  EXPECT_THAT(Unbind(topic), IsOk());
  EXPECT_THAT(Unbind(topic), FailsWith(kNotFound, "BINDING_NOT_FOUND"));
  DeleteQueue("b");
  EXPECT_THAT(TryDelete("y"), IsOk());
  TerminateAndRestart();
  EXPECT_THAT(Bindings(), IsEmpty());
  MakeQueue("b");
  EXPECT_EQ(Reach("x", "k.1"), "") << "a queue of the same name is another queue";
}

TEST_F(ExchangesTest, CreateIsSafeToRepeatAndUpdateKeepsTheType) {
  v1::Exchange exchange = ExchangeOf("x", v1::EXCHANGE_TYPE_DIRECT);
  (*exchange.mutable_labels())["team"] = "blue";
  v1::CreateExchangeRequest create;
  *create.mutable_exchange() = exchange;
  v1::CreateExchangeResponse created;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::CreateExchange, create, &created), IsOk());
  EXPECT_TRUE(created.created());
  ASSERT_THAT(CallAdmin(&AdminService::Stub::CreateExchange, create, &created), IsOk());
  EXPECT_FALSE(created.created());
  EXPECT_THAT(TryCreateExchange(ExchangeOf("x", v1::EXCHANGE_TYPE_TOPIC)),
              FailsWith(grpc::StatusCode::ALREADY_EXISTS, "CONFIG_CONFLICT"));
  v1::UpdateExchangeRequest update;
  *update.mutable_exchange() = ExchangeOf("x", v1::EXCHANGE_TYPE_TOPIC);
  v1::UpdateExchangeResponse updated;
  EXPECT_EQ(CallAdmin(&AdminService::Stub::UpdateExchange, update, &updated).error_code(),
            kInvalid);
  update.mutable_exchange()->clear_type();
  (*update.mutable_exchange()->mutable_labels())["team"] = "red";
  ASSERT_THAT(CallAdmin(&AdminService::Stub::UpdateExchange, update, &updated), IsOk());
  KillAndRestart();
  v1::GetExchangeRequest get;
  get.set_exchange("x");
  v1::GetExchangeResponse got;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::GetExchange, get, &got), IsOk());
  EXPECT_EQ(got.exchange().labels().at("team"), "red");
  EXPECT_EQ(got.exchange().type(), v1::EXCHANGE_TYPE_DIRECT);
  v1::ListExchangesRequest list;
  list.set_name_glob("y*");
  v1::ListExchangesResponse listed;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::ListExchanges, list, &listed), IsOk());
  EXPECT_EQ(listed.exchanges_size(), 0);
}

TEST_F(ExchangesTest, RefusesWhatIsNotThereOrBreaksARule) {
  EXPECT_THAT(TryCreateExchange(ExchangeOf("x", v1::EXCHANGE_TYPE_UNSPECIFIED)),
              FailsWithField(kInvalid, "INVALID_FIELD", "exchange.type"));
  EXPECT_THAT(TryCreateExchange(ExchangeOf("sluice.x", v1::EXCHANGE_TYPE_DIRECT)),
              FailsWithField(kInvalid, "INVALID_FIELD", "exchange.name"));
  v1::Exchange orphan = ExchangeOf("x", v1::EXCHANGE_TYPE_DIRECT);
  orphan.set_alternate_exchange("nowhere");
  EXPECT_THAT(TryCreateExchange(orphan),
              FailsWithField(kNotFound, "EXCHANGE_NOT_FOUND", "exchange.alternate_exchange"));
  EXPECT_THAT(TryBind(ToQueue("nowhere", "a")), FailsWith(kNotFound, "EXCHANGE_NOT_FOUND"));
  CreateExchange("x", v1::EXCHANGE_TYPE_DIRECT);
  EXPECT_THAT(TryBind(ToQueue("x", "nowhere")), FailsWith(kNotFound, "QUEUE_NOT_FOUND"));
  EXPECT_THAT(TryBind(ToExchange("x", "nowhere")), FailsWith(kNotFound, "EXCHANGE_NOT_FOUND"));
  EXPECT_EQ(TryBind(ToExchange("x", "x")).error_code(), kInvalid);
  EXPECT_THAT(TryBind(ToQueue("x", "a", std::string(256, 'k'))),
              FailsWithField(kInvalid, "INVALID_FIELD", "binding.binding_key"));
  EXPECT_THAT(TryBind(ToQueue("x", "a", std::string(255, 'k'))), IsOk());
  v1::PublishRequest request;
  request.set_exchange("nowhere");
  request.add_messages();
  EXPECT_THAT(TryPublish(request), FailsWith(kNotFound, "EXCHANGE_NOT_FOUND"));
  EXPECT_THAT(TryDelete("nowhere"), FailsWith(kNotFound, "EXCHANGE_NOT_FOUND"));
}

TEST_F(ExchangesTest, APublishStreamRoutesEachMessage) {
  CreateExchange("x", v1::EXCHANGE_TYPE_DIRECT);
  Bind(ToQueue("x", "a", ""));
  v1::PublishStreamInit init;
  init.set_exchange("x");
  ProducerStream stream(*client_, init);
  ASSERT_TRUE(stream.Send(1, {"1", "2"}));
  stream.AwaitStored(2);
  EXPECT_THAT(Drain("a"), ElementsAre("1", "2"));
  init.set_exchange("nowhere");
  ProducerStream missing(*client_, init);
  EXPECT_THAT(missing.Finish(), FailsWith(kNotFound, "EXCHANGE_NOT_FOUND"));
}

}  // namespace
}  // namespace sluice::testing
