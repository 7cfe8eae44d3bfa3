// Delayed messages: never early, in order of time, deep, over restarts.
#include <gtest/gtest.h>

#include <random>

#include "server/broker/due_window.h"
#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::BodiesOf;
using ::sluice::testing::BodyOf;
using ::sluice::testing::ShardHarness;
using ::sluice::testing::TestMessage;
using Bodies = std::vector<std::string>;

class Delayed : public ::testing::Test {
 protected:
  Delayed() { EXPECT_TRUE(shard_.CreateQueue("q").ok()); }
  static TestMessage After(const std::string& body, int64_t delay_ms, int priority = 4) {
    TestMessage message{body, priority};
    message.delay_ms = delay_ms;
    return message;
  }
  TestMessage At(const std::string& body, int64_t in_ms) {
    TestMessage message{body};
    message.deliver_at_ms = shard_.now().engine_ms + in_ms;
    return message;
  }
  ShardHarness shard_;
};

TEST_F(Delayed, ADelayIsExactAndATimeThatHasPassedIsAtOnce) {
  const auto sink = shard_.Subscribe("q");
  shard_.Send("q", {After("one", 1), At("two", 2), At("past", -1), At("now", 0)});
  EXPECT_EQ(BodiesOf(sink->Take()), (Bodies{"past", "now"}));
  EXPECT_EQ(shard_.Stats("q").delayed, 2);
  shard_.Pass(1);
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"one"});
  shard_.Pass(1);
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"two"});
  EXPECT_EQ(shard_.Stats("q").delayed, 0);
}

TEST_F(Delayed, LeavesInOrderOfTimeWithItsPriorityAndItsFirstId) {
  const auto ids = shard_.Send(
      "q", {After("c", 3000), After("a", 1000), After("b", 2000), After("high", 3000, 9)});
  shard_.Pass(2999);
  EXPECT_EQ(shard_.Stats("q").ready, 2);
  shard_.Pass(1);
  const auto sink = shard_.Subscribe("q");
  EXPECT_EQ(BodiesOf(sink->Take()), (Bodies{"high", "a", "b", "c"}));
  const auto found = shard_.GetMessage("q", ids[1]);
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(BodyOf(found->payload), "a");
  EXPECT_EQ(found->state, MessageState::kLeased);
}

TEST_F(Delayed, OneThatIsDueBeforeItIsDurableWaitsForTheDisk) {
  const auto sink = shard_.Subscribe("q");
  const auto reply = shard_.StartPublish(::sluice::testing::MakePublish("q", {After("a", 5)}));
  shard_.Advance(5);
  shard_.Advance(5);
  EXPECT_EQ(shard_.pending_reads(), 0u);
  EXPECT_FALSE(reply.answered());
  shard_.RunUntilQuiet();
  shard_.Pass(1);
  EXPECT_TRUE(reply.answered());
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"a"});
}

TEST_F(Delayed, ACrashBeforeThePublishIsDurableLeavesNothing) {
  shard_.StartPublish(::sluice::testing::MakePublish("q", {After("a", 5)}));
  shard_.Crash();
  shard_.Pass(10);
  EXPECT_EQ(shard_.Stats("q").delayed + shard_.Stats("q").ready, 0);
}

TEST_F(Delayed, ComesOnceWhateverStopsInTheMiddleOfItsMove) {
  // The crash takes what was decided and not written; the message must come from one of the lanes.
  for (int commits = 0; commits < 3; ++commits) {
    shard_.Send("q", {After("a", 1000)});
    shard_.Advance(1000);
    shard_.ServeReads();
    for (int i = 0; i < commits; ++i) shard_.Commit();
    shard_.Crash();
    shard_.Pass(1);
    EXPECT_EQ(shard_.Drain("q"), Bodies{"a"}) << commits;
    shard_.Pass(10'000);
    EXPECT_EQ(shard_.Drain("q"), Bodies()) << commits;
  }
}

TEST_F(Delayed, SurvivesRestartsAndComesDueWhileTheServerIsDown) {
  shard_.Send("q", {After("a", 1000), After("b", 100'000)});
  shard_.Crash();
  EXPECT_EQ(shard_.Stats("q").delayed, 2);
  shard_.Pass(999);
  EXPECT_EQ(shard_.Stats("q").ready, 0);
  shard_.CleanStop(/*down_ms=*/50'000);
  shard_.Pass(1);
  EXPECT_EQ(shard_.Drain("q"), Bodies{"a"});
  shard_.Pass(49'000);
  EXPECT_EQ(shard_.Drain("q"), Bodies{"b"});
}

TEST_F(Delayed, APurgeTakesThemToo) {
  shard_.Send("q", {After("a", 1000), After("b", 2000)});
  EXPECT_EQ(*shard_.Purge("q", /*include_leased=*/false), 2);
  shard_.Send("q", {After("c", 1500)});
  shard_.Pass(5000);
  EXPECT_EQ(shard_.Drain("q"), Bodies{"c"});
}

TEST_F(Delayed, DeletingTheQueueForgetsThem) {
  shard_.Send("q", {After("a", 1000)});
  ASSERT_TRUE(shard_.DeleteQueue("q").ok());
  shard_.Pass(2000);
  ASSERT_TRUE(shard_.CreateQueue("q").ok());
  EXPECT_EQ(shard_.Drain("q"), Bodies());
}

TEST_F(Delayed, TheTtlOfADelayedMessageCountsFromItsDueTime) {
  TestMessage message = After("a", 10'000);
  message.ttl_ms = 1000;
  shard_.Send("q", {message});
  shard_.Pass(10'999);
  EXPECT_EQ(shard_.Stats("q").ready, 1);
  shard_.Pass(200);
  EXPECT_EQ(shard_.Stats("q").ready, 0);
  EXPECT_EQ(shard_.GetQueue("q").counters.expired, 1u);
}

// More than the window keeps: it trims, pages, and goes on while publishes come.
TEST_F(Delayed, ADeepScheduleComesWholeAndInTime) {
  std::mt19937 random(7);
  std::map<std::string, int64_t> due_ms;
  int next = 0;
  const auto send = [&](int count) {
    std::vector<TestMessage> messages;
    for (int i = 0; i < count; ++i) {
      const int64_t delay_ms = 1 + static_cast<int64_t>(random() % 60'000);
      const std::string body = std::to_string(next++);
      due_ms[body] = shard_.now().engine_ms + delay_ms;
      messages.push_back(After(body, delay_ms));
    }
    return messages;
  };
  for (int i = 0; i < 25; ++i) shard_.Send("q", send(1000));
  ASSERT_GT(due_ms.size(), 2 * DueWindow::kEntriesMax);
  const auto subscribe = [&] {
    SubscribeCommand command;
    command.queue = "q";
    command.max_in_flight = kMaxInFlightCeiling;
    command.lease_ms = kLeaseMsMax;
    return shard_.Subscribe(std::move(command));
  };
  auto sink = subscribe();
  std::map<std::string, int> seen;
  const auto take = [&] {
    for (const auto& delivery : sink->Take()) {
      const std::string body = BodyOf(delivery);
      EXPECT_GE(shard_.now().engine_ms, due_ms[body]) << "early";
      EXPECT_LE(shard_.now().engine_ms, due_ms[body] + 1001) << "late";
      ++seen[body];
    }
  };
  for (int step = 0; step < 105; ++step) {
    // Some are not durable, and reads are under way, when the next ones come.
    if (step < 40) {
      shard_.StartPublish(::sluice::testing::MakePublish("q", send(100)));
      shard_.Advance(1);
      shard_.ServeReads();
      shard_.StartPublish(::sluice::testing::MakePublish("q", send(100)));
    }
    shard_.Pass(1000);
    take();
    if (step == 20) {
      shard_.CleanStop();
      sink = subscribe();
    }
  }
  EXPECT_EQ(seen.size(), due_ms.size());
  for (const auto& [body, times] : seen) EXPECT_EQ(times, 1) << body;
  EXPECT_EQ(shard_.Stats("q").delayed, 0);
  EXPECT_TRUE(shard_.page_error().ok()) << shard_.page_error();
}

TEST_F(Delayed, ManyThatAreDueAtOnceKeepTheOrderOfPublishing) {
  Bodies bodies;
  const int64_t at_ms = shard_.now().engine_ms + 60'000;
  for (int i = 0; i < 12; ++i) {
    std::vector<TestMessage> messages;
    for (int k = 0; k < 1000; ++k) {
      bodies.push_back(std::to_string(bodies.size()));
      messages.push_back({bodies.back()});
      messages.back().deliver_at_ms = at_ms;
    }
    shard_.Send("q", messages);
  }
  shard_.Pass(60'010);
  EXPECT_EQ(shard_.Stats("q").ready, 12'000);
  EXPECT_EQ(shard_.Drain("q"), bodies);
}

}  // namespace
}  // namespace sluice::broker
