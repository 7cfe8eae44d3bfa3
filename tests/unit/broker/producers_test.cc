// Idempotent producers: sequences, fencing, and what is remembered.
#include <gtest/gtest.h>

#include "server/broker/producers.h"
#include "server/storage/rows.h"
#include "tests/support/shard_harness.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::MakePublish;
using ::sluice::testing::ShardHarness;
using ::sluice::testing::TestMessage;
using Bodies = std::vector<std::string>;

class ProducersTest : public ::testing::Test {
 protected:
  ProducersTest() { EXPECT_TRUE(shard_.CreateQueue("q").ok()); }
  ProducerOpened Open(const std::string& id = "p") {
    const auto opened = shard_.OpenProducer("q", id);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return opened.ok() ? *opened : ProducerOpened();
  }
  // Publishes the sequences from..to; which were duplicates.
  absl::StatusOr<std::vector<bool>> Send(uint64_t stream, int64_t from, int64_t to) {
    std::vector<TestMessage> messages;
    for (int64_t i = from; i <= to; ++i) messages.push_back({std::to_string(i)});
    const auto result = shard_.Publish(MakePublish("q", messages), stream, from);
    if (!result.ok()) return result.status();
    std::vector<bool> duplicates;
    for (const auto& message : *result) duplicates.push_back(message.duplicate);
    return duplicates;
  }
  void LimitTo(int64_t max_length) {
    QueueConfigChange change;
    change.name = "q";
    change.max_length = max_length;
    ASSERT_TRUE(shard_.UpdateQueue(change).ok());
  }
  // Publishes one sequence that waits for room.
  ShardHarness::PublishReply StartWaiting(uint64_t stream, int64_t sequence, int64_t wait_ms) {
    Publish publish = MakePublish("q", {{std::to_string(sequence)}});
    publish.wait_when_full_ms = wait_ms;
    return shard_.StartPublish(std::move(publish), stream, sequence);
  }
  ShardHarness shard_;
};

TEST_F(ProducersTest, NoSequenceIsStoredTwice) {
  const auto opened = Open();
  EXPECT_EQ(opened.last_sequence, 0);
  EXPECT_EQ(*Send(opened.stream, 1, 3), std::vector<bool>(3, false));
  EXPECT_EQ(*Send(opened.stream, 2, 5), (std::vector<bool>{true, true, false, false}));
  EXPECT_EQ(*Send(opened.stream, 1, 5), std::vector<bool>(5, true));
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"1", "2", "3", "4", "5"}));
}

TEST_F(ProducersTest, ARepeatOfOldSequencesDoesNotSetTheLastOneBack) {
  const auto opened = Open();
  ASSERT_TRUE(Send(opened.stream, 1, 10).ok());
  ASSERT_TRUE(Send(opened.stream, 3, 5).ok());
  EXPECT_EQ(*Send(opened.stream, 9, 11), (std::vector<bool>{true, true, false}));
  shard_.Crash();
  EXPECT_EQ(Open().last_sequence, 11);
}

TEST_F(ProducersTest, ANewStreamGoesOnWhereTheLastStoredOneWasAlsoAfterACrash) {
  ASSERT_TRUE(Send(Open().stream, 1, 3).ok());
  EXPECT_EQ(Open().last_sequence, 3);
  shard_.Crash();
  auto opened = Open();
  EXPECT_EQ(opened.last_sequence, 3);
  shard_.StartPublish(MakePublish("q", {{"lost"}}), opened.stream, 4);
  shard_.Crash();
  opened = Open();
  EXPECT_EQ(opened.last_sequence, 3);
  EXPECT_EQ(*Send(opened.stream, 4, 4), std::vector<bool>{false});
}

TEST_F(ProducersTest, ANewerStreamFencesTheOlderOfTheSameTargetAndIdOnly) {
  const auto old = Open();
  const auto other = Open("other");
  const auto newer = Open();
  EXPECT_EQ(ReasonOf(Send(old.stream, 1, 1).status()), ErrorReason::kProducerFenced);
  EXPECT_TRUE(Send(newer.stream, 1, 1).ok());
  EXPECT_TRUE(Send(other.stream, 1, 1).ok());
  EXPECT_EQ(ReasonOf(Send(old.stream, 1, 1).status()), ErrorReason::kProducerFenced);
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"1", "1"}));
}

TEST_F(ProducersTest, WhatAFencedStreamHasWaitingForRoomIsRefusedAtOnce) {
  LimitTo(1);
  const auto old = Open();
  ASSERT_TRUE(Send(old.stream, 1, 1).ok());
  const auto second = StartWaiting(old.stream, 2, 60'000);
  const auto third = StartWaiting(old.stream, 3, 60'000);
  const auto newer = Open();
  ASSERT_TRUE(second.answered() && third.answered());
  EXPECT_EQ(ReasonOf((*second).status()), ErrorReason::kProducerFenced);
  EXPECT_EQ(ReasonOf((*third).status()), ErrorReason::kProducerFenced);
  ASSERT_TRUE(shard_.Purge("q", false).ok());
  EXPECT_TRUE(Send(newer.stream, 2, 2).ok()) << "nobody is before it";
  EXPECT_EQ(shard_.Totals().producers_fenced, 1u);
}

TEST_F(ProducersTest, NothingAfterARefusedSequenceIsStored) {
  LimitTo(2);
  const auto opened = Open();
  ASSERT_TRUE(Send(opened.stream, 1, 1).ok());
  EXPECT_EQ(ReasonOf(Send(opened.stream, 2, 3).status()), ErrorReason::kQueueFull);
  EXPECT_EQ(ReasonOf(Send(opened.stream, 4, 4).status()), ErrorReason::kSequenceRefused);
  const auto newer = Open();
  EXPECT_EQ(newer.last_sequence, 1);
  EXPECT_TRUE(Send(newer.stream, 2, 2).ok());
}

TEST_F(ProducersTest, WaitingForRoomKeepsTheSequence) {
  LimitTo(1);
  const auto opened = Open();
  ASSERT_TRUE(Send(opened.stream, 1, 1).ok());
  const auto second = StartWaiting(opened.stream, 2, 1000);
  const auto third = StartWaiting(opened.stream, 3, 1000);
  shard_.Pass(1000);
  ASSERT_TRUE(second.answered() && third.answered());
  EXPECT_EQ(ReasonOf((*second).status()), ErrorReason::kQueueFull);
  EXPECT_FALSE((*third).ok());
  ASSERT_TRUE(shard_.Purge("q", false).ok());
  EXPECT_FALSE(Send(opened.stream, 4, 4).ok());
  EXPECT_EQ(shard_.ListBodies("q"), Bodies());
}

TEST_F(ProducersTest, WhatWaitsForRoomIsStoredThoughALaterSequenceWasRefused) {
  LimitTo(1);
  const auto opened = Open();
  ASSERT_TRUE(Send(opened.stream, 1, 1).ok());
  const auto second = StartWaiting(opened.stream, 2, 60'000);
  const auto third = StartWaiting(opened.stream, 3, 10);
  shard_.Pass(10);
  ASSERT_TRUE(third.answered());
  EXPECT_EQ(ReasonOf((*third).status()), ErrorReason::kQueueFull);
  EXPECT_FALSE(second.answered());
  ASSERT_TRUE(shard_.Purge("q", false).ok());
  ASSERT_TRUE(second.answered());
  EXPECT_TRUE((*second).ok()) << (*second).status();
  ASSERT_TRUE(shard_.Purge("q", false).ok());
  EXPECT_EQ(ReasonOf(Send(opened.stream, 3, 3).status()), ErrorReason::kSequenceRefused);
  EXPECT_EQ(Open().last_sequence, 2);
}

TEST_F(ProducersTest, IsForgottenAfterAWeekWithoutAPublish) {
  ASSERT_TRUE(Send(Open().stream, 1, 3).ok());
  shard_.Advance(kProducerKeptMs - 1);
  EXPECT_EQ(Open().last_sequence, 3);
  shard_.Crash();
  shard_.Advance(1);
  EXPECT_EQ(Open().last_sequence, 0);
}

TEST_F(ProducersTest, TheQueueMustExist) {
  EXPECT_EQ(ReasonOf(shard_.OpenProducer("nowhere", "p").status()), ErrorReason::kQueueNotFound);
}

// ---- targets that go

// A stream that keeps what it is told.
struct OpenStream {
  uint64_t stream = 0;
  int64_t last_sequence = 0;
  std::shared_ptr<std::vector<ErrorReason>> ends = std::make_shared<std::vector<ErrorReason>>();
};

class ProducersOfWhatGoes : public ProducersTest {
 protected:
  OpenStream OpenTo(const std::string& queue, const std::string& exchange = "") {
    OpenStream opened;
    testing::Reply<absl::StatusOr<ProducerOpened>> reply;
    OpenProducerCommand command;
    command.queue = queue;
    command.exchange = exchange;
    command.producer_id = "p";
    command.ended = [ends = opened.ends](const absl::Status& why) {
      ends->push_back(ReasonOf(why));
    };
    command.done = reply.Done();
    shard_.Run(std::move(command));
    EXPECT_TRUE((*reply).ok()) << (*reply).status();
    if (!(*reply).ok()) return opened;
    opened.stream = (*reply)->stream;
    opened.last_sequence = (*reply)->last_sequence;
    return opened;
  }
  void Recreate() {
    ASSERT_TRUE(shard_.DeleteQueue("q").ok());
    ASSERT_TRUE(shard_.CreateQueue("q").ok());
  }
  void DeleteExchange() {
    shard_.Run(DeleteExchangeCommand{
        "x", false, [](const absl::Status& status) { EXPECT_TRUE(status.ok()) << status; }});
  }
  ShardHarness::PublishReply StartToExchange(const OpenStream& stream, int64_t sequence,
                                             int64_t wait_ms = 0) {
    Publish publish = MakePublish("", {{std::to_string(sequence)}});
    publish.exchange = "x";
    publish.wait_when_full_ms = wait_ms;
    return shard_.StartPublish(std::move(publish), stream.stream, sequence);
  }
  absl::Status SendToExchange(const OpenStream& stream, int64_t sequence) {
    const auto reply = StartToExchange(stream, sequence);
    shard_.RunUntilQuiet();
    return (*reply).status();
  }
  size_t ProducerRows() {
    size_t rows = 0;
    EXPECT_TRUE(shard_.store().ScanMeta([&](std::string_view key, std::string_view) {
      rows += storage::ParseMetaKey(key)->type == storage::MetaType::kProducer;
      return absl::OkStatus();
    }).ok());
    return rows;
  }
};

TEST_F(ProducersOfWhatGoes, AQueueMadeAnewHasStoredNothingYet) {
  for (const bool crash : {false, true}) {
    ASSERT_TRUE(Send(Open().stream, 1, 3).ok());
    ASSERT_EQ(Open().last_sequence, 3);
    if (crash) shard_.Crash();
    Recreate();
    if (crash) shard_.Crash();
    const auto opened = Open();
    EXPECT_EQ(opened.last_sequence, 0);
    EXPECT_EQ(*Send(opened.stream, 1, 3), std::vector<bool>(3, false));
    EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"1", "2", "3"})) << "what is confirmed is stored";
  }
}

TEST_F(ProducersOfWhatGoes, AnOpenStreamEndsWithItsQueueAndDoesNotGoOnInTheNextOne) {
  const OpenStream old = OpenTo("q");
  ASSERT_TRUE(Send(old.stream, 1, 3).ok());
  shard_.Start(DeleteQueueCommand{.queue = "q", .done = [](const absl::Status&) {}});
  EXPECT_TRUE(old.ends->empty()) << "not before it cannot be undone";
  shard_.RunUntilQuiet();
  EXPECT_EQ(*old.ends, std::vector{ErrorReason::kQueueDeleted});
  EXPECT_EQ(ReasonOf(Send(old.stream, 4, 4).status()), ErrorReason::kQueueDeleted);
  ASSERT_TRUE(shard_.CreateQueue("q").ok());
  EXPECT_EQ(ReasonOf(Send(old.stream, 2, 5).status()), ErrorReason::kQueueDeleted);
  EXPECT_EQ(shard_.ListBodies("q"), Bodies());
  const OpenStream newer = OpenTo("q");
  EXPECT_EQ(newer.last_sequence, 0);
  EXPECT_EQ(ReasonOf(Send(old.stream, 4, 4).status()), ErrorReason::kQueueDeleted);
  EXPECT_TRUE(Send(newer.stream, 1, 1).ok());
  EXPECT_EQ(old.ends->size(), 1u) << "once";
  EXPECT_TRUE(newer.ends->empty());
  EXPECT_EQ(shard_.Totals().producers_fenced, 0u) << "they are two producers";
}

TEST_F(ProducersOfWhatGoes, WhatWaitsForRoomIsRefusedAlsoWhenTheQueueIsMadeAnewAtOnce) {
  LimitTo(1);
  const OpenStream old = OpenTo("q");
  ASSERT_TRUE(Send(old.stream, 1, 1).ok());
  std::vector<ShardHarness::PublishReply> waiting;
  for (int64_t sequence = 2; sequence <= 3; ++sequence) {
    waiting.push_back(StartWaiting(old.stream, sequence, 60'000));
  }
  shard_.Apply(DeleteQueueCommand{.queue = "q", .done = [](const absl::Status&) {}});
  ASSERT_TRUE(shard_.CreateQueue("q").ok());
  for (const auto& reply : waiting) {
    ASSERT_TRUE(reply.answered());
    EXPECT_EQ(ReasonOf((*reply).status()), ErrorReason::kQueueDeleted);
  }
  EXPECT_EQ(shard_.ListBodies("q"), Bodies());
}

TEST_F(ProducersOfWhatGoes, AnExchangeIsNotTheNextOneOfItsNameEither) {
  for (const bool crash : {false, true}) {
    shard_.Fanout("x", {"q"});
    const OpenStream old = OpenTo("", "x");
    EXPECT_EQ(old.last_sequence, 0);
    ASSERT_TRUE(SendToExchange(old, 1).ok());
    DeleteExchange();
    EXPECT_EQ(*old.ends, std::vector{ErrorReason::kExchangeNotFound});
    if (crash) shard_.Crash();
    shard_.Fanout("x", {"q"});
    if (!crash) {
      EXPECT_EQ(ReasonOf(SendToExchange(old, 2)), ErrorReason::kExchangeNotFound);
    }
    const OpenStream newer = OpenTo("", "x");
    EXPECT_EQ(newer.last_sequence, 0);
    ASSERT_TRUE(SendToExchange(newer, 1).ok());
    EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"1", "1"}));
    ASSERT_TRUE(shard_.Purge("q", false).ok());
    DeleteExchange();
  }
}

TEST_F(ProducersOfWhatGoes, AnExchangeThatGoesTakesWhatWaitsForRoomInAQueueAlong) {
  shard_.Fanout("x", {"q"});
  LimitTo(1);
  shard_.Send("q", {{"full"}});
  const OpenStream stream = OpenTo("", "x");
  const auto first = StartToExchange(stream, 1, 60'000);
  const auto second = StartToExchange(stream, 2, 60'000);
  Publish publish = MakePublish("q", {{"waits behind them"}});
  publish.wait_when_full_ms = 60'000;
  const auto other = shard_.StartPublish(std::move(publish));
  shard_.RunUntilQuiet();
  ASSERT_FALSE(first.answered());
  DeleteExchange();
  for (const auto& reply : {first, second}) {
    ASSERT_TRUE(reply.answered());
    EXPECT_EQ(ReasonOf((*reply).status()), ErrorReason::kExchangeNotFound);
  }
  EXPECT_FALSE(other.answered());
  ASSERT_TRUE(shard_.Ack("q", shard_.Receive("q").at(0).receipt).ok());
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"waits behind them"});
}

TEST_F(ProducersOfWhatGoes, TheirRowsGoAlong) {
  shard_.Fanout("x", {"q"});
  ASSERT_TRUE(Send(OpenTo("q").stream, 1, 1).ok());
  ASSERT_TRUE(SendToExchange(OpenTo("", "x"), 1).ok());
  ASSERT_TRUE(shard_.CreateQueue("other").ok());
  const OpenStream other = OpenTo("other");
  ASSERT_TRUE(shard_.Publish(MakePublish("other", {{"m"}}), other.stream, 1).ok());
  EXPECT_EQ(ProducerRows(), 3u);
  DeleteExchange();
  ASSERT_TRUE(shard_.DeleteQueue("q").ok());
  EXPECT_EQ(ProducerRows(), 1u);
  EXPECT_TRUE(other.ends->empty());
}

TEST(Producers, RowsOfEarlierVersionsAreNeverTakenForAnother) {
  const KeyedHash hash(KeyedHash::Key{});
  EXPECT_NE(Producers::HashOf(hash, {.number = 7}, "p"), hash.Wide("q\n7\np"));
  EXPECT_NE(Producers::HashOf(hash, {.is_exchange = true, .number = 7}, "p"),
            hash.Wide("e\n7\np"));
  EXPECT_NE(Producers::HashOf(hash, {.is_exchange = true, .number = 7}, "p"),
            Producers::HashOf(hash, {.number = 7}, "p"));
}

TEST(Producers, ThoseOfWhatIsGoneMakeWayWhenThereAreTooMany) {
  const KeyedHash hash(KeyedHash::Key{});
  constexpr int64_t kNowMs = 1'700'000'000'000;
  Producers producers;
  std::vector<Hash128> forgotten;
  uint64_t stream = 0;
  const auto open = [&](uint64_t queue, uint64_t id) {
    const ProducerTarget target{.number = queue};
    return producers.Open(Producers::HashOf(hash, target, std::to_string(id)), target, ++stream,
                          kNowMs, nullptr, &forgotten);
  };
  for (size_t i = 0; i < kProducersMax; ++i) ASSERT_TRUE(open(i < 10 ? 1 : 2, i).ok());
  EXPECT_EQ(ReasonOf(open(3, 0).status()), ErrorReason::kMemoryFull);
  EXPECT_EQ(producers.RemoveTarget({.number = 1}).size(), 10u);
  EXPECT_EQ(ReasonOf(producers.Check(1, 1, 1).status()), ErrorReason::kQueueDeleted);
  EXPECT_TRUE(open(3, 0).ok());
  EXPECT_EQ(forgotten.size(), 10u);
  EXPECT_EQ(producers.size(), kProducersMax - 9);
}

}  // namespace
}  // namespace sluice::broker
