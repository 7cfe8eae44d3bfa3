// Delayed messages: never early, and there to be listed, cancelled and moved to another time.
#include "absl/time/clock.h"
#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr grpc::StatusCode kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
constexpr absl::Duration kLongest = absl::Hours(366 * 24);
// The server's time moves towards the wall's in small steps.
constexpr absl::Duration kClockSlack = absl::Milliseconds(20);

void SetTime(absl::Time time, google::protobuf::Timestamp* out) {
  const int64_t nanos = absl::ToUnixNanos(time);
  out->set_seconds(nanos / 1'000'000'000);
  out->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
}

v1::Message At(const std::string& body, absl::Time time) {
  v1::Message message = MessageOf(body);
  SetTime(time, message.mutable_deliver_at());
  return message;
}

class DelayedTest : public FeatureTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    MakeQueue("q");
  }
  v1::RescheduleMessagesRequest Move(const std::string& id, absl::Duration delay) {
    v1::RescheduleMessagesRequest request;
    request.set_queue("q");
    if (!id.empty()) request.mutable_filter()->add_ids(id);
    *request.mutable_delay() = ToProto(delay);
    return request;
  }
  using FeatureTest::Reschedule;
  int64_t Reschedule(const v1::RescheduleMessagesRequest& request) {
    v1::RescheduleMessagesResponse response;
    EXPECT_THAT(TryReschedule(request, &response), IsOk());
    return response.rescheduled();
  }
  grpc::Status TryReschedule(const v1::RescheduleMessagesRequest& request,
                             v1::RescheduleMessagesResponse* response) {
    return CallAdmin(&AdminService::Stub::RescheduleMessages, request, response);
  }
};

TEST_F(DelayedTest, IsNeverEarlyAndLeavesInOrderOfItsTime) {
  const absl::Time sent = absl::Now();
  SendAll("q", {After("second", absl::Milliseconds(400)), After("first", absl::Milliseconds(200)),
                At("third", sent + absl::Milliseconds(600)), MessageOf("at once")});
  EXPECT_EQ(Stats("q").delayed(), 3);
  const std::pair<const char*, absl::Duration> expected[] = {
      {"at once", absl::ZeroDuration()},
      {"first", absl::Milliseconds(200)},
      {"second", absl::Milliseconds(400)},
      {"third", absl::Milliseconds(600)}};
  for (const auto& [body, delay] : expected) {
    EXPECT_EQ(ReceiveAll("q", 1)[0].message().body(), body);
    EXPECT_GE(absl::Now(), sent + delay - kClockSlack) << body;
  }
}

TEST_F(DelayedTest, ZeroAndThePastAreAtOnce) {
  SendAll("q", {After("zero", absl::ZeroDuration()), At("past", absl::Now() - absl::Hours(1)),
                At("long ago", absl::UnixEpoch())});
  EXPECT_EQ(Stats("q").delayed(), 0);
  EXPECT_THAT(Drain("q"), ElementsAre("zero", "past", "long ago"));
}

TEST_F(DelayedTest, HasItsBounds) {
  Send("q", After("longest", kLongest));
  EXPECT_THAT(TrySend("q", After("longer", kLongest + absl::Milliseconds(1))),
              FailsWithField(kInvalid, "INVALID_FIELD", "messages[0].delay"));
  EXPECT_THAT(TrySend("q", After("negative", -absl::Milliseconds(1))),
              FailsWithField(kInvalid, "INVALID_FIELD", "messages[0].delay"));
  EXPECT_THAT(TrySend("q", At("far", absl::Now() + kLongest + absl::Minutes(1))),
              FailsWithField(kInvalid, "INVALID_FIELD", "messages[0].deliver_at"));
  EXPECT_EQ(Stats("q").delayed(), 1);
}

TEST_F(DelayedTest, KeepsItsPriorityWhenItIsDue) {
  v1::Message high = After("high", absl::Milliseconds(100));
  high.set_priority(9);
  SendAll("q", {After("default", absl::Milliseconds(100)), high, MessageOf("now")});
  AwaitReady("q", 3);
  EXPECT_THAT(Drain("q"), ElementsAre("high", "now", "default"));
}

TEST_F(DelayedTest, IsListedWithItsTimeAndCancelledById) {
  const absl::Time sent = absl::Now();
  const std::string id = Send("q", After("later", absl::Hours(1))).message_id();
  Send("q", MessageOf("now"));
  v1::MessageFilter delayed;
  delayed.add_states(v1::MESSAGE_STATE_DELAYED);
  const std::vector<v1::StoredMessage> listed = List("q", delayed);
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_EQ(listed[0].message().id(), id);
  EXPECT_EQ(listed[0].waiting(), v1::WAIT_REASON_NOT_DUE);
  EXPECT_GE(FromProto(listed[0].until()), sent + absl::Hours(1) - kClockSlack);
  EXPECT_LE(FromProto(listed[0].until()), absl::Now() + absl::Hours(1) + kClockSlack);

  v1::DeleteMessagesRequest request;
  request.set_queue("q");
  request.mutable_filter()->add_ids(id);
  v1::DeleteMessagesResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::DeleteMessages, request, &response), IsOk());
  EXPECT_EQ(response.deleted(), 1);
  EXPECT_EQ(Stats("q").delayed(), 0);
  v1::GetMessageRequest look;
  look.set_queue("q");
  look.set_message_id(id);
  v1::GetMessageResponse found;
  EXPECT_THAT(CallAdmin(&AdminService::Stub::GetMessage, look, &found),
              FailsWith(grpc::StatusCode::NOT_FOUND, "MESSAGE_NOT_FOUND"));
}

TEST_F(DelayedTest, IsMovedToAnotherTimeByItsIdWhichItKeeps) {
  const std::string sooner = Send("q", After("sooner", absl::Hours(1))).message_id();
  const std::string later = Send("q", MessageOf("later")).message_id();
  EXPECT_EQ(Reschedule(Move(sooner, absl::ZeroDuration())), 1);
  EXPECT_EQ(Reschedule(Move(sooner, absl::ZeroDuration())), 0) << "it has that time already";
  EXPECT_EQ(Reschedule(Move(later, absl::Hours(1))), 1);
  const v1::Delivery delivery = ReceiveAll("q", 1)[0];
  EXPECT_EQ(delivery.message().body(), "sooner");
  EXPECT_EQ(delivery.message().id(), sooner);
  EXPECT_EQ(delivery.attempt(), 1);
  EXPECT_THAT(Receive("q", 1, absl::ZeroDuration()), IsEmpty());
  EXPECT_EQ(Look("q", later).state(), v1::MESSAGE_STATE_DELAYED);
  EXPECT_EQ(Reschedule(Move(sooner, absl::Hours(1))), 0) << "what is leased stays as it is";
}

TEST_F(DelayedTest, RescheduleOfARetryKeepsItsAttempts) {
  Send("q", MessageOf("m"));
  const v1::Delivery first = ReceiveAll("q", 1)[0];
  Nack("q", first.receipt(), v1::NACK_ACTION_DELAY, absl::Hours(1));
  v1::StoredMessage waiting = Look("q", first.message().id());
  EXPECT_EQ(waiting.waiting(), v1::WAIT_REASON_RETRY_BACKOFF);
  EXPECT_EQ(Reschedule(Move(first.message().id(), absl::ZeroDuration())), 1);
  EXPECT_EQ(ReceiveAll("q", 1)[0].attempt(), 2);
}

TEST_F(DelayedTest, RescheduleWithoutAFilterOrATimeIsRefused) {
  v1::RescheduleMessagesResponse response;
  EXPECT_THAT(TryReschedule(Move("", absl::Hours(1)), &response),
              FailsWithField(kInvalid, "INVALID_FIELD", "filter"));
  const std::string id = Send("q", MessageOf("m")).message_id();
  v1::RescheduleMessagesRequest no_time = Move(id, absl::Hours(1));
  no_time.clear_schedule();
  EXPECT_THAT(TryReschedule(no_time, &response),
              FailsWithField(kInvalid, "INVALID_FIELD", "delay"));
  EXPECT_THAT(TryReschedule(Move(id, kLongest + absl::Milliseconds(1)), &response),
              FailsWithField(kInvalid, "INVALID_FIELD", "delay"));
  v1::RescheduleMessagesRequest dry_run = Move(id, absl::Hours(1));
  dry_run.set_dry_run(true);
  EXPECT_EQ(Reschedule(dry_run), 1);
  EXPECT_EQ(Look("q", id).state(), v1::MESSAGE_STATE_READY);
}

TEST_F(DelayedTest, OutlastsRestartsAndComesDueWhileTheServerIsDown) {
  const absl::Time sent = absl::Now();
  const std::string id = Send("q", After("soon", absl::Milliseconds(300))).message_id();
  Send("q", After("much later", absl::Hours(1)));
  KillAndRestart();
  server_.Kill();
  ASSERT_TRUE(WaitUntil([&] { return absl::Now() > sent + absl::Milliseconds(300); }));
  StartServer();
  const v1::Delivery delivery = ReceiveAll("q", 1)[0];
  EXPECT_EQ(delivery.message().body(), "soon");
  EXPECT_EQ(delivery.message().id(), id);
  TerminateAndRestart();
  EXPECT_EQ(Stats("q").delayed(), 1);
}

TEST_F(DelayedTest, TheAgeOfAQueueCountsFromWhenItsMessagesAreDue) {
  Send("q", After("m", absl::Seconds(2)));
  AwaitReady("q", 1);
  const absl::Time due = absl::Now();
  const v1::QueueStats stats = Stats("q");
  const absl::Duration age = absl::Seconds(stats.oldest_ready_age().seconds()) +
                             absl::Nanoseconds(stats.oldest_ready_age().nanos());
  EXPECT_LT(age, absl::Seconds(1) + (absl::Now() - due));
}

}  // namespace
}  // namespace sluice::testing
