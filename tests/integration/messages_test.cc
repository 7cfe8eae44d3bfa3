// Peek and edit: looking changes nothing, says why a message waits, and finds each one once.
#include <set>

#include "absl/time/clock.h"
#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr grpc::StatusCode kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
constexpr grpc::StatusCode kNotFound = grpc::StatusCode::NOT_FOUND;

v1::Message WithAttribute(const std::string& body, const std::string& name,
                          const std::string& value) {
  v1::Message message = MessageOf(body);
  (*message.mutable_attributes())[name] = value;
  return message;
}

class MessagesTest : public FeatureTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    MakeQueue("q");
  }
  v1::DeleteMessagesResponse Delete(const v1::MessageFilter& filter, bool dry_run = false) {
    v1::DeleteMessagesRequest request;
    request.set_queue("q");
    *request.mutable_filter() = filter;
    request.set_dry_run(dry_run);
    v1::DeleteMessagesResponse response;
    EXPECT_THAT(CallAdmin(&AdminService::Stub::DeleteMessages, request, &response), IsOk());
    return response;
  }
  grpc::Status TryList(const v1::ListMessagesRequest& request) {
    v1::ListMessagesResponse response;
    return CallAdmin(&AdminService::Stub::ListMessages, request, &response);
  }
};

TEST_F(MessagesTest, AListTellsOfEachWhatItWaitsForAndChangesNothing) {
  const std::vector<v1::PublishResult> results =
      SendAll("q", {InGroup("leased", "g"), InGroup("blocked", "g"), MessageOf("retry"),
                    After("delayed", absl::Hours(1)), WithPriority("ready", 0)});
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_consumer("worker");
  request.set_max_in_flight(2);
  Subscription worker(*client_, request);
  const std::vector<v1::Delivery> held = worker.Next(2);
  Nack("q", held[1].receipt(), v1::NACK_ACTION_DELAY, absl::Hours(1));
  // Its credit is back, and takes the last one.
  const v1::Delivery last = worker.Next().value();
  ASSERT_EQ(last.message().body(), "ready");

  const auto expect_all = [&] {
    const std::vector<v1::StoredMessage> all = List("q");
    ASSERT_THAT(all, SizeIs(5));
    EXPECT_EQ(all[0].state(), v1::MESSAGE_STATE_LEASED);
    EXPECT_EQ(all[0].waiting(), v1::WAIT_REASON_LEASED);
    EXPECT_EQ(all[0].leased_by(), worker.started().consumer_id());
    EXPECT_EQ(all[0].attempt(), 1);
    EXPECT_EQ(all[0].delivery_count(), 1);
    EXPECT_GT(FromProto(all[0].until()), absl::Now());
    EXPECT_EQ(all[1].state(), v1::MESSAGE_STATE_BLOCKED);
    EXPECT_EQ(all[1].blocked_by_id(), results[0].message_id());
    EXPECT_EQ(all[2].state(), v1::MESSAGE_STATE_DELAYED);
    EXPECT_EQ(all[2].waiting(), v1::WAIT_REASON_RETRY_BACKOFF);
    EXPECT_EQ(all[2].attempt(), 2) << "that of its next attempt";
    EXPECT_EQ(all[3].leased_by(), worker.started().consumer_id());
    EXPECT_EQ(all[4].state(), v1::MESSAGE_STATE_DELAYED);
    EXPECT_EQ(all[4].waiting(), v1::WAIT_REASON_NOT_DUE);
    EXPECT_EQ(all[4].delivery_count(), 0);
    for (const v1::StoredMessage& message : all) {
      EXPECT_GT(message.size_bytes(), 0);
      v1::StoredMessage looked_at = Look("q", message.message().id());
      // The time that a lease has left is worked out anew.
      if (message.has_until()) *looked_at.mutable_until() = message.until();
      EXPECT_EQ(looked_at.SerializeAsString(), message.SerializeAsString());
    }
  };
  for (int i = 0; i < 3; ++i) expect_all();
}

TEST_F(MessagesTest, AReadyMessageSaysWhatItWaitsFor) {
  const std::string id = Send("q", MessageOf("m")).message_id();
  EXPECT_EQ(Look("q", id).waiting(), v1::WAIT_REASON_NO_CONSUMER);
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_max_in_flight(1);
  Subscription busy(*client_, request);
  busy.Next();
  const std::string second = Send("q", MessageOf("second")).message_id();
  EXPECT_EQ(Look("q", second).waiting(), v1::WAIT_REASON_NO_CREDIT);
  EXPECT_EQ(Look("q", second).state(), v1::MESSAGE_STATE_READY);
}

TEST_F(MessagesTest, WhatCameByReceiveIsHeldUnderTheNameGivenThere) {
  const std::vector<v1::PublishResult> results =
      SendAll("q", {MessageOf("named"), MessageOf("unnamed")});
  v1::ReceiveRequest request;
  request.set_queue("q");
  request.set_consumer("worker");
  v1::ReceiveResponse response;
  ASSERT_THAT(CallQueues(&QueueService::Stub::Receive, request, &response), IsOk());
  ReceiveAll("q", 1);
  EXPECT_EQ(Look("q", results[0].message_id()).leased_by(), "worker");
  EXPECT_EQ(Look("q", results[1].message_id()).leased_by(), "");
  Nack("q", response.deliveries(0).receipt(), v1::NACK_ACTION_RELEASE);
  EXPECT_EQ(ReceiveAll("q", 1)[0].message().body(), "named");
  EXPECT_EQ(Look("q", results[0].message_id()).leased_by(), "") << "held by another now";
}

TEST_F(MessagesTest, FiltersSelectByEveryFieldTogether) {
  SendAll("q", {WithAttribute("red", "colour", "red"), WithAttribute("blue", "colour", "blue"),
                InGroup("grouped", "g"), MessageOf("plain")});
  v1::MessageFilter filter;
  (*filter.mutable_attributes())["colour"] = "red";
  EXPECT_THAT(BodiesOf(List("q", filter)), ElementsAre("red"));
  filter.add_groups("g");
  EXPECT_THAT(List("q", filter), IsEmpty()) << "and between fields";
  v1::MessageFilter groups;
  groups.add_groups("g");
  groups.add_groups("");
  EXPECT_THAT(List("q", groups), SizeIs(4)) << "or inside of a list";
  groups.mutable_groups()->RemoveLast();
  EXPECT_THAT(BodiesOf(List("q", groups)), ElementsAre("grouped"));
  v1::MessageFilter old;
  *old.mutable_min_age() = ToProto(absl::Hours(1));
  EXPECT_THAT(List("q", old), IsEmpty());
  v1::MessageFilter young;
  *young.mutable_max_age() = ToProto(absl::Hours(1));
  EXPECT_THAT(List("q", young), SizeIs(4));
  *young.mutable_min_age() = ToProto(absl::Hours(2));
  v1::ListMessagesRequest contradiction;
  contradiction.set_queue("q");
  *contradiction.mutable_filter() = young;
  EXPECT_THAT(TryList(contradiction), FailsWithField(kInvalid, "INVALID_FIELD", "filter.max_age"));
}

TEST_F(MessagesTest, PagesFindEachMessageOnceWhileTheQueueMoves) {
  Publish("q", Numbered("m", 1000));
  v1::ListMessagesRequest request;
  request.set_queue("q");
  request.set_page_size(70);
  std::multiset<std::string> seen;
  int pages = 0;
  do {
    v1::ListMessagesResponse response;
    ASSERT_THAT(CallAdmin(&AdminService::Stub::ListMessages, request, &response), IsOk());
    EXPECT_LE(response.messages_size(), 70);
    for (const v1::StoredMessage& message : response.messages()) {
      EXPECT_THAT(message.message().body(), IsEmpty()) << "not asked for";
      seen.insert(message.message().id());
    }
    request.set_page_token(response.next_page_token());
    // Meanwhile some leave at the front, some come behind, and the server is killed.
    Ack("q", ReceiptsOf(ReceiveAll("q", 10)));
    Publish("q", Numbered("new", 5));
    if (++pages == 3) KillAndRestart();
  } while (!request.page_token().empty());
  for (const v1::StoredMessage& message : List("q")) {
    if (message.message().body()[0] != 'm') continue;
    EXPECT_EQ(seen.count(message.message().id()), 1u) << message.message().body();
  }
}

TEST_F(MessagesTest, ATokenFitsItsListingOnly) {
  Publish("q", Numbered("m", 3));
  MakeQueue("other");
  v1::ListMessagesRequest request;
  request.set_queue("q");
  request.set_page_size(1);
  v1::ListMessagesResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::ListMessages, request, &response), IsOk());
  request.set_page_token(response.next_page_token());
  request.set_page_size(2);
  request.set_max_body_bytes(-1);
  EXPECT_THAT(TryList(request), IsOk()) << "these may change";
  request.mutable_filter()->add_groups("g");
  EXPECT_THAT(TryList(request), FailsWith(kInvalid, "PAGE_TOKEN_INVALID"));
  request.clear_filter();
  request.set_queue("other");
  EXPECT_THAT(TryList(request), FailsWith(kInvalid, "PAGE_TOKEN_INVALID"));
}

TEST_F(MessagesTest, BodiesAreCutAsAskedFor) {
  const std::string id = Send("q", MessageOf("0123456789")).message_id();
  for (const auto& [bytes, body] : std::initializer_list<std::pair<int, const char*>>{
           {0, ""}, {1, "0"}, {9, "012345678"}, {10, "0123456789"}, {11, "0123456789"},
           {-1, "0123456789"}}) {
    v1::GetMessageRequest request;
    request.set_queue("q");
    request.set_message_id(id);
    request.set_max_body_bytes(bytes);
    v1::GetMessageResponse response;
    ASSERT_THAT(CallAdmin(&AdminService::Stub::GetMessage, request, &response), IsOk());
    EXPECT_EQ(response.message().message().body(), body) << bytes;
  }
  v1::ListMessagesRequest request;
  request.set_queue("q");
  request.set_max_body_bytes(-2);
  EXPECT_THAT(TryList(request), FailsWithField(kInvalid, "INVALID_FIELD", "max_body_bytes"));
}

TEST_F(MessagesTest, DeleteTakesWhatTheFilterSelectsAndADryRunOnlyCounts) {
  SendAll("q", {WithAttribute("red 1", "colour", "red"), WithAttribute("blue", "colour", "blue"),
                WithAttribute("red 2", "colour", "red")});
  v1::MessageFilter red;
  (*red.mutable_attributes())["colour"] = "red";
  EXPECT_EQ(Delete(red, /*dry_run=*/true).deleted(), 2);
  EXPECT_EQ(Stats("q").ready(), 3);
  EXPECT_EQ(Delete(red).deleted(), 2);
  KillAndRestart();
  EXPECT_THAT(Drain("q"), ElementsAre("blue"));
  v1::DeleteMessagesRequest request;
  request.set_queue("q");
  v1::DeleteMessagesResponse response;
  EXPECT_THAT(CallAdmin(&AdminService::Stub::DeleteMessages, request, &response),
              FailsWithField(kInvalid, "INVALID_FIELD", "filter"));
}

TEST_F(MessagesTest, DeleteLooksAtABoundedNumberPerCallAndGoesOn) {
  for (int i = 0; i < 12; ++i) Publish("q", Numbered("m", 1000));
  v1::DeleteMessagesRequest request;
  request.set_queue("q");
  request.mutable_filter()->add_states(v1::MESSAGE_STATE_READY);
  v1::DeleteMessagesResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::DeleteMessages, request, &response), IsOk());
  EXPECT_EQ(response.deleted(), 10'000);
  ASSERT_FALSE(response.next_page_token().empty());
  request.set_page_token(response.next_page_token());
  ASSERT_THAT(CallAdmin(&AdminService::Stub::DeleteMessages, request, &response), IsOk());
  EXPECT_EQ(response.deleted(), 2'000);
  EXPECT_TRUE(response.next_page_token().empty());
  EXPECT_EQ(Stats("q").ready(), 0);
}

TEST_F(MessagesTest, IdsFindTheirMessagesWhereverTheyWent) {
  MakeQueue("dead");
  Update(QueueWithDeadLetters("q", "dead", 1));
  const std::string died = Send("q", MessageOf("died")).message_id();
  FailOnce("q");
  AwaitReady("dead", 1);
  const std::string waits = Send("q", After("waits", absl::Hours(1))).message_id();
  const std::string acked = Send("q", MessageOf("acked")).message_id();
  Ack("q", ReceiptsOf(ReceiveAll("q", 1)));
  KillAndRestart();
  EXPECT_EQ(Look("dead", died).message().body(), "died");
  v1::MessageFilter ids;
  for (const std::string& id : {acked, waits, died}) ids.add_ids(id);
  EXPECT_THAT(BodiesOf(List("q", ids)), ElementsAre("waits")) << "others are passed over";
  EXPECT_THAT(BodiesOf(List("dead", ids)), ElementsAre("died"));
  v1::GetMessageRequest request;
  request.set_queue("q");
  request.set_message_id(died);
  v1::GetMessageResponse response;
  EXPECT_THAT(CallAdmin(&AdminService::Stub::GetMessage, request, &response),
              FailsWith(kNotFound, "MESSAGE_NOT_FOUND"));
  request.set_message_id("made up");
  EXPECT_THAT(CallAdmin(&AdminService::Stub::GetMessage, request, &response),
              FailsWithField(kInvalid, "INVALID_FIELD", "message_id"));
  request.set_queue("nowhere");
  request.set_message_id(died);
  EXPECT_THAT(CallAdmin(&AdminService::Stub::GetMessage, request, &response),
              FailsWith(kNotFound, "QUEUE_NOT_FOUND"));
}

}  // namespace
}  // namespace sluice::testing
