// Bounds: windows, pages and open messages.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::BodiesOf;
using ::sluice::testing::RecordingSink;
using ::sluice::testing::Reply;
using ::sluice::testing::ShardHarness;

std::vector<std::string> Numbers(int from, int to) {
  std::vector<std::string> bodies;
  for (int i = from; i < to; ++i) bodies.push_back(std::to_string(i));
  return bodies;
}

// Takes and acks everything, in the order of delivery.
std::vector<std::string> Drain(ShardHarness& shard, const std::string& queue) {
  const auto sink = shard.Subscribe(queue, 1000);
  std::vector<std::string> bodies;
  while (sink->waiting() > 0) {
    SettleCommand settle;
    settle.queue = queue;
    settle.done = [](absl::StatusOr<SettleOutcome> outcome) { EXPECT_TRUE(outcome.ok()); };
    for (const auto& delivery : sink->Take()) {
      bodies.push_back(::sluice::testing::BodyOf(delivery));
      settle.items.push_back({delivery.receipt});
    }
    shard.Run(std::move(settle));
  }
  shard.Close(sink);
  return bodies;
}

TEST(Paging, ADeepBacklogIsPagedInOnceAndInOrder) {
  ShardHarness shard;
  ASSERT_TRUE(shard.CreateQueue("q").ok());
  constexpr int kMessages = 20'000;
  for (int i = 0; i < kMessages; i += 1000) shard.Publish("q", Numbers(i, i + 1000));
  EXPECT_EQ(Drain(shard, "q"), Numbers(0, kMessages));
  EXPECT_TRUE(shard.page_error().ok()) << shard.page_error();
  EXPECT_EQ(shard.Totals().window_bytes, 0u);
  EXPECT_EQ(shard.Totals().open_messages, 0u);
  EXPECT_EQ(shard.Stats("q").bytes, 0);
}

TEST(Paging, ABacklogIsPagedInAfterARestartWithHolesLeftOut) {
  ShardHarness shard;
  ASSERT_TRUE(shard.CreateQueue("q").ok());
  shard.Publish("q", Numbers(0, 3000));
  const auto got = shard.Receive("q", 50);
  ASSERT_EQ(got.size(), 50u);
  for (size_t i = 1; i < got.size(); i += 2) ASSERT_TRUE(shard.Ack("q", got[i].receipt).ok());
  shard.Crash();
  std::vector<std::string> expected;
  for (int i = 0; i < 50; i += 2) expected.push_back(std::to_string(i));
  for (const auto& body : Numbers(50, 3000)) expected.push_back(body);
  EXPECT_EQ(Drain(shard, "q"), expected);
}

TEST(Paging, MemoryOfBacklogsThatNobodyConsumesIsBounded) {
  ShardOptions options;
  options.window_bytes_max = 256 * kKiB;
  ShardHarness shard(options);
  const std::vector<std::string> bodies(20, std::string(1000, 'x'));
  for (int i = 0; i < 100; ++i) {
    const std::string name = "q" + std::to_string(i);
    ASSERT_TRUE(shard.CreateQueue(name).ok());
    shard.Publish(name, bodies);
    ASSERT_LE(shard.Totals().window_bytes, options.window_bytes_max);
  }
  // Evicted windows are read again.
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(Drain(shard, "q" + std::to_string(i)), bodies);
  }
  EXPECT_EQ(shard.Totals().window_bytes, 0u);
}

TEST(Paging, ReadsUnderWayCountAgainstTheMemoryLimit) {
  ShardOptions options;
  options.window_bytes_max = 4 * kMiB;
  ShardHarness shard(options);
  constexpr int kQueues = 50;
  for (int i = 0; i < kQueues; ++i) {
    ASSERT_TRUE(shard.CreateQueue("q" + std::to_string(i)).ok());
    shard.Publish("q" + std::to_string(i),
                  std::vector<std::string>(200, std::string(10'000, 'x')));
  }
  shard.Crash();
  for (int i = 0; i < kQueues; ++i) {
    SubscribeCommand subscribe;
    subscribe.queue = "q" + std::to_string(i);
    subscribe.max_in_flight = 1;
    shard.StartSubscribe(std::move(subscribe));
  }
  uint64_t asked = 0;
  for (const auto& read : shard.reads()) asked += read.range.bytes_max;
  // One for each, and the search for what expires.
  EXPECT_EQ(shard.pending_reads(), static_cast<size_t>(kQueues) + 1);
  EXPECT_LE(asked, options.window_bytes_max + kPageBytesMax + kQueues * kSmallPageBytesMax);
  shard.RunUntilQuiet();
}

TEST(Paging, ReturnedPayloadsOfAQueueThatNobodyConsumesAreGivenBack) {
  ShardOptions options;
  options.window_bytes_max = 100 * kKiB;
  ShardHarness shard(options);
  ASSERT_TRUE(shard.CreateQueue("q").ok());
  shard.Publish("q", std::vector<std::string>(20, std::string(10'000, 'x')));
  const auto first = shard.Subscribe("q", 20);
  ASSERT_EQ(first->waiting(), 20u);
  // One credit: the others are fetched and wait.
  const auto second = shard.Subscribe("q", 1);
  shard.Close(first);
  shard.Close(second);
  shard.Turn();
  EXPECT_LE(shard.Totals().window_bytes, options.window_bytes_max);
  EXPECT_EQ(Drain(shard, "q").size(), 20u);
}

TEST(Paging, ALaneWhoseRestIsSettledDoesNotHoldUpLowerPriorities) {
  ShardHarness shard;
  ASSERT_TRUE(shard.CreateQueue("q").ok());
  shard.Publish("q", {"high"}, 9);
  const auto got = shard.Receive("q");
  ASSERT_EQ(got.size(), 1u);
  shard.Publish("q", {"low"}, 0);
  shard.Crash();
  ASSERT_TRUE(shard.Ack("q", got[0].receipt).ok());
  const auto sink = shard.Subscribe("q");
  EXPECT_EQ(BodiesOf(sink->Take()), std::vector<std::string>{"low"});
}

TEST(Limits, AQueueAtItsOpenMessagesGrantsNothingNewUntilSomeAreSettled) {
  ShardOptions options;
  options.open_messages_per_queue_max = 3;
  ShardHarness shard(options);
  ASSERT_TRUE(shard.CreateQueue("q").ok());
  shard.Publish("q", Numbers(0, 5));
  const auto sink = shard.Subscribe("q");
  const auto got = sink->Take();
  ASSERT_EQ(got.size(), 3u);
  EXPECT_EQ(shard.GetQueue("q").waiting.front(), WaitReason::kOpenLimit);
  // A returned message is open already: it may be granted again.
  ASSERT_TRUE(shard.Settle("q", got[0].receipt, SettleAction::kRelease).ok());
  EXPECT_EQ(BodiesOf(sink->Take()), Numbers(0, 1));
  ASSERT_TRUE(shard.Ack("q", got[1].receipt).ok());
  EXPECT_EQ(BodiesOf(sink->Take()), Numbers(3, 4));
}

TEST(Limits, TheShardsLimitIsLiftedForOtherQueuesToo) {
  ShardOptions options;
  options.open_messages_max = 2;
  options.open_messages_reserved = 0;
  ShardHarness shard(options);
  ASSERT_TRUE(shard.CreateQueue("a").ok());
  ASSERT_TRUE(shard.CreateQueue("b").ok());
  shard.Publish("a", Numbers(0, 2));
  shard.Publish("b", Numbers(0, 1));
  const auto holder = shard.Subscribe("a");
  const auto held = holder->Take();
  ASSERT_EQ(held.size(), 2u);
  const auto waiting = shard.Subscribe("b");
  EXPECT_EQ(waiting->waiting(), 0u);
  ASSERT_TRUE(shard.Ack("a", held[0].receipt).ok());
  EXPECT_EQ(waiting->waiting(), 1u);
}

TEST(Limits, DeletingAQueueFreesItsOpenMessages) {
  ShardOptions options;
  options.open_messages_max = 1;
  options.open_messages_reserved = 0;
  ShardHarness shard(options);
  ASSERT_TRUE(shard.CreateQueue("a").ok());
  ASSERT_TRUE(shard.CreateQueue("b").ok());
  shard.Publish("a", Numbers(0, 2));
  shard.Publish("b", Numbers(0, 1));
  shard.Subscribe("a");
  const auto waiting = shard.Subscribe("b");
  EXPECT_EQ(waiting->waiting(), 0u);
  ASSERT_TRUE(shard.DeleteQueue("a").ok());
  EXPECT_EQ(waiting->waiting(), 1u);
}

TEST(Limits, TheAgeOfTheOldestReadyMessageFollowsWhatIsReady) {
  ShardHarness shard;
  ASSERT_TRUE(shard.CreateQueue("q").ok());
  EXPECT_EQ(shard.Stats("q").oldest_ready_age_ms, 0);
  shard.Publish("q", {"1"});
  shard.Advance(5000);
  shard.Publish("q", {"2"});
  EXPECT_EQ(shard.Stats("q").oldest_ready_age_ms, 5000);
  shard.Crash();
  EXPECT_EQ(shard.Stats("q").oldest_ready_age_ms, 0);  // reads it
  EXPECT_EQ(shard.Stats("q").oldest_ready_age_ms, 5000);
  const auto got = shard.Receive("q");
  ASSERT_TRUE(shard.Ack("q", got.at(0).receipt).ok());
  EXPECT_LT(shard.Stats("q").oldest_ready_age_ms, 1000);
}

TEST(Limits, WhatHasLeftFromTheDiskNoLongerCountsForTheAge) {
  ShardOptions options;
  options.window_bytes_max = 0;
  ShardHarness shard(options);
  ASSERT_TRUE(shard.CreateQueue("q").ok());
  shard.Publish("q", {"1"});
  shard.Advance(5000);
  shard.Publish("q", {"2"});
  const auto got = shard.Receive("q");
  shard.Crash();
  shard.Stats("q");  // reads it
  EXPECT_EQ(shard.Stats("q").oldest_ready_age_ms, 5000);
  ASSERT_TRUE(shard.Ack("q", got.at(0).receipt).ok());
  shard.Stats("q");
  EXPECT_EQ(shard.Stats("q").oldest_ready_age_ms, 0);
}

TEST(Limits, AfterARestartTheAgesOfAllQueuesAreKnownAfterOneLook) {
  constexpr int kQueues = 50;
  ShardHarness shard;
  for (int i = 0; i < kQueues; ++i) {
    const std::string name = "q" + std::to_string(i);
    ASSERT_TRUE(shard.CreateQueue(name).ok());
    shard.Publish(name, {"1"});
  }
  shard.Advance(60'000);
  shard.Crash();
  shard.Advance(2'000);
  const auto ages = [&] {
    Reply<ShardInfo> reply;
    InspectCommand command;
    command.done = reply.Done();
    shard.Start(std::move(command));
    std::vector<int64_t> ages;
    for (const QueueInfo& queue : reply->queues) ages.push_back(queue.stats.oldest_ready_age_ms);
    return ages;
  };
  EXPECT_THAT(ages(), ::testing::Each(::testing::Ge(2'000))) << "older than this boot, for sure";
  shard.RunUntilQuiet();
  EXPECT_THAT(ages(), ::testing::Each(::testing::Ge(62'000)));
}

// What is open already is not held up by the limits, and a queue that nobody consumes holds up no
// other.
TEST(Limits, ReturnedMessagesAtTheLimitFreezeNeitherTheirQueueNorOthers) {
  for (const bool per_queue : {true, false}) {
    ShardOptions options;
    (per_queue ? options.open_messages_per_queue_max : options.open_messages_max) = 5;
    ShardHarness shard(options);
    ASSERT_TRUE(shard.CreateQueue("q").ok());
    ASSERT_TRUE(shard.CreateQueue("live").ok());
    shard.Publish("q", {"1", "2", "3", "4", "5"});
    auto sink = shard.Subscribe("q");
    ASSERT_EQ(sink->Take().size(), 5u);
    shard.Close(sink);
    shard.Publish("q", {"urgent"}, 9);
    shard.Publish("live", {"x"});
    for (int boot = 0; boot < 3; ++boot) {
      EXPECT_EQ(shard.Receive("live").size(), 1u) << boot;
      sink = shard.Subscribe("q");
      EXPECT_GE(sink->Take().size(), 5u) << boot;
      shard.Close(sink);
      shard.Pass(kLeaseMsDefault);
      boot == 0 ? shard.CleanStop() : shard.Crash();
    }
  }
}

TEST(Paging, ReturnedPayloadsStayWithinTheWindowLimitWhenTheFirstOnesComeBack) {
  ShardOptions options;
  options.window_bytes_max = 1 * kMiB;
  ShardHarness shard(options);
  ASSERT_TRUE(shard.CreateQueue("q").ok());
  for (int i = 0; i < 10; ++i) {
    shard.Publish("q", std::vector<std::string>(1000, std::string(1000, 'x')));
  }
  SubscribeCommand command;
  command.queue = "q";
  command.max_in_flight = kMaxInFlightCeiling;
  command.max_bytes_in_flight = kMaxBytesInFlightCeiling;
  const auto all = shard.Subscribe(std::move(command));
  ASSERT_EQ(shard.TakeWritten(all), 10'000u);
  const auto sink = shard.Subscribe("q", 1);
  shard.Close(all);
  for (int i = 0; i < 200; ++i) {
    const auto got = sink->Take();
    ASSERT_EQ(got.size(), 1u);
    ASSERT_TRUE(shard.Settle("q", got[0].receipt, SettleAction::kRelease).ok());
  }
  EXPECT_LE(shard.Totals().window_bytes, 2 * options.window_bytes_max + kPageBytesMax);
}

}  // namespace
}  // namespace sluice::broker
