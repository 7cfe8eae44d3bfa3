// Redrive: dead letters go back to where they came from, at a pace, and a call that was cut short
// is finished by the next.
#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

constexpr grpc::StatusCode kInvalid = grpc::StatusCode::INVALID_ARGUMENT;

class RedriveTest : public FeatureTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    MakeQueue("dead");
    for (const char* name : {"q", "other"}) Create(QueueWithDeadLetters(name, "dead", 1));
  }
  // Publishes to the queue and lets all die, in that order.
  void LetDie(const std::string& queue, const std::vector<std::string>& bodies) {
    const int64_t before = Stats("dead").ready();
    Publish(queue, bodies);
    v1::NackRequest request;
    request.set_queue(queue);
    for (const v1::Delivery& delivery : ReceiveAll(queue, bodies.size())) {
      request.add_items()->set_receipt(delivery.receipt());
    }
    v1::NackResponse response;
    ASSERT_THAT(CallQueues(&QueueService::Stub::Nack, request, &response), IsOk());
    AwaitReady("dead", before + static_cast<int64_t>(bodies.size()));
  }
  v1::RedriveMessagesRequest From(const std::string& queue) {
    v1::RedriveMessagesRequest request;
    request.set_queue(queue);
    return request;
  }
  // The last answer of the stream.
  v1::RedriveMessagesResponse Redrive(const v1::RedriveMessagesRequest& request) {
    grpc::Status status;
    v1::RedriveMessagesResponse last = TryRedrive(request, &status);
    EXPECT_THAT(status, IsOk());
    return last;
  }
  v1::RedriveMessagesResponse TryRedrive(const v1::RedriveMessagesRequest& request,
                                         grpc::Status* status) {
    auto context = NewContext();
    auto reader = client_->admin->RedriveMessages(context.get(), request);
    v1::RedriveMessagesResponse last;
    for (v1::RedriveMessagesResponse response; reader->Read(&response);) {
      EXPECT_GE(response.moved(), last.moved());
      last = response;
    }
    *status = reader->Finish();
    return last;
  }
};

TEST_F(RedriveTest, EachGoesBackToWhereItDiedLastInItsOrder) {
  LetDie("q", {"q1", "q2"});
  LetDie("other", {"other1"});
  const v1::RedriveMessagesResponse done = Redrive(From("dead"));
  EXPECT_EQ(done.moved(), 3);
  EXPECT_EQ(done.skipped(), 0);
  EXPECT_EQ(done.remaining(), 0);
  EXPECT_EQ(Total("redriven", "dead"), 3);
  const std::vector<v1::Delivery> back = ReceiveAll("q", 2);
  EXPECT_THAT(BodiesOf(back), ElementsAre("q1", "q2"));
  EXPECT_EQ(back[0].attempt(), 1) << "it has all its attempts again";
  ASSERT_EQ(back[0].deaths_size(), 1) << "what happened to it is not forgotten";
  EXPECT_EQ(back[0].deaths(0).queue(), "q");
  EXPECT_THAT(Drain("other"), ElementsAre("other1"));
  EXPECT_THAT(Receive("dead", 1, absl::ZeroDuration()), IsEmpty());

  // Dying once more for the same reason is one record that counts.
  Nack("q", back[0].receipt(), v1::NACK_ACTION_RETRY);
  const v1::Delivery again = ReceiveAll("dead", 1)[0];
  ASSERT_EQ(again.deaths_size(), 1);
  EXPECT_EQ(again.deaths(0).count(), 2);
}

TEST_F(RedriveTest, ElsewhereAlsoTakesWhatNeverDied) {
  MakeQueue("elsewhere");
  LetDie("q", {"died"});
  Send("dead", MessageOf("published here"));
  EXPECT_EQ(Redrive(From("dead")).skipped(), 1);
  EXPECT_THAT(Drain("q"), ElementsAre("died"));
  v1::RedriveMessagesRequest request = From("dead");
  request.set_to_queue("elsewhere");
  EXPECT_EQ(Redrive(request).moved(), 1);
  EXPECT_THAT(Drain("elsewhere"), ElementsAre("published here"));
}

TEST_F(RedriveTest, AFilterAndALimitSelectAndADryRunOnlyCounts) {
  LetDie("q", {"q1", "q2", "q3"});
  LetDie("other", {"other1"});
  v1::RedriveMessagesRequest request = From("dead");
  request.mutable_filter()->set_death_queue("q");
  request.set_dry_run(true);
  EXPECT_EQ(Redrive(request).moved(), 3);
  EXPECT_EQ(Stats("dead").ready(), 4);
  request.set_dry_run(false);
  request.set_max_messages(2);
  EXPECT_EQ(Redrive(request).moved(), 2);
  EXPECT_THAT(Drain("q"), ElementsAre("q1", "q2"));
  request = From("dead");
  request.mutable_filter()->add_death_reasons(v1::DEATH_REASON_EXPIRED);
  EXPECT_EQ(Redrive(request).moved(), 0);
  EXPECT_THAT(BodiesOf(List("dead")), ElementsAre("q3", "other1"));
}

TEST_F(RedriveTest, WhatIsHeldOrHasNoWayBackIsSkipped) {
  v1::QueueConfig small = QueueWithDeadLetters("small", "dead", 1);
  small.set_max_length(1);
  Create(small);
  LetDie("other", {"gone"});
  LetDie("small", {"s1"});
  LetDie("q", {"held"});
  Send("small", MessageOf("in the way"));
  DeleteQueue("other");
  const std::vector<v1::Delivery> leased = Receive("dead", 3);
  ASSERT_EQ(leased.size(), 3u);
  for (int i = 0; i < 2; ++i) Nack("dead", leased[i].receipt(), v1::NACK_ACTION_RELEASE);
  AwaitReady("dead", 2);
  const v1::RedriveMessagesResponse done = Redrive(From("dead"));
  EXPECT_EQ(done.moved(), 0);
  EXPECT_EQ(done.skipped(), 3);
  Ack("small", ReceiptsOf(ReceiveAll("small", 1)));
  Nack("dead", leased[2].receipt(), v1::NACK_ACTION_RELEASE);
  AwaitReady("dead", 3);
  EXPECT_EQ(Redrive(From("dead")).moved(), 2);
  EXPECT_THAT(BodiesOf(List("dead")), ElementsAre("gone"));
}

TEST_F(RedriveTest, WhatFailsAgainDoesNotGoInCircles) {
  const std::vector<std::string> bodies = Numbered("m", 300);
  LetDie("q", bodies);
  // A consumer that fails everything at once.
  ConsumeStream consumer(*client_, SubscribeTo("q"));
  v1::RedriveMessagesRequest request = From("dead");
  request.mutable_rate()->set_per_second(300);
  request.mutable_rate()->set_burst(100);
  auto context = NewContext();
  auto reader = client_->admin->RedriveMessages(context.get(), request);
  for (size_t i = 0; i < bodies.size(); ++i) {
    const std::optional<v1::Delivery> delivery = consumer.Next();
    ASSERT_TRUE(delivery);
    EXPECT_EQ(delivery->deaths(0).count(), 1);
    consumer.Nack(static_cast<int64_t>(i), delivery->receipt(), v1::NACK_ACTION_RETRY);
  }
  v1::RedriveMessagesResponse last;
  for (v1::RedriveMessagesResponse response; reader->Read(&response);) last = response;
  EXPECT_THAT(reader->Finish(), IsOk());
  EXPECT_EQ(last.moved(), 300);
  AwaitReady("dead", 300);
}

TEST_F(RedriveTest, ACrashInTheMiddleLosesNothingAndTheNextCallFinishes) {
  const std::vector<std::string> bodies = Numbered("m", 1000);
  LetDie("q", bodies);
  v1::RedriveMessagesRequest request = From("dead");
  request.mutable_rate()->set_per_second(100);
  request.mutable_rate()->set_burst(100);
  {
    auto context = NewContext();
    auto reader = client_->admin->RedriveMessages(context.get(), request);
    ASSERT_TRUE(WaitUntil([&] { return Stats("q").ready() >= 100; }));
    server_.Kill();
    for (v1::RedriveMessagesResponse response; reader->Read(&response);) {
    }
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  }
  StartServer();
  const int64_t moved = Stats("q").ready();
  EXPECT_GE(moved, 100) << "what was moved stays moved";
  EXPECT_LT(moved, 1000);
  EXPECT_EQ(moved + Stats("dead").ready(), 1000) << "nothing twice, nothing lost";
  const v1::RedriveMessagesResponse rest = Redrive(From("dead"));
  EXPECT_EQ(rest.moved(), 1000 - moved);
  EXPECT_EQ(rest.remaining(), 0);
  EXPECT_THAT(Drain("q"), ElementsAreArray(bodies));
  EXPECT_EQ(Redrive(From("dead")).moved(), 0);
}

TEST_F(RedriveTest, ACleanStopEndsItWithAReasonAndTheNextCallFinishes) {
  LetDie("q", Numbered("m", 300));
  v1::RedriveMessagesRequest request = From("dead");
  request.mutable_rate()->set_per_second(50);
  request.mutable_rate()->set_burst(50);
  auto context = NewContext();
  auto reader = client_->admin->RedriveMessages(context.get(), request);
  ASSERT_TRUE(WaitUntil([&] { return Stats("q").ready() >= 50; }));
  server_.SignalTerminate();
  for (v1::RedriveMessagesResponse response; reader->Read(&response);) {
  }
  EXPECT_THAT(reader->Finish(), FailsWith(grpc::StatusCode::UNAVAILABLE, "DRAINING"));
  const absl::StatusOr<int> code = server_.WaitForExit(absl::Seconds(20));
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_EQ(*code, 0);
  StartServer();
  const int64_t moved = Stats("q").ready();
  EXPECT_EQ(Redrive(From("dead")).moved(), 300 - moved);
  EXPECT_EQ(Drain("q").size(), 300u);
}

TEST_F(RedriveTest, RefusesWhatItCannotDo) {
  grpc::Status status;
  TryRedrive(From("nowhere"), &status);
  EXPECT_THAT(status, FailsWith(grpc::StatusCode::NOT_FOUND, "QUEUE_NOT_FOUND"));
  v1::RedriveMessagesRequest request = From("dead");
  request.set_to_queue("nowhere");
  TryRedrive(request, &status);
  EXPECT_THAT(status, FailsWith(grpc::StatusCode::NOT_FOUND, "QUEUE_NOT_FOUND"));
  request.set_to_queue("dead");
  TryRedrive(request, &status);
  EXPECT_THAT(status, FailsWithField(kInvalid, "INVALID_FIELD", "to_queue"));
  request = From("dead");
  request.set_max_messages(-1);
  TryRedrive(request, &status);
  EXPECT_THAT(status, FailsWithField(kInvalid, "INVALID_FIELD", "max_messages"));
  request = From("dead");
  request.mutable_rate()->set_per_second(0);
  TryRedrive(request, &status);
  EXPECT_THAT(status, FailsWithField(kInvalid, "INVALID_FIELD", "rate.per_second"));
}

}  // namespace
}  // namespace sluice::testing
