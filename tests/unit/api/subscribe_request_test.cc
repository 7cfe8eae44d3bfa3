#include "server/api/subscribe_request.h"

#include <gtest/gtest.h>

#include <limits>

#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

v1::SubscribeRequest Request() {
  v1::SubscribeRequest request;
  request.set_queue("work");
  return request;
}

std::string FieldRefused(const v1::SubscribeRequest& request) {
  const auto command = ToSubscribeCommand(request, {});
  EXPECT_EQ(command.status().code(), absl::StatusCode::kInvalidArgument);
  return FieldOf(command.status());
}

TEST(SubscribeRequestTest, CarriesWhatWasAskedFor) {
  auto request = Request();
  request.set_exclusive(true);
  request.set_consumer_priority(-3);
  request.mutable_delivery_rate()->set_per_second(2.5);
  const auto command = ToSubscribeCommand(request, {});
  ASSERT_TRUE(command.ok()) << command.status();
  EXPECT_EQ(QueueOf(*command), "work");
  EXPECT_TRUE(command->exclusive);
  EXPECT_EQ(command->consumer_priority, -3);
  EXPECT_EQ(command->delivery_rate, (RateLimit{2.5, 2}));
  EXPECT_EQ(command->max_in_flight, kMaxInFlightDefault);
  EXPECT_EQ(ToSubscribeCommand(Request(), {})->delivery_rate, RateLimit());
}

TEST(SubscribeRequestTest, RatesArePositiveFiniteAndBounded) {
  auto request = Request();
  auto* const rate = request.mutable_delivery_rate();
  const auto at = [&](double per_second, int32_t burst) {
    rate->set_per_second(per_second);
    rate->set_burst(burst);
    return ToSubscribeCommand(request, {});
  };
  EXPECT_EQ(at(kRatePerSecondMin, 0)->delivery_rate.burst, 1);
  EXPECT_EQ(at(kRatePerSecondMax, 0)->delivery_rate.burst, kRateBurstMax);
  EXPECT_EQ(at(1, kRateBurstMax)->delivery_rate.burst, kRateBurstMax);
  for (const double bad : {0.0, -1.0, kRatePerSecondMin / 2, kRatePerSecondMax * 2,
                           std::numeric_limits<double>::infinity(),
                           std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_EQ(FieldOf(at(bad, 1).status()), "delivery_rate.per_second") << bad;
  }
  for (const int32_t bad : {-1, kRateBurstMax + 1}) {
    EXPECT_EQ(FieldOf(at(1, bad).status()), "delivery_rate.burst") << bad;
  }
}

TEST(SubscribeRequestTest, ErrorsNameTheFieldBelowWhereTheRequestStands) {
  auto request = Request();
  request.set_max_messages(-1);
  EXPECT_EQ(FieldOf(ToSubscribeCommand(request, "init").status()), "init.max_messages");
  EXPECT_EQ(FieldRefused({}), "queue");
}

TEST(SubscribeRequestTest, TemporaryQueueGetsANameThatNobodyGuesses) {
  v1::SubscribeRequest request;
  auto* const temporary = request.mutable_temporary_queue();
  temporary->mutable_config()->set_max_length(10);
  auto* const binding = temporary->add_bindings();
  binding->set_exchange("events");
  binding->set_binding_key("a.#");
  const auto first = ToSubscribeCommand(request, {});
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = ToSubscribeCommand(request, {});
  const std::string& name = QueueOf(*first);
  const std::string prefix = "sluice.tmp.";
  EXPECT_EQ(name.substr(0, prefix.size()), prefix);
  EXPECT_EQ(name.size(), prefix.size() + 32);
  EXPECT_EQ(name.find_first_not_of("0123456789abcdef", prefix.size()), std::string::npos);
  EXPECT_NE(name, QueueOf(*second));
  EXPECT_EQ(first->queue, "");
  EXPECT_EQ(first->temporary_queue->config.name, name);
  EXPECT_EQ(first->temporary_queue->config.max_length, 10);
  ASSERT_EQ(first->temporary_queue->bindings.size(), 1u);
  EXPECT_EQ(first->temporary_queue->bindings[0].queue, name);
  EXPECT_EQ(first->temporary_queue->bindings[0].binding_key, "a.#");
}

TEST(SubscribeRequestTest, TemporaryQueueIsChecked) {
  auto request = Request();
  request.mutable_temporary_queue();
  EXPECT_EQ(FieldRefused(request), "queue");
  request.clear_queue();
  auto* const temporary = request.mutable_temporary_queue();
  temporary->mutable_config()->set_name("mine");
  EXPECT_EQ(FieldRefused(request), "temporary_queue.config.name");
  temporary->mutable_config()->clear_name();
  temporary->mutable_config()->set_max_length(-1);
  EXPECT_EQ(FieldRefused(request), "temporary_queue.config.max_length");
  temporary->clear_config();
  temporary->add_bindings()->set_exchange("events");
  temporary->mutable_bindings(0)->set_queue("elsewhere");
  EXPECT_EQ(FieldRefused(request), "temporary_queue.bindings[0].destination");
  temporary->mutable_bindings(0)->clear_destination();
  for (int i = 1; i < 100; ++i) *temporary->add_bindings() = temporary->bindings(0);
  EXPECT_TRUE(ToSubscribeCommand(request, {}).ok());
  *temporary->add_bindings() = temporary->bindings(0);
  EXPECT_EQ(FieldRefused(request), "temporary_queue.bindings");
}

}  // namespace
}  // namespace sluice::api
