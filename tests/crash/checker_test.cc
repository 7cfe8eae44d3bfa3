// Histories that are right pass, and each way of being wrong is caught by the rule that names it.
#include "tests/crash/checker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sluice::crash {
namespace {

using ::testing::Contains;
using ::testing::Field;

// Builds a history step by step; each step is a tick.
class Story {
 public:
  Story() {
    // One message that a crash brought back, so that the verdict is not "unknown".
    Publish("base");
    Deliver("base", 1, 1);
    Crash();
    Deliver("base", 1, 1).maybe_redelivered = true;
    Settle("base", Action::kAck);
    history.drained = true;
  }

  PublishRecord& Publish(const std::string& id, Outcome outcome = Outcome::kOk) {
    PublishRecord record{.id = id, .queue = "q", .begin = ++tick_, .end = 0, .outcome = outcome};
    record.end = ++tick_;
    history.publishes.push_back(record);
    return history.publishes.back();
  }
  DeliveryRecord& Deliver(const std::string& id, int attempt, int count) {
    DeliveryRecord record;
    record.id = id;
    record.queue = "q";
    record.receipt = last_receipt_ = id + "/" + std::to_string(++receipts_);
    record.message_id = "m-" + id;
    record.stream = 1;
    record.generation = generation_;
    record.attempt = attempt;
    record.delivery_count = count;
    record.at = ++tick_;
    record.at_wall_ms = wall_ms_;
    record.lease_until_wall_ms = wall_ms_ + 1000;
    history.deliveries.push_back(record);
    return history.deliveries.back();
  }
  SettleRecord& Settle(const std::string& id, Action action, Outcome outcome = Outcome::kOk,
                       std::string receipt = "") {
    SettleRecord record;
    record.id = id;
    record.receipt = receipt.empty() ? last_receipt_ : receipt;
    record.action = action;
    record.begin = ++tick_;
    record.end = ++tick_;
    record.outcome = outcome;
    history.settles.push_back(record);
    return history.settles.back();
  }
  void Crash() {
    history.kills.push_back(++tick_);
    ++generation_;
  }
  void Wait(int64_t ms) { wall_ms_ += ms; }
  void Close(uint64_t stream) { history.closes.push_back({stream, ++tick_}); }
  void Depth(int64_t messages) { history.depths.push_back({"q", ++tick_, messages}); }
  const std::string& last_receipt() const { return last_receipt_; }

  History history;

 private:
  Tick tick_ = 0;
  int64_t wall_ms_ = 1'000'000;
  int generation_ = 1;
  int receipts_ = 0;
  std::string last_receipt_;
};

void ExpectPass(const Story& story) {
  const Verdict verdict = Check(story.history);
  for (const Violation& v : verdict.violations) ADD_FAILURE() << v.rule << ": " << v.what;
  EXPECT_EQ(verdict.kind, Verdict::Kind::kPass) << verdict.why_unknown;
}
void ExpectCaught(const Story& story, const std::string& rule) {
  const Verdict verdict = Check(story.history);
  EXPECT_EQ(verdict.kind, Verdict::Kind::kFail);
  EXPECT_THAT(verdict.violations, Contains(Field(&Violation::rule, rule)));
}
void ExpectUnknown(const History& history) {
  EXPECT_EQ(Check(history).kind, Verdict::Kind::kUnknown);
}

TEST(CheckerTest, OrdinaryLifePasses) {
  Story story;
  story.Publish("a");
  story.Deliver("a", 1, 1);
  story.Settle("a", Action::kRetry);
  story.Deliver("a", 2, 2);
  story.Settle("a", Action::kRelease);
  story.Deliver("a", 2, 3);
  story.Wait(2000);
  story.Deliver("a", 3, 4);
  story.Settle("a", Action::kAck);
  story.Settle("a", Action::kAck);
  story.Depth(0);
  ExpectPass(story);
}

TEST(CheckerTest, WhatMayHaveHappenedMayHaveHappenedOrNot) {
  Story story;
  story.Publish("stored", Outcome::kMaybe);
  story.Publish("not stored", Outcome::kMaybe);
  story.Deliver("stored", 1, 1);
  story.Settle("stored", Action::kAck, Outcome::kMaybe);
  ExpectPass(story);
}

TEST(CheckerTest, UnknownWithoutPublishesKillsRedeliveriesOrDrain) {
  ExpectUnknown(History{});
  Story no_kill;
  no_kill.history.kills.clear();
  no_kill.history.deliveries.erase(no_kill.history.deliveries.begin());
  ExpectUnknown(no_kill.history);
  Story no_redelivery;
  no_redelivery.history.deliveries.erase(no_redelivery.history.deliveries.begin());
  ExpectUnknown(no_redelivery.history);
  Story no_drain;
  no_drain.history.drained = false;
  ExpectUnknown(no_drain.history);
}

TEST(CheckerTest, LossOfAConfirmedMessageIsCaught) {
  Story story;
  story.Publish("a");
  ExpectCaught(story, "loss");
}

TEST(CheckerTest, LossBetweenDeliveryAndAckIsCaught) {
  Story story;
  story.Publish("a");
  story.Deliver("a", 1, 1);
  story.Settle("a", Action::kRetry);
  ExpectCaught(story, "loss");
}

TEST(CheckerTest, PhantomsAreCaught) {
  Story unpublished;
  unpublished.Deliver("x", 1, 1);
  ExpectCaught(unpublished, "phantom");

  Story refused;
  refused.Publish("a", Outcome::kRefused);
  refused.Deliver("a", 1, 1);
  ExpectCaught(refused, "phantom");

  Story garbled;
  garbled.Publish("a");
  garbled.Deliver("a", 1, 1).body_intact = false;
  garbled.Settle("a", Action::kAck);
  ExpectCaught(garbled, "phantom");

  Story doubled;
  doubled.Publish("a");
  doubled.Deliver("a", 1, 1);
  doubled.Settle("a", Action::kAck);
  doubled.Deliver("a", 1, 1).message_id = "another";
  ExpectCaught(doubled, "phantom");
}

TEST(CheckerTest, DeliveryAfterAnAckIsCaught) {
  Story story;
  story.Publish("a");
  story.Deliver("a", 1, 1);
  story.Settle("a", Action::kAck);
  story.Deliver("a", 1, 2);
  ExpectCaught(story, "resurrection");
}

TEST(CheckerTest, DeliveryAfterAnAckAndACrashIsCaught) {
  Story story;
  story.Publish("a");
  story.Deliver("a", 1, 1);
  story.Settle("a", Action::kAck);
  story.Crash();
  story.Deliver("a", 1, 1).maybe_redelivered = true;
  ExpectCaught(story, "resurrection");
}

TEST(CheckerTest, LateSightOfAnOlderGrantIsNoResurrection) {
  Story story;
  story.Publish("a");
  story.Deliver("a", 2, 2);
  story.Settle("a", Action::kAck);
  // Lay in a slow consumer's buffer while its lease expired.
  story.Deliver("a", 1, 1).lease_until_wall_ms -= 2000;
  ExpectPass(story);
}

TEST(CheckerTest, SecondLiveLeaseIsCaught) {
  Story story;
  story.Publish("a");
  story.Deliver("a", 1, 1);
  story.Wait(500);
  story.Deliver("a", 2, 2);
  story.Settle("a", Action::kAck);
  ExpectCaught(story, "lease");
}

TEST(CheckerTest, GrantDuringAnExtendedLeaseIsCaught) {
  Story story;
  story.Publish("a");
  story.Deliver("a", 1, 1);
  story.Settle("a", Action::kExtend).lease_until_wall_ms = 1'000'000 + 5000;
  story.Wait(2000);
  story.Deliver("a", 2, 2);
  story.Settle("a", Action::kAck);
  ExpectCaught(story, "lease");
}

TEST(CheckerTest, ClosedStreamEndsItsLeases) {
  Story story;
  story.Publish("a");
  story.Deliver("a", 1, 1);
  story.Close(1);
  story.Deliver("a", 2, 2).stream = 2;
  story.Settle("a", Action::kAck);
  ExpectPass(story);
}

TEST(CheckerTest, WrongAttemptsAreCaught) {
  Story retry_not_counted;
  retry_not_counted.Publish("a");
  retry_not_counted.Deliver("a", 1, 1);
  retry_not_counted.Settle("a", Action::kRetry);
  retry_not_counted.Deliver("a", 1, 2);
  retry_not_counted.Settle("a", Action::kAck);
  ExpectCaught(retry_not_counted, "attempt");

  Story release_counted;
  release_counted.Publish("a");
  release_counted.Deliver("a", 1, 1);
  release_counted.Settle("a", Action::kRelease);
  release_counted.Deliver("a", 2, 2);
  release_counted.Settle("a", Action::kAck);
  ExpectCaught(release_counted, "attempt");

  Story same_twice;
  same_twice.Publish("a");
  same_twice.Deliver("a", 1, 1);
  same_twice.Wait(2000);
  same_twice.Deliver("a", 1, 1);
  same_twice.Settle("a", Action::kAck);
  ExpectCaught(same_twice, "attempt");

  Story unflagged;
  unflagged.Publish("a");
  unflagged.Deliver("a", 1, 1);
  unflagged.Crash();
  unflagged.Deliver("a", 1, 1);
  unflagged.Settle("a", Action::kAck);
  ExpectCaught(unflagged, "attempt");
}

TEST(CheckerTest, AcceptedStaleReceiptIsCaught) {
  Story story;
  story.Publish("a");
  story.Deliver("a", 1, 1);
  const std::string stale = story.last_receipt();
  story.Wait(2000);
  story.Deliver("a", 2, 2);
  story.Settle("a", Action::kAck, Outcome::kOk, stale);
  ExpectCaught(story, "receipt");
}

TEST(CheckerTest, StaleReceiptOfASettledMessageMayBeAccepted) {
  Story story;
  story.Publish("a");
  story.Deliver("a", 1, 1);
  const std::string stale = story.last_receipt();
  story.Wait(2000);
  story.Deliver("a", 2, 2);
  story.Settle("a", Action::kAck);
  story.Settle("a", Action::kAck, Outcome::kOk, stale);
  ExpectPass(story);
}

TEST(CheckerTest, FirstDeliveriesOutOfOrderAreCaughtInFifoQueuesOnly) {
  Story story;
  story.Publish("a");
  story.Publish("b");
  for (const char* id : {"b", "a"}) {
    story.Deliver(id, 1, 1);
    story.Settle(id, Action::kAck);
  }
  ExpectPass(story);
  story.history.fifo_queues.push_back("q");
  ExpectCaught(story, "order");
}

TEST(CheckerTest, BatchOutOfOrderIsCaught) {
  Story story;
  const PublishRecord first = story.Publish("a");
  PublishRecord second = first;
  second.id = "b";
  second.index = 1;
  story.history.publishes.push_back(second);
  for (const char* id : {"b", "a"}) {
    story.Deliver(id, 1, 1);
    story.Settle(id, Action::kAck);
  }
  story.history.fifo_queues.push_back("q");
  ExpectCaught(story, "order");
}

TEST(CheckerTest, ConcurrentPublishesHaveNoOrder) {
  Story story;
  const PublishRecord a = story.Publish("a");
  PublishRecord b = a;
  b.id = "b";
  b.begin = a.end;  // not after it
  b.end = a.end + 1;
  story.history.publishes.push_back(b);
  for (const char* id : {"b", "a"}) {
    story.Deliver(id, 1, 1);
    story.Settle(id, Action::kAck);
  }
  story.history.fifo_queues.push_back("q");
  ExpectPass(story);
}

TEST(CheckerTest, WrongDepthIsCaughtOnBothSides) {
  Story story;
  story.Publish("a");
  story.Publish("maybe", Outcome::kMaybe);
  story.Depth(1);
  story.Depth(2);
  story.Deliver("a", 1, 1);
  story.Settle("a", Action::kAck);
  ExpectPass(story);
  Story too_few = story;
  too_few.history.depths.push_back({"q", too_few.history.publishes.back().end, 0});
  ExpectCaught(too_few, "depth");
  Story too_many = story;
  too_many.Depth(2);
  ExpectCaught(too_many, "depth");
}

}  // namespace
}  // namespace sluice::crash
