// Exchanges and bindings of a shard: durable, and gone with what they join.
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/model/error.h"
#include "server/storage/rows.h"
#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using CreateExchangeReply = testing::Reply<absl::StatusOr<CreateExchangeCommand::Outcome>>;
using BoolReply = testing::Reply<absl::StatusOr<bool>>;
using StatusReply = testing::Reply<absl::Status>;

ExchangeChange Of(const std::string& name, ExchangeType type) {
  ExchangeChange change;
  change.name = name;
  change.type = type;
  return change;
}
Binding ToQueue(const std::string& exchange, const std::string& queue,
                const std::string& key = "") {
  return {exchange, queue, "", key, {}, HeaderMatch::kAll};
}

class ExchangesTest : public ::testing::Test {
 protected:
  CreateExchangeReply StartCreate(const ExchangeChange& exchange) {
    CreateExchangeReply reply;
    shard_.Start(CreateExchangeCommand{exchange, reply.Done()});
    return reply;
  }
  absl::StatusOr<CreateExchangeCommand::Outcome> Create(const ExchangeChange& exchange) {
    const CreateExchangeReply reply = StartCreate(exchange);
    shard_.RunUntilQuiet();
    return *reply;
  }
  absl::StatusOr<Exchange> Update(const ExchangeChange& exchange, bool replace = false) {
    testing::Reply<absl::StatusOr<Exchange>> reply;
    shard_.Run(UpdateExchangeCommand{exchange, replace, reply.Done()});
    return *reply;
  }
  absl::StatusOr<Exchange> Get(const std::string& name) {
    testing::Reply<absl::StatusOr<Exchange>> reply;
    shard_.Run(GetExchangeCommand{name, reply.Done()});
    return *reply;
  }
  absl::Status Delete(const std::string& name, bool if_unused = false) {
    StatusReply reply;
    shard_.Run(DeleteExchangeCommand{name, if_unused, reply.Done()});
    return *reply;
  }
  absl::StatusOr<bool> Bind(const Binding& binding) {
    BoolReply reply;
    shard_.Run(CreateBindingCommand{binding, reply.Done()});
    return *reply;
  }
  absl::Status Unbind(const Binding& binding) {
    StatusReply reply;
    shard_.Run(DeleteBindingCommand{binding, reply.Done()});
    return *reply;
  }
  absl::StatusOr<ListBindingsCommand::Outcome> List(const std::string& exchange,
                                                    const std::string& cursor = "",
                                                    int32_t limit = 100) {
    testing::Reply<absl::StatusOr<ListBindingsCommand::Outcome>> reply;
    shard_.Run(ListBindingsCommand{exchange, "", cursor, limit, reply.Done()});
    return *reply;
  }
  std::vector<std::string> Bindings(const std::string& exchange = "") {
    std::vector<std::string> names;
    const auto listed = List(exchange);
    EXPECT_TRUE(listed.ok()) << listed.status();
    for (const Binding& binding : listed->bindings) {
      names.push_back(binding.exchange + ">" + binding.queue + binding.to_exchange + ":" +
                      binding.binding_key);
    }
    return names;
  }

  testing::ShardHarness shard_;
};

TEST_F(ExchangesTest, ACreationIsAnsweredWhenItIsDurable) {
  const CreateExchangeReply reply = StartCreate(Of("e", ExchangeType::kTopic));
  EXPECT_FALSE(reply.answered());
  shard_.RunUntilQuiet();
  ASSERT_EQ(reply.calls(), 1);
  EXPECT_TRUE((*reply)->created);
  EXPECT_FALSE(Create(Of("e", ExchangeType::kTopic))->created);
}

TEST_F(ExchangesTest, WhatWasNotDurableIsGoneAfterACrash) {
  StartCreate(Of("e", ExchangeType::kTopic));
  shard_.Crash();
  EXPECT_EQ(ReasonOf(Get("e").status()), ErrorReason::kExchangeNotFound);
}

TEST_F(ExchangesTest, ExchangesAndBindingsSurviveCrashesAndStops) {
  ASSERT_TRUE(shard_.CreateQueue("q").ok());
  ASSERT_TRUE(Create(Of("rest", ExchangeType::kFanout)).ok());
  ExchangeChange topic = Of("e", ExchangeType::kTopic);
  topic.labels = std::map<std::string, std::string>{{"team", "a"}};
  ASSERT_TRUE(Create(topic).ok());
  ExchangeChange alternate;
  alternate.name = "e";
  alternate.alternate_exchange = "rest";
  ASSERT_TRUE(Update(alternate).ok());
  ASSERT_TRUE(*Bind(ToQueue("e", "q", "a.*")));
  ASSERT_TRUE(*Bind({"e", "", "rest", "#", {{"h", "v"}}, HeaderMatch::kAny}));
  for (int stop = 0; stop < 2; ++stop) {
    if (stop) {
      shard_.CleanStop();
    } else {
      shard_.Crash();
    }
    EXPECT_EQ(Get("e")->alternate_exchange, "rest");
    EXPECT_EQ(Get("e")->labels.at("team"), "a");
    EXPECT_EQ(Get("e")->type, ExchangeType::kTopic);
    EXPECT_THAT(Bindings(), ElementsAre("e>rest:#", "e>q:a.*"));
    EXPECT_EQ(List("e")->bindings[0].headers.at("h"), "v");
    // Numbers are not given twice: what is made now does not take the place of what was there.
    ASSERT_TRUE(Create(Of(stop ? "later" : "sooner", ExchangeType::kDirect)).ok());
    ASSERT_TRUE(*Bind(ToQueue(stop ? "later" : "sooner", "q")));
    ASSERT_TRUE(Delete(stop ? "later" : "sooner").ok());
  }
}

TEST_F(ExchangesTest, WhatWasDeletedStaysGoneAfterARestart) {
  ASSERT_TRUE(shard_.CreateQueue("q").ok());
  for (const char* name : {"a", "b"}) {
    ASSERT_TRUE(Create(Of(name, ExchangeType::kFanout)).ok());
    ASSERT_TRUE(*Bind(ToQueue(name, "q", "1")));
    ASSERT_TRUE(*Bind(ToQueue(name, "q", "2")));
  }
  ASSERT_TRUE(*Bind({"a", "", "b", "", {}, HeaderMatch::kAll}));
  ASSERT_TRUE(Unbind(ToQueue("a", "q", "1")).ok());
  ASSERT_TRUE(Delete("b").ok());
  shard_.Crash();
  EXPECT_THAT(Bindings(), ElementsAre("a>q:2"));
  EXPECT_EQ(ReasonOf(Get("b").status()), ErrorReason::kExchangeNotFound);
  EXPECT_EQ(ReasonOf(Unbind(ToQueue("a", "q", "1"))), ErrorReason::kBindingNotFound);
}

TEST_F(ExchangesTest, ABindingNeedsItsQueue) {
  ASSERT_TRUE(Create(Of("e", ExchangeType::kFanout)).ok());
  EXPECT_EQ(ReasonOf(Bind(ToQueue("e", "none")).status()), ErrorReason::kQueueNotFound);
  ASSERT_TRUE(shard_.CreateQueue("q").ok());
  EXPECT_EQ(ReasonOf(Bind(ToQueue("none", "q")).status()), ErrorReason::kExchangeNotFound);
  EXPECT_TRUE(*Bind(ToQueue("e", "q")));
  EXPECT_FALSE(*Bind(ToQueue("e", "q")));
}

TEST_F(ExchangesTest, DeletingAQueueTakesItsBindings) {
  ASSERT_TRUE(shard_.CreateQueue("q").ok());
  ASSERT_TRUE(shard_.CreateQueue("other").ok());
  ASSERT_TRUE(Create(Of("e", ExchangeType::kTopic)).ok());
  for (const char* key : {"a", "b"}) ASSERT_TRUE(Bind(ToQueue("e", "q", key)).ok());
  ASSERT_TRUE(Bind(ToQueue("e", "other", "a")).ok());
  ASSERT_TRUE(shard_.DeleteQueue("q").ok());
  EXPECT_THAT(Bindings(), ElementsAre("e>other:a"));
  shard_.Crash();
  EXPECT_THAT(Bindings(), ElementsAre("e>other:a"));
  // A new queue of that name begins without.
  ASSERT_TRUE(shard_.CreateQueue("q").ok());
  EXPECT_THAT(Bindings(), ElementsAre("e>other:a"));
}

TEST_F(ExchangesTest, ListingsGoOnWithTheirCursor) {
  ASSERT_TRUE(shard_.CreateQueue("q").ok());
  ASSERT_TRUE(Create(Of("e", ExchangeType::kTopic)).ok());
  for (const char* key : {"a", "b", "c"}) ASSERT_TRUE(Bind(ToQueue("e", "q", key)).ok());
  const auto first = List("e", "", 2);
  ASSERT_EQ(first->bindings.size(), 2u);
  ASSERT_FALSE(first->next_cursor.empty());
  const auto second = List("e", first->next_cursor, 2);
  ASSERT_EQ(second->bindings.size(), 1u);
  EXPECT_EQ(second->bindings[0].binding_key, "c");
  EXPECT_THAT(second->next_cursor, IsEmpty());
  EXPECT_EQ(ReasonOf(List("e", "garbage").status()), ErrorReason::kPageTokenInvalid);
}

TEST_F(ExchangesTest, NothingIsChangedWhileDraining) {
  ASSERT_TRUE(shard_.CreateQueue("q").ok());
  ASSERT_TRUE(Create(Of("e", ExchangeType::kTopic)).ok());
  ASSERT_TRUE(*Bind(ToQueue("e", "q")));
  testing::Reply<int> drained;
  shard_.Run(DrainCommand{[done = drained.Done()] { done(0); }});
  EXPECT_EQ(ReasonOf(Create(Of("f", ExchangeType::kTopic)).status()), ErrorReason::kDraining);
  EXPECT_EQ(ReasonOf(Update(Of("e", ExchangeType::kTopic)).status()), ErrorReason::kDraining);
  EXPECT_EQ(ReasonOf(Delete("e")), ErrorReason::kDraining);
  EXPECT_EQ(ReasonOf(Bind(ToQueue("e", "q", "k")).status()), ErrorReason::kDraining);
  EXPECT_EQ(ReasonOf(Unbind(ToQueue("e", "q"))), ErrorReason::kDraining);
  EXPECT_THAT(Bindings(), ElementsAre("e>q:"));
}

// One that was made before its rule was: a server that does not start helps nobody.
TEST_F(ExchangesTest, AStoredBindingIsNotJudgedByLaterRules) {
  ASSERT_TRUE(shard_.CreateQueue("a").ok());
  ASSERT_TRUE(Create(Of("t", ExchangeType::kTopic)).ok());
  ASSERT_TRUE(Bind(ToQueue("t", "a", "order.x")).ok());
  Binding old = ToQueue("t", "a", "order*");
  EXPECT_EQ(FieldOf(Bind(old).status()), "binding.binding_key");
  shard_.RunUntilQuiet();
  const std::string now_stored = storage::EncodeBinding(ToQueue("t", "a", "order.x"));
  int replaced = 0;
  for (auto& [key, value] : shard_.store().rows()) {
    if (value != now_stored) continue;
    value = storage::EncodeBinding(old);
    ++replaced;
  }
  ASSERT_EQ(replaced, 1);
  shard_.Crash();
  EXPECT_TRUE(Get("t").ok());
  Publish publish = testing::MakePublish("", {{"m"}});
  publish.exchange = "t";
  publish.messages[0].options = std::make_unique<MessageOptions>();
  publish.messages[0].options->routing_key = "order*";
  EXPECT_EQ((*shard_.Publish(std::move(publish)))[0].routed_queues, 1) << "it stands for itself";
}

}  // namespace
}  // namespace sluice::broker
