// wait_when_full: who waits for room, in which order they get it, and how a wait ends.
#include "tests/unit/broker/room_fixture.h"

namespace sluice::broker {
namespace {

using ::sluice::testing::MakePublish;
using ::sluice::testing::TestMessage;
using Bodies = std::vector<std::string>;

class WaitingForRoom : public Room {
 protected:
  Reply Start(Publish publish, uint64_t caller) {
    PublishCommand command;
    command.publish = std::move(publish);
    command.caller = caller;
    Reply reply;
    command.done = reply.Done();
    shard_.Start(std::move(command));
    return reply;
  }
  // The same to the exchange x.
  Reply StartRouted(Publish publish, uint64_t caller) {
    publish.queue.clear();
    publish.exchange = "x";
    return Start(std::move(publish), caller);
  }
  void AckOne(const std::string& queue = "q") {
    const auto got = shard_.Receive(queue);
    ASSERT_EQ(got.size(), 1u);
    EXPECT_TRUE(shard_.Ack(queue, got[0].receipt).ok());
  }
};


TEST_F(WaitingForRoom, APublishWaitsForRoomAndKeepsItsPlace) {
  Create(Limited(2));
  shard_.Send("q", {{"a"}, {"b"}});
  const auto first = shard_.StartPublish(Waiting({{"c"}}, 5000));
  const auto second = shard_.StartPublish(Waiting({{"d"}}, 5000));
  shard_.Pass(1000);
  EXPECT_FALSE(first.answered());
  const auto got = shard_.Receive("q", 2);
  ASSERT_EQ(got.size(), 2u);
  ASSERT_TRUE(shard_.Ack("q", got[0].receipt).ok());
  EXPECT_TRUE(first.answered());
  EXPECT_TRUE((*first).ok());
  EXPECT_FALSE(second.answered());
  ASSERT_TRUE(shard_.Ack("q", got[1].receipt).ok());
  ASSERT_TRUE(second.answered());
  EXPECT_TRUE((*second).ok());
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"c", "d"}));
}

TEST_F(WaitingForRoom, WhoHasGoneTakesItsWaitingPublishesWithIt) {
  Create(Limited(1));
  shard_.Send("q", {{"a"}});
  const auto first = Start(Waiting({{"gone"}}, 60'000), 7);
  const auto second = Start(Waiting({{"stays"}}, 60'000), 8);
  const auto third = Start(Waiting({{"gone as well"}}, 60'000), 7);
  shard_.Run(AbandonPublishesCommand{7});
  for (const auto& gone : {first, third}) {
    ASSERT_TRUE(gone.answered());
    EXPECT_TRUE(absl::IsCancelled((*gone).status())) << (*gone).status();
  }
  EXPECT_FALSE(second.answered());
  const auto got = shard_.Receive("q");
  ASSERT_TRUE(shard_.Ack("q", got.at(0).receipt).ok());
  ASSERT_TRUE(second.answered());
  EXPECT_TRUE((*second).ok()) << "nothing is left before it";
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"stays"});
  shard_.Run(AbandonPublishesCommand{8});
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"stays"}) << "what is stored stays";
}

// Callers of an exchange that wait for one full queue.
class RoomOfAnExchange : public WaitingForRoom {
 protected:
  void SetUp() override {
    Create(Limited(2));
    shard_.Fanout("x", {"q"});
    shard_.Send("q", {{"1"}, {"2"}});
  }
  Reply Wait(uint64_t caller, const std::vector<TestMessage>& messages, int64_t wait_ms = 60'000) {
    const Reply reply = StartRouted(Waiting(messages, wait_ms), caller);
    shard_.RunUntilQuiet();
    return reply;
  }
};

TEST_F(RoomOfAnExchange, WhoCameFirstIsServedFirst) {
  const Reply a1 = Wait(1, {{"a1"}});
  const Reply a2 = Wait(1, {{"a2"}});
  const Reply b1 = Wait(2, {{"b1"}});
  const Reply c1 = Wait(3, {{"c1"}});
  for (int i = 0; i < 6; ++i) AckOne();
  for (const Reply* reply : {&a1, &a2, &b1, &c1}) EXPECT_TRUE(reply->answered());
  EXPECT_EQ((*a1)->front().id.seq, 3u);
  EXPECT_EQ((*a2)->front().id.seq, 4u);
  EXPECT_EQ((*b1)->front().id.seq, 5u);
  EXPECT_EQ((*c1)->front().id.seq, 6u);
}

TEST_F(RoomOfAnExchange, WhoNeedsMoreKeepsItsTurnUntilItsTimeIsOver) {
  const Reply two = Wait(1, {{"a"}, {"b"}}, 50);
  const Reply one = Wait(2, {{"c"}});
  AckOne();
  EXPECT_FALSE(two.answered());
  EXPECT_FALSE(one.answered()) << "it would overtake";
  shard_.Pass(50);
  EXPECT_EQ(ReasonOf((*two).status()), ErrorReason::kQueueFull);
  EXPECT_TRUE(one.answered()) << "it need not wait for more room to be made";
}

TEST_F(RoomOfAnExchange, WhoComesLaterAndDoesNotWaitOvertakesNobody) {
  const Reply two = Wait(1, {{"a"}, {"b"}});
  AckOne();
  EXPECT_EQ(Refused({{"late"}}), ErrorReason::kQueueFull);
  const Reply late = Wait(2, {{"late"}}, 0);
  EXPECT_EQ(ReasonOf((*late).status()), ErrorReason::kQueueFull);
  AckOne();
  EXPECT_TRUE((*two).ok());
  AckOne();
  EXPECT_EQ(Refused({{"late"}}), ErrorReason::kUnspecified);
}

TEST_F(RoomOfAnExchange, WhoGoesMakesWay) {
  const Reply two = Wait(1, {{"a"}, {"b"}});
  const Reply one = Wait(2, {{"c"}});
  AckOne();
  EXPECT_FALSE(one.answered());
  shard_.Run(AbandonPublishesCommand{1});
  EXPECT_TRUE(one.answered());
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"2", "c"}));
}

TEST_F(WaitingForRoom, TheAnswerOfAWaitingPublishWaitsForTheDisk) {
  Create(Limited(1));
  shard_.Send("q", {{"a"}});
  const auto reply = shard_.StartPublish(Waiting({{"b"}}, 5000));
  const auto got = shard_.Receive("q");
  shard_.StartSettle("q", got[0].receipt, SettleAction::kAck);
  shard_.Turn();
  EXPECT_FALSE(reply.answered());
  shard_.Crash();
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"a"});
}

TEST_F(WaitingForRoom, AWaitEndsOnTimeForEveryoneInTheLine) {
  Create(Limited(1));
  shard_.Send("q", {{"a"}});
  std::vector<Reply> replies;
  for (int i = 0; i < 3; ++i) replies.push_back(shard_.StartPublish(Waiting({{"x"}}, 5000)));
  const auto short_wait = shard_.StartPublish(Waiting({{"y"}}, 1000));
  const auto no_wait = shard_.StartPublish(Waiting({{"z"}}, 0));
  shard_.RunUntilQuiet();
  ASSERT_TRUE(no_wait.answered()) << "it did not ask to wait";
  EXPECT_EQ(ReasonOf((*no_wait).status()), ErrorReason::kQueueFull);
  shard_.Pass(1000);
  EXPECT_TRUE(short_wait.answered());
  shard_.Pass(3999);
  for (const auto& reply : replies) EXPECT_FALSE(reply.answered());
  shard_.Pass(1);
  for (const auto& reply : replies) {
    ASSERT_TRUE(reply.answered());
    EXPECT_EQ(ReasonOf((*reply).status()), ErrorReason::kQueueFull);
  }
  EXPECT_EQ(shard_.ListBodies("q"), Bodies{"a"});
}

TEST_F(WaitingForRoom, PurgeLimitExpiryAndDeleteEndTheWait) {
  Create(Limited(1));
  TestMessage expiring{"a"};
  expiring.ttl_ms = 2000;
  shard_.Send("q", {expiring});
  auto reply = shard_.StartPublish(Waiting({{"b"}}, 60'000));
  shard_.Pass(3000);
  EXPECT_TRUE(reply.answered()) << "expiry makes room";
  reply = shard_.StartPublish(Waiting({{"c"}}, 60'000));
  ASSERT_TRUE(shard_.Purge("q", true).ok());
  EXPECT_TRUE(reply.answered()) << "a purge makes room";
  reply = shard_.StartPublish(Waiting({{"d"}}, 60'000));
  ASSERT_TRUE(shard_.UpdateQueue(Limited(2)).ok());
  EXPECT_TRUE(reply.answered()) << "a larger limit makes room";
  reply = shard_.StartPublish(Waiting({{"e"}}, 60'000));
  ASSERT_TRUE(shard_.DeleteQueue("q").ok());
  ASSERT_TRUE(reply.answered());
  EXPECT_EQ(ReasonOf((*reply).status()), ErrorReason::kQueueNotFound);
}

TEST_F(WaitingForRoom, DrainingEndsTheWait) {
  Create(Limited(1));
  shard_.Send("q", {{"a"}});
  const auto reply = shard_.StartPublish(Waiting({{"b"}}, 60'000));
  shard_.Run(DrainCommand{[] {}});
  ASSERT_TRUE(reply.answered());
  EXPECT_EQ(ReasonOf((*reply).status()), ErrorReason::kDraining);
}

TEST_F(WaitingForRoom, APlainPublishDoesNotOvertakeOneThatWaits) {
  Create(Limited(1));
  ASSERT_TRUE(shard_.CreateQueue("other").ok());
  shard_.Send("q", {{"a"}});
  const auto waiting = shard_.StartPublish(Waiting({{"b"}}, 60'000));
  shard_.Publish("other", {"x"});
  EXPECT_FALSE(waiting.answered()) << "and other queues do not wait for it";
  ASSERT_TRUE(shard_.UpdateQueue(Limited(0)).ok());
  shard_.Publish("q", {"c"});
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"a", "b", "c"}));
}

// Publishes that wait for several queues, or for one in several ways.
class RoomOfSeveral : public WaitingForRoom {
 protected:
  void Make(const std::string& name) {
    QueueConfigChange config = Limited(1);
    config.name = name;
    Create(config);
    shard_.Send(name, {{"0"}});
  }
  static Binding To(const std::string& queue) {
    Binding binding;
    binding.exchange = "x";
    binding.queue = queue;
    return binding;
  }
  // To a queue, or, if there is none, to the exchange. By another caller each time.
  Reply Wait(const std::string& queue, const std::string& body, int64_t wait_ms = 300'000) {
    Publish publish = Waiting({{body}}, wait_ms);
    publish.queue = queue;
    const Reply reply = queue.empty() ? StartRouted(std::move(publish), next_caller_++)
                                      : Start(std::move(publish), next_caller_++);
    shard_.RunUntilQuiet();
    return reply;
  }
  uint64_t next_caller_ = 1;
};

TEST_F(RoomOfSeveral, OneThatGoesToTwoFullQueuesIsServedThoughBothStayInDemand) {
  Make("a");
  Make("b");
  shard_.Fanout("x", {"a", "b"});
  const Reply both = Wait("", "both");
  std::vector<Reply> later;
  for (int i = 0; i < 4 && !both.answered(); ++i) {
    for (const char* queue : {"a", "b"}) {
      later.push_back(Wait(queue, "later"));
      AckOne(queue);
    }
  }
  ASSERT_TRUE(both.answered());
  EXPECT_TRUE((*both).ok());
  EXPECT_FALSE(later.back().answered());
}

TEST_F(RoomOfSeveral, WhoWaitsForAnotherQueueHoldsUpNobody) {
  Make("a");
  Make("b");
  shard_.Fanout("x", {"a", "b"});
  AckOne("a");
  const Reply both = Wait("", "both");  // finds room in a
  const auto direct = shard_.Publish(MakePublish("a", {{"direct"}}));
  EXPECT_TRUE(direct.ok()) << direct.status();
  EXPECT_FALSE(both.answered());
}

TEST_F(RoomOfSeveral, DirectAndRoutedOnesAreServedInOrderOfArrival) {
  Make("q");
  shard_.Fanout("x", {"q"});
  std::vector<std::string> bodies;
  std::vector<Reply> replies;
  for (int i = 0; i < 6; ++i) {
    bodies.push_back((i % 3 == 1 ? "routed " : "direct ") + std::to_string(i));
    replies.push_back(Wait(i % 3 == 1 ? "" : "q", bodies.back()));
  }
  for (const std::string& body : bodies) {
    AckOne("q");
    EXPECT_EQ(shard_.ListBodies("q"), Bodies{body});
  }
}

TEST_F(RoomOfSeveral, RoomForSeveralGoesToTheFirstOnesOfAllLines) {
  Create(Limited(3));
  shard_.Send("q", Many(3));
  shard_.Fanout("x", {"q"});
  const std::vector<Reply> replies = {Wait("q", "direct 0"), Wait("", "routed 1"),
                                      Wait("q", "direct 2"), Wait("q", "direct 3")};
  ASSERT_TRUE(shard_.Purge("q", /*include_leased=*/false).ok());
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"direct 0", "routed 1", "direct 2"}));
}

TEST_F(RoomOfSeveral, AWaiterWhoseRouteIsGoneGoesWhereItsExchangeLeadsNow) {
  Make("a");
  Make("free");
  AckOne("free");
  shard_.Fanout("x", {"a"});
  const Reply rerouted = Wait("", "m");
  shard_.Run(CreateBindingCommand{To("free"), [](const auto& made) { EXPECT_TRUE(made.ok()); }});
  EXPECT_FALSE(rerouted.answered());
  shard_.Run(DeleteBindingCommand{To("a"), [](const auto& gone) { EXPECT_TRUE(gone.ok()); }});
  shard_.RunUntilQuiet();
  ASSERT_TRUE(rerouted.answered());
  EXPECT_EQ(shard_.ListBodies("free"), Bodies{"m"});
  const Reply refused = Wait("", "n");
  shard_.Run(DeleteExchangeCommand{"x", false, [](const auto& gone) { EXPECT_TRUE(gone.ok()); }});
  shard_.RunUntilQuiet();
  ASSERT_TRUE(refused.answered());
  EXPECT_EQ(ReasonOf((*refused).status()), ErrorReason::kExchangeNotFound);
}

TEST_F(RoomOfSeveral, ThoseWhoseRoutesChangeStayInOrderOfArrival) {
  Make("a");
  QueueConfigChange free = Limited(8);
  free.name = "free";
  Create(free);
  shard_.Fanout("x", {"a"});
  Bodies bodies;
  for (int i = 0; i < 12; ++i) {
    bodies.push_back(std::to_string(i));
    Wait("", bodies.back());
  }
  const auto expect_ok = [](const auto& result) { EXPECT_TRUE(result.ok()); };
  shard_.Apply(CreateBindingCommand{To("free"), expect_ok});
  shard_.Run(DeleteBindingCommand{To("a"), expect_ok});
  EXPECT_EQ(shard_.ListBodies("free"), Bodies(bodies.begin(), bodies.begin() + 8));
}

TEST_F(RoomOfSeveral, AMoveTakesNoRoomThatSomebodyWaitsFor) {
  Create(Limited(2));
  Make("other");
  shard_.Send("q", Many(2));
  const auto two = shard_.StartPublish(Waiting({{"a"}, {"b"}}, 60'000));
  AckOne("q");
  const auto move = [&] {
    EditMessagesCommand command;
    command.queue = "other";
    command.to_queue = "q";
    command.action = EditMessagesCommand::Action::kMove;
    command.positions = {shard_.List("other").at(0).position};
    return *shard_.Edit(std::move(command));
  };
  EXPECT_EQ(move(), 0);
  AckOne("q");
  ASSERT_TRUE(two.answered());
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"a", "b"}));
  AckOne("q");
  EXPECT_EQ(move(), 1);
}

// Where nothing can be dropped, as the dead-letter queue is full.
class RoomWithoutAWayOut : public RoomOfSeveral {
 protected:
  void SetUp() override {
    Make("dead");
    QueueConfigChange config = Limited(2, Overflow::kDropHead);
    config.dead_letter_queue = "dead";
    Create(config);
    shard_.Send("q", Many(2));
    shard_.Fanout("x", {"q"});
  }
};

TEST_F(RoomWithoutAWayOut, WhoComesLaterOvertakesNobody) {
  const auto two = shard_.StartPublish(Waiting({{"a"}, {"b"}}, 60'000));
  AckOne("q");
  const Reply late = Wait("", "late", 0);
  ASSERT_TRUE(late.answered());
  EXPECT_EQ(ReasonOf((*late).status()), ErrorReason::kQueueFull);
  const Reply later = Wait("", "later");
  EXPECT_FALSE(later.answered());
  AckOne("q");
  EXPECT_TRUE(two.answered());
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"a", "b"}));
  AckOne("dead");
  EXPECT_TRUE(later.answered());
  EXPECT_EQ(shard_.ListBodies("q"), (Bodies{"b", "later"}));
}

TEST_F(RoomWithoutAWayOut, WhoDoesNotWaitIsAnsweredThoughItCameBehindOneThatDoes) {
  shard_.Crash();
  const auto waits = shard_.StartPublish(Waiting({{"waits"}}, 60'000));
  ASSERT_GT(shard_.pending_reads(), 0u);
  const Reply does_not = StartRouted(Waiting({{"does not"}}, 0), 100);
  EXPECT_FALSE(does_not.answered());
  shard_.RunUntilQuiet();
  ASSERT_TRUE(does_not.answered());
  EXPECT_EQ(ReasonOf((*does_not).status()), ErrorReason::kQueueFull);
  EXPECT_FALSE(waits.answered());
}

TEST_F(RoomOfSeveral, WhoDoesNotWaitIsRefusedBehindALookupThatFindsNoRoom) {
  QueueConfigChange config = Limited(1);
  config.dedup_window_ms = 60'000;
  Create(config);
  shard_.Send("q", {{"0"}});
  TestMessage known{"known"};
  known.dedup = "1";
  PublishCommand command;
  command.publish = Waiting({known}, 60'000);
  command.caller = 1;
  Reply first;
  command.done = first.Done();
  shard_.Apply(std::move(command));  // asks the store
  const Reply second = shard_.StartPublish(MakePublish("q", {{"impatient"}}));
  EXPECT_FALSE(second.answered());
  shard_.RunUntilQuiet();
  ASSERT_TRUE(second.answered());
  EXPECT_EQ(ReasonOf((*second).status()), ErrorReason::kQueueFull);
  EXPECT_FALSE(first.answered());
}

}  // namespace
}  // namespace sluice::broker
