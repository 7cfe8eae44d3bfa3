#include "server/broker/router.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::broker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

using Labels = std::map<std::string, std::string>;

ExchangeChange Of(const std::string& name, ExchangeType type, const std::string& alternate = "") {
  ExchangeChange change;
  change.name = name;
  change.type = type;
  if (!alternate.empty()) change.alternate_exchange = alternate;
  return change;
}
Binding ToQueue(const std::string& exchange, const std::string& queue,
                const std::string& key = "") {
  return {exchange, queue, "", key, {}, HeaderMatch::kAll};
}
Binding ToExchange(const std::string& exchange, const std::string& to,
                   const std::string& key = "") {
  return {exchange, "", to, key, {}, HeaderMatch::kAll};
}
Binding ByHeaders(const std::string& exchange, const std::string& queue,
                  std::map<std::string, std::string> headers, HeaderMatch match) {
  return {exchange, queue, "", "", std::move(headers), match};
}

class RouterTest : public ::testing::Test {
 protected:
  void Make(const std::string& name, ExchangeType type, const std::string& alternate = "") {
    const auto created = router_.CreateExchange(Of(name, type, alternate), next_number_++);
    ASSERT_TRUE(created.ok()) << created.status();
    ASSERT_TRUE(*created);
  }
  void Bind(const Binding& binding) {
    const auto created = router_.CreateBinding(binding, next_number_++);
    ASSERT_TRUE(created.ok()) << created.status();
    ASSERT_TRUE(*created);
  }
  std::vector<std::string> Route(const std::string& exchange, const std::string& key = "",
                                 const Attributes& attributes = {}) {
    std::vector<const std::string*> queues;
    const absl::Status status = router_.Route(exchange, key, attributes, &queues);
    EXPECT_TRUE(status.ok()) << status;
    std::vector<std::string> names;
    for (const std::string* queue : queues) names.push_back(*queue);
    return names;
  }
  absl::Status RouteError(const std::string& exchange) {
    std::vector<const std::string*> queues;
    return router_.Route(exchange, "", {}, &queues);
  }
  template <typename Result>
  static ErrorReason Reason(const Result& result) {
    return ReasonOf(result.status());
  }

  Router router_;
  uint64_t next_number_ = 1;
};

// ---- exchanges

TEST_F(RouterTest, CreatingTheSameExchangeAgainChangesNothing) {
  Make("alt", ExchangeType::kFanout);
  ExchangeChange full = Of("e", ExchangeType::kTopic, "alt");
  full.labels = Labels{{"team", "a"}};
  EXPECT_TRUE(*router_.CreateExchange(full, 10));
  EXPECT_FALSE(*router_.CreateExchange(full, 11));
  // Only what is set is compared.
  EXPECT_FALSE(*router_.CreateExchange(Of("e", ExchangeType::kTopic), 12));
  EXPECT_EQ(router_.FindExchange("e")->number, 10u);
  EXPECT_EQ(router_.FindExchange("e")->exchange.alternate_exchange, "alt");
}

TEST_F(RouterTest, CreatingADifferentExchangeOfThatNameIsAConflict) {
  Make("e", ExchangeType::kTopic);
  EXPECT_EQ(Reason(router_.CreateExchange(Of("e", ExchangeType::kDirect), 5)),
            ErrorReason::kConfigConflict);
  ExchangeChange labelled = Of("e", ExchangeType::kTopic);
  labelled.labels = Labels{{"a", "b"}};
  EXPECT_EQ(Reason(router_.CreateExchange(labelled, 5)), ErrorReason::kConfigConflict);
  EXPECT_EQ(router_.exchanges(), 1u);
}

TEST_F(RouterTest, ABindingThatIsThereIsNotJudgedAnew) {
  Make("e", ExchangeType::kTopic);
  Binding old;
  old.exchange = "e";
  old.queue = "q";
  old.binding_key = "order*";
  EXPECT_EQ(FieldOf(router_.CreateBinding(old, 10).status()), "binding.binding_key");
  ASSERT_TRUE(*router_.RestoreBinding(old, 10));
  const auto again = router_.CreateBinding(old, 11);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(*again);
}

TEST_F(RouterTest, AWildcardIsAWordOfItsOwn) {
  Binding binding;
  binding.exchange = "e";
  binding.queue = "q";
  for (const char* half : {"a*", "*a", "a.b#", "**", "a.#*.c"}) {
    binding.binding_key = half;
    EXPECT_EQ(FieldOf(CheckBinding(binding, ExchangeType::kTopic)), "binding.binding_key") << half;
    EXPECT_TRUE(CheckBinding(binding, ExchangeType::kDirect).ok()) << half;
  }
  for (const char* whole : {"", "*", "#", "a.*.#", "a..b"}) {
    binding.binding_key = whole;
    EXPECT_TRUE(CheckBinding(binding, ExchangeType::kTopic).ok()) << whole;
  }
}

TEST_F(RouterTest, AnExchangeNeedsAType) {
  ExchangeChange untyped;
  untyped.name = "e";
  EXPECT_EQ(FieldOf(router_.CreateExchange(untyped, 1).status()), "exchange.type");
  untyped.type = ExchangeType::kUnspecified;
  EXPECT_EQ(FieldOf(router_.CreateExchange(untyped, 1).status()), "exchange.type");
}

TEST_F(RouterTest, AnAlternateMustExistAndBeAnother) {
  EXPECT_EQ(Reason(router_.CreateExchange(Of("e", ExchangeType::kDirect, "none"), 1)),
            ErrorReason::kExchangeNotFound);
  EXPECT_EQ(Reason(router_.CreateExchange(Of("e", ExchangeType::kDirect, "e"), 1)),
            ErrorReason::kInvalidField);
  EXPECT_EQ(router_.exchanges(), 0u);
}

TEST_F(RouterTest, UpdateChangesWhatIsSetAndReplaceTheRestToo) {
  Make("alt", ExchangeType::kFanout);
  Make("e", ExchangeType::kTopic, "alt");
  ExchangeChange labels;
  labels.name = "e";
  labels.labels = Labels{{"team", "a"}};
  EXPECT_TRUE(*router_.UpdateExchange(labels, false));
  EXPECT_FALSE(*router_.UpdateExchange(labels, false));
  EXPECT_EQ(router_.FindExchange("e")->exchange.alternate_exchange, "alt");
  EXPECT_TRUE(*router_.UpdateExchange(labels, true));
  EXPECT_EQ(router_.FindExchange("e")->exchange.alternate_exchange, "");
  EXPECT_EQ(router_.FindExchange("e")->exchange.type, ExchangeType::kTopic);

  EXPECT_EQ(FieldOf(router_.UpdateExchange(Of("e", ExchangeType::kDirect), true).status()),
            "exchange.type");
  EXPECT_TRUE(router_.UpdateExchange(Of("e", ExchangeType::kTopic), true).ok());
  EXPECT_EQ(Reason(router_.UpdateExchange(Of("none", ExchangeType::kTopic), false)),
            ErrorReason::kExchangeNotFound);
}

TEST_F(RouterTest, DeletingAnExchangeTakesTheBindingsFromItAndToIt) {
  Make("a", ExchangeType::kTopic);
  Make("b", ExchangeType::kDirect);
  Make("c", ExchangeType::kFanout);
  Bind(ToExchange("a", "b", "#"));   // 4
  Bind(ToQueue("b", "q", "k"));      // 5
  Bind(ToExchange("b", "c", "k"));   // 6
  Bind(ToExchange("c", "b"));        // 7
  Bind(ToQueue("c", "q"));           // 8
  const auto removed = router_.DeleteExchange("b", false);
  ASSERT_TRUE(removed.ok());
  EXPECT_EQ(removed->exchange, 2u);
  EXPECT_THAT(removed->bindings, UnorderedElementsAre(4, 5, 6, 7));
  EXPECT_EQ(router_.bindings(), 1u);
  EXPECT_EQ(router_.FindExchange("b"), nullptr);
  EXPECT_THAT(Route("a", "x"), IsEmpty());
  EXPECT_THAT(Route("c"), ElementsAre("q"));
  EXPECT_EQ(Reason(router_.DeleteExchange("b", false)), ErrorReason::kExchangeNotFound);
}

TEST_F(RouterTest, AnExchangeThatStartsLikeAnotherKeepsItsBindings) {
  Make("a", ExchangeType::kFanout);
  Make("a.b", ExchangeType::kFanout);
  Bind(ToQueue("a.b", "q"));
  EXPECT_TRUE(router_.DeleteExchange("a", true).ok());
  EXPECT_THAT(Route("a.b"), ElementsAre("q"));
}

TEST_F(RouterTest, AnAlternateCannotBeDeletedWhileItIsNeeded) {
  Make("alt", ExchangeType::kFanout);
  Make("e", ExchangeType::kTopic, "alt");
  EXPECT_EQ(Reason(router_.DeleteExchange("alt", false)), ErrorReason::kInUse);
  ASSERT_TRUE(router_.DeleteExchange("e", false).ok());
  EXPECT_TRUE(router_.DeleteExchange("alt", false).ok());
}

TEST_F(RouterTest, IfUnusedRefusesWhileABindingLeadsFromItOrToIt) {
  Make("a", ExchangeType::kFanout);
  Make("b", ExchangeType::kFanout);
  Bind(ToExchange("a", "b"));
  EXPECT_EQ(Reason(router_.DeleteExchange("a", true)), ErrorReason::kInUse);
  EXPECT_EQ(Reason(router_.DeleteExchange("b", true)), ErrorReason::kInUse);
  ASSERT_TRUE(router_.DeleteBinding(ToExchange("a", "b")).ok());
  EXPECT_TRUE(router_.DeleteExchange("b", true).ok());
}

TEST_F(RouterTest, ExchangesAreListedByNameInPages) {
  for (const char* name : {"c", "a", "b2", "b1"}) Make(name, ExchangeType::kFanout);
  auto page = router_.ListExchanges("", "", 3);
  ASSERT_EQ(page.exchanges.size(), 3u);
  EXPECT_EQ(page.exchanges[0].name, "a");
  EXPECT_EQ(page.exchanges[2].name, "b2");
  EXPECT_TRUE(page.more);
  page = router_.ListExchanges("", "b2", 3);
  ASSERT_EQ(page.exchanges.size(), 1u);
  EXPECT_FALSE(page.more);
  page = router_.ListExchanges("b?", "", 2);
  EXPECT_EQ(page.exchanges.size(), 2u);
  EXPECT_FALSE(page.more);
}

TEST_F(RouterTest, APageOfExchangesStaysWithinItsBytes) {
  for (int i = 0; i < 300; ++i) {
    ExchangeChange change = Of(absl::StrCat("e", 1000 + i), ExchangeType::kFanout);
    change.labels = Labels{{"l", std::string(kLabelsBytesMax - 1, 'x')}};
    ASSERT_TRUE(router_.CreateExchange(change, 1).ok());
  }
  const auto page = router_.ListExchanges("", "", kPageSizeMax);
  EXPECT_TRUE(page.more);
  EXPECT_GT(page.exchanges.size(), 100u);
  EXPECT_LT(page.exchanges.size() * kLabelsBytesMax, kRoutingPageBytesMax);
}

// ---- bindings

TEST_F(RouterTest, TheWholeBindingIsItsIdentity) {
  Make("e", ExchangeType::kTopic);
  Bind(ToQueue("e", "q", "a"));
  Bind(ToQueue("e", "q", "b"));
  EXPECT_FALSE(*router_.CreateBinding(ToQueue("e", "q", "a"), 99));
  Binding unspecified = ToQueue("e", "q", "a");
  unspecified.header_match = HeaderMatch::kUnspecified;  // the same as ALL
  EXPECT_FALSE(*router_.CreateBinding(unspecified, 99));
  EXPECT_EQ(*router_.DeleteBinding(unspecified), 2u);
  EXPECT_EQ(Reason(router_.DeleteBinding(ToQueue("e", "q", "a"))), ErrorReason::kBindingNotFound);
  EXPECT_EQ(Reason(router_.DeleteBinding(ToQueue("x", "q", "a"))),
            ErrorReason::kExchangeNotFound);
  EXPECT_THAT(Route("e", "a"), IsEmpty());
  EXPECT_THAT(Route("e", "b"), ElementsAre("q"));
}

TEST_F(RouterTest, ABindingNeedsBothEndsAndFieldsWithinLimits) {
  Make("e", ExchangeType::kHeaders);
  const auto create = [&](const Binding& binding) { return router_.CreateBinding(binding, 9); };
  EXPECT_EQ(Reason(create(ToQueue("none", "q"))), ErrorReason::kExchangeNotFound);
  EXPECT_EQ(Reason(create(ToExchange("e", "none"))), ErrorReason::kExchangeNotFound);
  EXPECT_EQ(FieldOf(create(ToQueue("e", "")).status()), "binding.destination");
  Binding both = ToQueue("e", "q");
  both.to_exchange = "f";
  EXPECT_EQ(FieldOf(create(both).status()), "binding.destination");
  EXPECT_EQ(FieldOf(create(ToExchange("e", "e")).status()), "binding.to_exchange");
  EXPECT_TRUE(create(ToQueue("e", "q", std::string(255, 'k'))).ok());
  EXPECT_EQ(FieldOf(create(ToQueue("e", "q", std::string(256, 'k'))).status()),
            "binding.binding_key");
  Binding headers = ToQueue("e", "q");
  for (int i = 0; i < kBindingHeadersMax; ++i) headers.headers[absl::StrCat(i)] = "v";
  EXPECT_TRUE(create(headers).ok());
  headers.headers["one more"] = "v";
  EXPECT_EQ(FieldOf(create(headers).status()), "binding.headers");
  EXPECT_TRUE(create(ByHeaders("e", "q", {{"h", std::string(kAttributesBytesMax - 1, 'x')}},
                               HeaderMatch::kAll)).ok());
  EXPECT_EQ(FieldOf(create(ByHeaders("e", "q", {{"h", std::string(kAttributesBytesMax, 'x')}},
                                     HeaderMatch::kAll)).status()), "binding.headers");
  EXPECT_EQ(FieldOf(create(ByHeaders("e", "q", {}, HeaderMatch::kAny)).status()),
            "binding.headers");
}

TEST_F(RouterTest, BindingsAreListedInOrderOfIdentityInPages) {
  Make("a", ExchangeType::kTopic);
  Make("b", ExchangeType::kFanout);
  Bind(ToQueue("b", "q1"));
  Bind(ToQueue("a", "q2", "k"));
  Bind(ToQueue("a", "q1", "z"));
  Bind(ToQueue("a", "q1", "k"));
  Bind(ToExchange("a", "b", "k"));

  const auto from = [](const std::string& exchange) {
    Router::BindingSelection selection;
    selection.exchange = exchange;
    return selection;
  };
  const auto to = [](const std::string& queue) {
    Router::BindingSelection selection;
    selection.queue = queue;
    return selection;
  };
  Router::BindingSelection both = from("a");
  both.queue = "q1";
  const auto list = [&](Router::BindingSelection selection) {
    std::vector<std::string> names;
    Binding last;
    for (bool more = true; more;) {
      selection.limit = 2;
      const auto page = router_.ListBindings(selection);
      EXPECT_LE(page.bindings.size(), 2u);
      for (const Binding& binding : page.bindings) {
        names.push_back(absl::StrCat(binding.exchange, ">", binding.queue, binding.to_exchange,
                                     ":", binding.binding_key));
      }
      more = page.more;
      if (more) last = page.bindings.back();
      selection.after = &last;
    }
    return names;
  };
  EXPECT_THAT(list({}), ElementsAre("a>b:k", "a>q1:k", "a>q1:z", "a>q2:k", "b>q1:"));
  EXPECT_THAT(list(from("a")), ElementsAre("a>b:k", "a>q1:k", "a>q1:z", "a>q2:k"));
  EXPECT_THAT(list(to("q1")), ElementsAre("a>q1:k", "a>q1:z", "b>q1:"));
  EXPECT_THAT(list(both), ElementsAre("a>q1:k", "a>q1:z"));
  EXPECT_THAT(list(from("none")), IsEmpty());
  EXPECT_THAT(list(to("none")), IsEmpty());
}

TEST_F(RouterTest, AListingGoesOnAfterABindingThatIsGone) {
  Make("e", ExchangeType::kTopic);
  for (const char* key : {"a", "b", "c"}) Bind(ToQueue("e", "q", key));
  const Binding gone = ToQueue("e", "q", "b");
  ASSERT_TRUE(router_.DeleteBinding(gone).ok());
  Router::BindingSelection selection;
  selection.after = &gone;
  const auto page = router_.ListBindings(selection);
  ASSERT_EQ(page.bindings.size(), 1u);
  EXPECT_EQ(page.bindings[0].binding_key, "c");
}

TEST_F(RouterTest, TheBindingsOfADeletedQueueGo) {
  Make("a", ExchangeType::kTopic);
  Make("b", ExchangeType::kFanout);
  Bind(ToQueue("a", "q", "#"));  // 3
  Bind(ToQueue("b", "q"));       // 4
  Bind(ToQueue("b", "other"));
  EXPECT_THAT(router_.RemoveBindingsTo("q"), UnorderedElementsAre(3, 4));
  EXPECT_THAT(router_.RemoveBindingsTo("q"), IsEmpty());
  EXPECT_THAT(Route("a", "x"), IsEmpty());
  EXPECT_THAT(Route("b"), ElementsAre("other"));
}

// ---- limits

TEST(RouterLimitsTest, TakesUpToTheLimitAndNotOneMore) {
  RouterOptions options;
  options.exchanges_max = 2;
  options.bindings_max = 2;
  options.topic_nodes_max = 5;
  Router router(options);
  EXPECT_TRUE(router.CreateExchange(Of("t", ExchangeType::kTopic), 1).ok());
  EXPECT_TRUE(router.CreateExchange(Of("f", ExchangeType::kFanout), 2).ok());
  EXPECT_EQ(ReasonOf(router.CreateExchange(Of("g", ExchangeType::kFanout), 3).status()),
            ErrorReason::kLimitReached);
  EXPECT_FALSE(*router.CreateExchange(Of("f", ExchangeType::kFanout), 3));

  EXPECT_TRUE(router.CreateBinding(ToQueue("t", "q", "a.b.c"), 4).ok());
  EXPECT_EQ(ReasonOf(router.CreateBinding(ToQueue("t", "q", "d.e.f"), 5).status()),
            ErrorReason::kLimitReached);
  EXPECT_TRUE(router.CreateBinding(ToQueue("t", "q", "d.e"), 5).ok());
  EXPECT_EQ(ReasonOf(router.CreateBinding(ToQueue("f", "q"), 6).status()),
            ErrorReason::kLimitReached);
  EXPECT_FALSE(*router.CreateBinding(ToQueue("t", "q", "d.e"), 6));
  // What goes makes room.
  ASSERT_TRUE(router.DeleteExchange("t", false).ok());
  EXPECT_TRUE(router.CreateExchange(Of("u", ExchangeType::kTopic), 7).ok());
  EXPECT_TRUE(router.CreateBinding(ToQueue("u", "q", "a.b.c.d.e"), 8).ok());
}

TEST_F(RouterTest, AMessageReachesAtMostSoManyQueues) {
  Make("e", ExchangeType::kFanout);
  for (int i = 0; i < kRoutedQueuesMax; ++i) Bind(ToQueue("e", absl::StrCat("q", i)));
  EXPECT_EQ(Route("e").size(), static_cast<size_t>(kRoutedQueuesMax));
  Bind(ToQueue("e", "one-more"));
  EXPECT_EQ(ReasonOf(RouteError("e")), ErrorReason::kRouteTooLarge);
}

TEST_F(RouterTest, AMessagePassesAtMostSoManyExchangesInARow) {
  const auto name = [](int i) { return absl::StrCat("e", i); };
  for (int i = 1; i <= kExchangeHopsMax + 1; ++i) Make(name(i), ExchangeType::kFanout);
  for (int i = 1; i < kExchangeHopsMax; ++i) Bind(ToExchange(name(i), name(i + 1)));
  Bind(ToQueue(name(kExchangeHopsMax), "q"));
  EXPECT_THAT(Route("e1"), ElementsAre("q"));
  Bind(ToExchange(name(kExchangeHopsMax), name(kExchangeHopsMax + 1)));
  EXPECT_EQ(ReasonOf(RouteError("e1")), ErrorReason::kRouteTooLarge);
  // A shorter way counts.
  Bind(ToExchange("e1", name(kExchangeHopsMax + 1)));
  EXPECT_THAT(Route("e1"), ElementsAre("q"));
}

TEST(RouterLimitsTest, AMessageLooksAtAtMostSoManyBindings) {
  RouterOptions options;
  options.routing_steps_max = 3;
  Router router(options);
  ASSERT_TRUE(router.CreateExchange(Of("e", ExchangeType::kFanout), 1).ok());
  std::vector<const std::string*> queues;
  for (const char* key : {"a", "b", "c"}) {
    ASSERT_TRUE(router.CreateBinding(ToQueue("e", "q", key), 2).ok());
  }
  EXPECT_TRUE(router.Route("e", "", {}, &queues).ok());
  ASSERT_TRUE(router.CreateBinding(ToQueue("e", "q", "d"), 2).ok());
  EXPECT_EQ(ReasonOf(router.Route("e", "", {}, &queues)), ErrorReason::kRouteTooLarge);
}

TEST(RouterLimitsTest, TheMessagesOfAPublishShareTheBindingsThatMayBeLookedAt) {
  Router router(RouterOptions{});
  ASSERT_TRUE(router.CreateExchange(Of("e", ExchangeType::kFanout), 1).ok());
  for (const char* key : {"a", "b", "c"}) {
    ASSERT_TRUE(router.CreateBinding(ToQueue("e", "q", key), 2).ok());
  }
  std::vector<const std::string*> queues;
  int64_t steps_left = 6;
  EXPECT_TRUE(router.Route("e", "", {}, &queues, &steps_left).ok());
  EXPECT_TRUE(router.Route("e", "", {}, &queues, &steps_left).ok());
  EXPECT_EQ(ReasonOf(router.Route("e", "", {}, &queues, &steps_left)),
            ErrorReason::kRouteTooLarge);
}

// ---- routing

TEST_F(RouterTest, AnUnknownExchangeIsAnError) {
  EXPECT_EQ(ReasonOf(RouteError("none")), ErrorReason::kExchangeNotFound);
}

TEST_F(RouterTest, DirectTakesTheEqualKey) {
  Make("e", ExchangeType::kDirect);
  Bind(ToQueue("e", "b", "k"));
  Bind(ToQueue("e", "a", "k"));
  Bind(ToQueue("e", "c", ""));
  Bind(ToQueue("e", "d", "#"));
  EXPECT_THAT(Route("e", "k"), ElementsAre("a", "b"));
  EXPECT_THAT(Route("e", ""), ElementsAre("c"));
  EXPECT_THAT(Route("e", "x"), IsEmpty());
}

TEST_F(RouterTest, FanoutTakesAllAndEachQueueOnce) {
  Make("e", ExchangeType::kFanout);
  EXPECT_THAT(Route("e"), IsEmpty());
  Bind(ToQueue("e", "b", "x"));
  Bind(ToQueue("e", "a"));
  Bind(ToQueue("e", "b", "y"));
  EXPECT_THAT(Route("e", "any"), ElementsAre("a", "b"));
  ASSERT_TRUE(router_.DeleteBinding(ToQueue("e", "b", "x")).ok());
  EXPECT_THAT(Route("e"), ElementsAre("a", "b"));
}

TEST_F(RouterTest, TopicTakesThePatternsThatMatch) {
  Make("e", ExchangeType::kTopic);
  Bind(ToQueue("e", "eu", "orders.eu.*"));
  Bind(ToQueue("e", "all", "orders.#"));
  Bind(ToQueue("e", "new", "#.new"));
  EXPECT_THAT(Route("e", "orders.eu.new"), ElementsAre("all", "eu", "new"));
  EXPECT_THAT(Route("e", "orders"), ElementsAre("all"));
  EXPECT_THAT(Route("e", "orders.eu.a.b"), ElementsAre("all"));
}

TEST_F(RouterTest, HeadersWantAllOrAny) {
  Make("e", ExchangeType::kHeaders);
  Bind(ByHeaders("e", "all", {{"a", "1"}, {"b", "2"}}, HeaderMatch::kAll));
  Bind(ByHeaders("e", "any", {{"a", "1"}, {"b", "2"}}, HeaderMatch::kAny));
  Bind(ByHeaders("e", "none", {}, HeaderMatch::kAll));
  EXPECT_THAT(Route("e", "", {{"b", "2"}, {"c", "3"}, {"a", "1"}}),
              ElementsAre("all", "any", "none"));
  EXPECT_THAT(Route("e", "", {{"a", "1"}}), ElementsAre("any", "none"));
  EXPECT_THAT(Route("e", "", {{"a", "2"}, {"b", "1"}}), ElementsAre("none"));
  EXPECT_THAT(Route("e"), ElementsAre("none"));
}

TEST_F(RouterTest, AnEmptyHeaderValueMeansTheEmptyValue) {
  Make("e", ExchangeType::kHeaders);
  Bind(ByHeaders("e", "q", {{"a", ""}}, HeaderMatch::kAll));
  EXPECT_THAT(Route("e", "", {{"a", ""}}), ElementsAre("q"));
  EXPECT_THAT(Route("e", "", {{"a", "1"}}), IsEmpty());
  EXPECT_THAT(Route("e"), IsEmpty());
}

TEST_F(RouterTest, HeaderBindingsGoFromWhereverTheyWereFiled) {
  Make("e", ExchangeType::kHeaders);
  std::vector<Binding> bindings;
  for (int i = 0; i < 20; ++i) {
    for (const HeaderMatch match : {HeaderMatch::kAll, HeaderMatch::kAny}) {
      bindings.push_back(ByHeaders("e", absl::StrCat("q", i % 7),
                                   {{"common", "x"}, {"own", absl::StrCat(i)}}, match));
      Bind(bindings.back());
    }
  }
  EXPECT_EQ(Route("e", "", {{"common", "x"}}).size(), 7u);
  EXPECT_EQ(Route("e", "", {{"common", "x"}, {"own", "3"}}).size(), 7u);
  EXPECT_THAT(Route("e", "", {{"own", "3"}}), ElementsAre("q3"));
  for (const Binding& binding : bindings) ASSERT_TRUE(router_.DeleteBinding(binding).ok());
  EXPECT_THAT(Route("e", "", {{"common", "x"}, {"own", "3"}}), IsEmpty());
}

TEST_F(RouterTest, AnExchangeHandsOnToExchangesEachOnce) {
  Make("in", ExchangeType::kDirect);
  Make("topic", ExchangeType::kTopic);
  Make("all", ExchangeType::kFanout);
  Bind(ToExchange("in", "topic", "a.b"));
  Bind(ToExchange("in", "all", "a.b"));
  Bind(ToExchange("topic", "all", "a.*"));
  Bind(ToExchange("all", "in"));  // a ring
  Bind(ToQueue("topic", "q1", "#.b"));
  Bind(ToQueue("all", "q2"));
  Bind(ToQueue("all", "q1"));
  EXPECT_THAT(Route("in", "a.b"), ElementsAre("q1", "q2"));
  EXPECT_THAT(Route("all", "a.b"), ElementsAre("q1", "q2"));
  EXPECT_THAT(Route("in", "c"), IsEmpty());
}

TEST_F(RouterTest, TheAlternateTakesWhatItsExchangeHasNoRouteFor) {
  Make("rest", ExchangeType::kFanout);
  Make("e", ExchangeType::kDirect, "rest");
  Make("front", ExchangeType::kFanout);
  Bind(ToQueue("rest", "unrouted"));
  Bind(ToQueue("e", "q", "k"));
  EXPECT_THAT(Route("e", "k"), ElementsAre("q"));
  EXPECT_THAT(Route("e", "other"), ElementsAre("unrouted"));
  // Also for what was handed on to it.
  Bind(ToExchange("front", "e"));
  EXPECT_THAT(Route("front", "other"), ElementsAre("unrouted"));
  // One that handed on has found a route, though that one leads nowhere.
  Make("dead-end", ExchangeType::kFanout);
  Bind(ToExchange("e", "dead-end", "d"));
  EXPECT_THAT(Route("e", "d"), IsEmpty());
}

TEST_F(RouterTest, AlternatesInARingEnd) {
  Make("a", ExchangeType::kDirect);
  Make("b", ExchangeType::kDirect, "a");
  ExchangeChange change;
  change.name = "a";
  change.alternate_exchange = "b";
  ASSERT_TRUE(*router_.UpdateExchange(change, false));
  EXPECT_THAT(Route("a", "x"), IsEmpty());
}

TEST_F(RouterTest, RestoredExchangesMayNameAlternatesThatComeLater) {
  ASSERT_TRUE(router_.RestoreExchange({"e", ExchangeType::kDirect, "rest", {}}, 1).ok());
  ASSERT_TRUE(router_.RestoreExchange({"rest", ExchangeType::kFanout, "", {}}, 2).ok());
  Bind(ToQueue("rest", "q"));
  EXPECT_THAT(Route("e", "x"), ElementsAre("q"));
  EXPECT_EQ(ReasonOf(router_.RestoreExchange({"e", ExchangeType::kDirect, "", {}}, 3)),
            ErrorReason::kDataDamaged);
}

}  // namespace
}  // namespace sluice::broker
