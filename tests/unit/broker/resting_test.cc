// Retries that wait on disk: out of memory, and otherwise as if they were in it.
#include <gtest/gtest.h>

#include <algorithm>

#include "server/storage/rows.h"
#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::BodiesOf;
using ::sluice::testing::ShardHarness;
using Bodies = std::vector<std::string>;

constexpr int kMessages = 20;
constexpr size_t kInMemory = 3;
constexpr int64_t kDelayMs = 10'000;

ShardOptions FewInMemory() {
  ShardOptions options;
  options.retries_in_memory_max = kInMemory;
  return options;
}

Bodies Numbers(int from, int to) {
  Bodies bodies;
  for (int i = from; i < to; ++i) bodies.push_back(std::to_string(i));
  return bodies;
}

// "q" has kMessages, and each was nacked with kDelayMs.
class Resting : public ::testing::Test {
 protected:
  Resting() {
    EXPECT_TRUE(shard_.CreateQueue("q").ok());
    shard_.Publish("q", Numbers(0, kMessages));
    for (const OutgoingDelivery& delivery : shard_.Receive("q", kMessages)) {
      receipts_.push_back(delivery.receipt);
      EXPECT_TRUE(Delay(delivery.receipt).ok());
    }
    EXPECT_EQ(receipts_.size(), static_cast<size_t>(kMessages));
  }
  ~Resting() override {
    EXPECT_TRUE(shard_.page_error().ok()) << shard_.page_error();
    // Whatever was done, nothing is left behind once all is settled.
    shard_.Pass(10 * kDelayMs);
    shard_.Drain("q");
    EXPECT_EQ(shard_.Totals().open_messages, 0u);
    EXPECT_EQ(shard_.Totals().window_bytes, 0u);
    EXPECT_EQ(shard_.Stats("q").delayed + shard_.Stats("q").ready + shard_.Stats("q").leased, 0);
    EXPECT_EQ(HistoryRows(), 0u);
  }

  absl::Status Delay(const Receipt& receipt, int64_t delay_ms = kDelayMs) {
    return shard_.Settle("q", receipt, SettleAction::kDelay, delay_ms);
  }
  static std::vector<int> Sorted(const Bodies& bodies) {
    std::vector<int> numbers;
    for (const std::string& body : bodies) numbers.push_back(std::stoi(body));
    std::sort(numbers.begin(), numbers.end());
    return numbers;
  }
  static std::vector<int> All() { return Sorted(Numbers(0, kMessages)); }
  size_t HistoryRows() {
    size_t count = 0;
    for (const auto& [key, value] : shard_.store().rows()) {
      if (key.first != storage::Family::kMeta) continue;
      count += storage::ParseMetaKey(key.second)->type == storage::MetaType::kHistory;
    }
    return count;
  }

  ShardHarness shard_{FewInMemory()};
  std::vector<Receipt> receipts_;
};

TEST_F(Resting, OnlyAFewAreInMemoryAndAllCountAsDelayed) {
  EXPECT_LE(shard_.Totals().open_messages, kInMemory + 1);
  EXPECT_EQ(shard_.Stats("q").delayed, kMessages);
  EXPECT_EQ(shard_.Stats("q").ready, 0);
}

TEST_F(Resting, NoneIsEarlyAndAllComeWhenTheyAreDue) {
  shard_.Pass(kDelayMs - 1);
  EXPECT_EQ(shard_.Drain("q"), Bodies());
  shard_.Pass(1);
  const auto got = shard_.Receive("q", kMessages);
  EXPECT_EQ(Sorted(BodiesOf(got)), All());
  for (const OutgoingDelivery& delivery : got) {
    EXPECT_EQ(delivery.attempt, 2);
    EXPECT_EQ(delivery.receipt.delivery_count, 2u);
    EXPECT_FALSE(delivery.maybe_redelivered);
    EXPECT_TRUE(shard_.Ack("q", delivery.receipt).ok());
  }
}

// "q" has one message that waits on disk until it is due again.
class OneRests : public ::testing::Test {
 protected:
  OneRests() {
    EXPECT_TRUE(shard_.CreateQueue("q").ok());
    shard_.Publish("q", {"retry"});
    const Receipt receipt = shard_.Receive("q").front().receipt;
    EXPECT_TRUE(shard_.Settle("q", receipt, SettleAction::kDelay, kDelayMs).ok());
  }
  static ShardOptions NoneInMemory() {
    ShardOptions options;
    options.retries_in_memory_max = 0;
    return options;
  }

  ShardHarness shard_{NoneInMemory()};
};

TEST_F(OneRests, AStreamIsNotIdleWhileWhatIsDueIsRead) {
  constexpr int64_t kIdleMs = 100;
  shard_.Pass(kDelayMs - 1);
  SubscribeCommand command;
  command.queue = "q";
  command.max_in_flight = 10;
  command.max_bytes_in_flight = kMaxBytesInFlightDefault;
  command.idle_timeout_ms = kIdleMs;
  const auto sink = shard_.Subscribe(std::move(command));
  shard_.Advance(1);
  ASSERT_EQ(shard_.pending_reads(), 1u);
  shard_.Advance(kIdleMs);
  EXPECT_FALSE(sink->end.has_value());
  ASSERT_TRUE(shard_.ServeReads());
  shard_.RunUntilQuiet();
  EXPECT_EQ(BodiesOf(sink->Take()), Bodies{"retry"});
}

TEST_F(OneRests, ACallThatDoesNotWaitGetsWhatIsDueAndWhatFollows) {
  shard_.Publish("q", {"fresh"});
  shard_.Advance(kDelayMs);
  ASSERT_EQ(shard_.pending_reads(), 1u);
  ReceiveCommand command;
  command.queue = "q";
  command.max_messages = 10;
  command.max_bytes = kResponseBytesMax;
  const auto reply = shard_.StartReceive(std::move(command));
  shard_.Advance(1);
  EXPECT_FALSE(reply.answered()) << "the retry is being read";
  ASSERT_TRUE(shard_.ServeReads());
  shard_.RunUntilQuiet();
  ASSERT_TRUE(reply.answered());
  EXPECT_EQ(BodiesOf(**reply), (Bodies{"retry", "fresh"}));
}

// The receipt of an earlier boot opens a message that is still in the window.
TEST_F(Resting, OneThatIsInTheWindowAsWellIsGrantedOnlyWhenItIsDue) {
  ShardOptions options;
  options.retries_in_memory_max = 0;
  ShardHarness shard(options);
  ASSERT_TRUE(shard.CreateQueue("q").ok());
  shard.Publish("q", {"first", "second"});
  const auto before = shard.Receive("q", 2);
  ASSERT_EQ(BodiesOf(before), (Bodies{"first", "second"}));
  shard.Crash();
  ASSERT_EQ(BodiesOf(shard.Receive("q", 1)), Bodies{"first"});  // both are read for it
  ASSERT_TRUE(
      shard.Settle("q", before[1].receipt, SettleAction::kDelay, kDelayMs).ok());
  EXPECT_EQ(shard.Totals().open_messages, 1u) << "it does not rest";
  EXPECT_EQ(BodiesOf(shard.Receive("q", 1)), Bodies());
  EXPECT_EQ(shard.Stats("q").delayed, 1);
}

TEST_F(Resting, OthersAreNotHeldUpByTheLimitOnOpenMessages) {
  ShardOptions options = FewInMemory();
  options.open_messages_per_queue_max = 5;
  ShardHarness shard(options);
  ASSERT_TRUE(shard.CreateQueue("q").ok());
  shard.Publish("q", Numbers(0, kMessages));
  for (int i = 0; i < kMessages; ++i) {
    const auto got = shard.Receive("q", 1);
    ASSERT_EQ(got.size(), 1u) << i;
    ASSERT_TRUE(shard.Settle("q", got[0].receipt, SettleAction::kDelay, kDelayMs).ok());
  }
}

TEST_F(Resting, ARestartOfEitherKindKeepsThemOutOfMemoryAndKnowsWhenTheyAreDue) {
  for (const bool crash : {true, false}) {
    if (crash) {
      shard_.Crash();
    } else {
      shard_.CleanStop();
    }
    EXPECT_LE(shard_.Totals().open_messages, kInMemory + 1);
    EXPECT_EQ(shard_.Stats("q").delayed, kMessages);
  }
  shard_.Pass(kDelayMs - 1);
  EXPECT_EQ(shard_.Drain("q"), Bodies());
  shard_.Pass(1);
  const auto got = shard_.Receive("q", kMessages);
  EXPECT_EQ(Sorted(BodiesOf(got)), All());
  for (const OutgoingDelivery& delivery : got) {
    EXPECT_EQ(delivery.attempt, 2);
    EXPECT_TRUE(delivery.maybe_redelivered) << "a crash came after they were handed out";
    EXPECT_TRUE(shard_.Ack("q", delivery.receipt).ok());
  }
}

TEST_F(Resting, TheReceiptOfEachStillSettlesIt) {
  for (size_t i = 0; i < receipts_.size(); i += 2) {
    ASSERT_TRUE(shard_.Ack("q", receipts_[i]).ok()) << i;
    ASSERT_TRUE(shard_.Ack("q", receipts_[i]).ok()) << "the same again";
  }
  EXPECT_EQ(shard_.Stats("q").delayed, kMessages / 2);
  EXPECT_EQ(HistoryRows(), static_cast<size_t>(kMessages / 2));
  shard_.Pass(kDelayMs);
  std::vector<int> odd;
  for (int i = 1; i < kMessages; i += 2) odd.push_back(i);
  EXPECT_EQ(Sorted(shard_.Drain("q")), odd);
}

TEST_F(Resting, AReceiptOfAnEarlierHandOutIsRefusedAndTheRetryRestsOn) {
  shard_.Pass(kDelayMs);
  for (const OutgoingDelivery& delivery : shard_.Receive("q", kMessages)) {
    ASSERT_TRUE(Delay(delivery.receipt).ok());
  }
  for (const Receipt& receipt : receipts_) EXPECT_FALSE(shard_.Ack("q", receipt).ok());
  EXPECT_LE(shard_.Totals().open_messages, kInMemory + 1);
  EXPECT_EQ(shard_.Stats("q").delayed, kMessages);
}

TEST_F(Resting, AnotherDelayTakesThePlaceOfTheFirst) {
  for (const Receipt& receipt : receipts_) ASSERT_TRUE(Delay(receipt, 3 * kDelayMs).ok());
  EXPECT_LE(shard_.Totals().open_messages, kInMemory + 1);
  shard_.Pass(3 * kDelayMs - 1);
  EXPECT_EQ(shard_.Drain("q"), Bodies()) << "the due rows of the first time lead nowhere";
  shard_.Pass(1);
  EXPECT_EQ(Sorted(shard_.Drain("q")), All());
}

TEST_F(Resting, OneThatIsDelayedAgainWhileItIsReadKeepsTheLaterTime) {
  // Both ask for the same row; the first answer wakes it, the nack puts it away again.
  const auto delayed = shard_.StartSettle("q", receipts_.back(), SettleAction::kDelay, 5 * kDelayMs);
  const auto released = shard_.StartSettle("q", receipts_.back(), SettleAction::kRelease);
  shard_.RunUntilQuiet();
  ASSERT_TRUE(delayed.answered() && released.answered());
  shard_.Pass(5 * kDelayMs - 1);
  EXPECT_EQ(shard_.Drain("q").size(), static_cast<size_t>(kMessages - 1));
  shard_.Pass(1);
  EXPECT_EQ(shard_.Drain("q"), Bodies{std::to_string(kMessages - 1)});
}

TEST_F(Resting, AreListedAndFoundAsRetriesWithoutComingIntoMemory) {
  const auto listed = shard_.List("q", 4);
  ASSERT_EQ(listed.size(), static_cast<size_t>(kMessages));
  for (const ListedMessage& message : listed) {
    EXPECT_EQ(message.state, MessageState::kDelayed);
    EXPECT_EQ(message.waiting, WaitReason::kRetryBackoff);
    EXPECT_EQ(message.attempt, 2);
    EXPECT_EQ(message.until_ms, shard_.now().engine_ms + kDelayMs);
    const auto found = shard_.GetMessage("q", message.position);
    ASSERT_TRUE(found.ok());
    EXPECT_EQ(found->waiting, WaitReason::kRetryBackoff);
    EXPECT_EQ(found->until_ms, message.until_ms);
  }
  EXPECT_LE(shard_.Totals().open_messages, kInMemory + 1);
}

TEST_F(Resting, OneThatIsBeingReadGoesToRestOnlyAfterwards) {
  const MessagePosition id = shard_.Send("q", {{"read"}})[0];
  const auto got = shard_.Receive("q");
  ASSERT_EQ(got.size(), 1u);
  GetMessageCommand get;
  get.queue = "q";
  get.id = id;
  ::sluice::testing::Reply<absl::StatusOr<ListedMessage>> found;
  get.done = found.Done();
  shard_.Start(std::move(get));
  ASSERT_EQ(shard_.pending_reads(), 1u);
  shard_.StartSettle("q", got[0].receipt, SettleAction::kDelay, kDelayMs);
  while (shard_.Commit()) {
  }
  EXPECT_FALSE(found.answered());
  shard_.RunUntilQuiet();
  ASSERT_TRUE(found.answered() && found->ok());
  EXPECT_EQ((*found)->waiting, WaitReason::kRetryBackoff);
  EXPECT_LE(shard_.Totals().open_messages, kInMemory + 1);
}

TEST_F(Resting, CanBeDeletedAndRescheduledLikeOthers) {
  EditMessagesCommand edit;
  edit.queue = "q";
  edit.action = EditMessagesCommand::Action::kDelete;
  for (int i = 0; i < kMessages; i += 2) edit.positions.push_back(receipts_[i].position);
  EXPECT_EQ(*shard_.Edit(std::move(edit)), kMessages / 2);
  EditMessagesCommand later;
  later.queue = "q";
  later.action = EditMessagesCommand::Action::kReschedule;
  later.delay_ms = 2 * kDelayMs;
  later.positions.push_back(receipts_[kMessages - 1].position);
  EXPECT_EQ(*shard_.Edit(std::move(later)), 1);
  shard_.Pass(kDelayMs);
  std::vector<int> odd;
  for (int i = 1; i < kMessages - 1; i += 2) odd.push_back(i);
  EXPECT_EQ(Sorted(shard_.Drain("q")), odd);
  shard_.Pass(kDelayMs);
  EXPECT_EQ(shard_.Drain("q"), Bodies{std::to_string(kMessages - 1)});
}

TEST_F(Resting, APurgeTakesThemAndTheirRowsAndLeavesWhatIsLeased) {
  shard_.Publish("q", {"leased"});
  const auto leased = shard_.Receive("q");
  ASSERT_EQ(leased.size(), 1u);
  EXPECT_EQ(*shard_.Purge("q", /*include_leased=*/false), kMessages);
  EXPECT_EQ(shard_.Stats("q").delayed, 0);
  EXPECT_EQ(HistoryRows(), 0u);
  EXPECT_FALSE(shard_.Ack("q", receipts_.back()).ok()) << "it was removed";
  EXPECT_TRUE(shard_.Ack("q", leased[0].receipt).ok());
  shard_.Crash();
  shard_.Pass(kDelayMs);
  EXPECT_EQ(shard_.Drain("q"), Bodies());
}

TEST_F(Resting, APageInPassesThem) {
  shard_.Publish("q", {"new"});
  shard_.Crash();
  EXPECT_EQ(shard_.Drain("q"), Bodies{"new"});
}

TEST_F(Resting, DeletingTheQueueForgetsThem) {
  ASSERT_TRUE(shard_.DeleteQueue("q").ok());
  shard_.Pass(2 * kDelayMs);
  ASSERT_TRUE(shard_.CreateQueue("q").ok());
}

TEST(RestingMany, ComeBackAFewAtATimeWhileNobodyTakesThem) {
  constexpr int kMany = 12'000;
  constexpr size_t kComeBack = 6'000;
  ShardHarness shard(FewInMemory());
  ASSERT_TRUE(shard.CreateQueue("q").ok());
  for (int i = 0; i < kMany; i += 1000) {
    shard.Publish("q", Numbers(i, i + 1000));
    SettleCommand settle;
    settle.queue = "q";
    settle.done = [](absl::StatusOr<SettleOutcome> outcome) { EXPECT_TRUE(outcome.ok()); };
    for (const OutgoingDelivery& delivery : shard.Receive("q", 1000)) {
      settle.items.push_back({delivery.receipt, SettleAction::kDelay, kDelayMs});
    }
    shard.Run(std::move(settle));
  }
  shard.Pass(2 * kDelayMs);
  EXPECT_LE(shard.Totals().open_messages, kComeBack);
  const Bodies bodies = shard.Drain("q");
  EXPECT_EQ(bodies.size(), static_cast<size_t>(kMany));
  EXPECT_EQ(shard.Totals().open_messages, 0u);
}

}  // namespace
}  // namespace sluice::broker
