// Queues as objects: create, read, list, change, purge, delete.
#include "tests/integration/fixture.h"

namespace sluice::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class AdminTest : public ServerTest {
 protected:
  grpc::Status Create(const v1::QueueConfig& config, v1::CreateQueueResponse* response) {
    v1::CreateQueueRequest request;
    *request.mutable_config() = config;
    return CallAdmin(&AdminService::Stub::CreateQueue, request, response);
  }
  v1::Queue Get(const std::string& name) {
    v1::GetQueueRequest request;
    request.set_queue(name);
    v1::GetQueueResponse response;
    EXPECT_THAT(CallAdmin(&AdminService::Stub::GetQueue, request, &response), IsOk());
    return response.queue();
  }
  grpc::Status Delete(const v1::DeleteQueueRequest& request) {
    v1::DeleteQueueResponse response;
    return CallAdmin(&AdminService::Stub::DeleteQueue, request, &response);
  }
};

TEST_F(AdminTest, CreateFillsInDefaultsAndIsSafeToRepeat) {
  v1::QueueConfig config;
  config.set_name("q");
  (*config.mutable_labels())["team"] = "blue";
  v1::CreateQueueResponse response;
  ASSERT_THAT(Create(config, &response), IsOk());
  EXPECT_TRUE(response.created());
  EXPECT_EQ(response.queue().config().lease().seconds(), 30);
  EXPECT_EQ(response.queue().config().retry().min_backoff().seconds(), 1);
  EXPECT_EQ(response.queue().config().retry().max_backoff().seconds(), 300);
  EXPECT_EQ(response.queue().config().labels().at("team"), "blue");
  EXPECT_EQ(response.queue().state(), v1::QUEUE_STATE_ACTIVE);
  EXPECT_THAT(response.queue().etag(), Not(IsEmpty()));
  EXPECT_GT(response.queue().create_time().seconds(), 0);

  ASSERT_THAT(Create(config, &response), IsOk());
  EXPECT_FALSE(response.created());
  v1::QueueConfig only_name;
  only_name.set_name("q");
  ASSERT_THAT(Create(only_name, &response), IsOk());
  EXPECT_FALSE(response.created()) << "only the fields that are set are compared";
}

TEST_F(AdminTest, CreateOverAnotherConfigConflicts) {
  MakeQueue("q");
  v1::QueueConfig config;
  config.set_name("q");
  config.mutable_lease()->set_seconds(77);
  v1::CreateQueueResponse response;
  EXPECT_THAT(Create(config, &response),
              FailsWith(grpc::StatusCode::ALREADY_EXISTS, "CONFIG_CONFLICT"));
}

TEST_F(AdminTest, UpdateChangesOnlyWhatItNamesAndTheEtag) {
  MakeQueue("q");
  const v1::Queue before = Get("q");
  v1::UpdateQueueRequest request;
  request.mutable_config()->set_name("q");
  request.mutable_config()->mutable_lease()->set_seconds(77);
  request.set_etag(before.etag());
  v1::UpdateQueueResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::UpdateQueue, request, &response), IsOk());
  EXPECT_EQ(response.queue().config().lease().seconds(), 77);
  EXPECT_EQ(response.queue().config().retry().min_backoff().seconds(), 0);
  EXPECT_NE(response.queue().etag(), before.etag());
  EXPECT_EQ(Get("q").etag(), response.queue().etag());

  EXPECT_THAT(CallAdmin(&AdminService::Stub::UpdateQueue, request, &response),
              FailsWith(grpc::StatusCode::ABORTED, "ETAG_MISMATCH"));
}

TEST_F(AdminTest, UpdateWithAStarReplacesTheWhole) {
  MakeQueue("q", absl::Seconds(77));
  v1::UpdateQueueRequest request;
  request.mutable_config()->set_name("q");
  request.mutable_update_mask()->add_paths("*");
  v1::UpdateQueueResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::UpdateQueue, request, &response), IsOk());
  EXPECT_EQ(response.queue().config().lease().seconds(), 30);
  EXPECT_EQ(response.queue().config().retry().min_backoff().seconds(), 1);
}

TEST_F(AdminTest, ListIsInOrderPagedAndFiltered) {
  for (const char* name : {"b", "a", "c-2", "c-1"}) MakeQueue(name);
  v1::ListQueuesRequest request;
  request.set_page_size(3);
  v1::ListQueuesResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::ListQueues, request, &response), IsOk());
  ASSERT_EQ(response.queues_size(), 3);
  EXPECT_EQ(response.queues(0).config().name(), "a");
  EXPECT_EQ(response.queues(2).config().name(), "c-1");
  ASSERT_THAT(response.next_page_token(), Not(IsEmpty()));
  request.set_page_token(response.next_page_token());
  ASSERT_THAT(CallAdmin(&AdminService::Stub::ListQueues, request, &response), IsOk());
  ASSERT_EQ(response.queues_size(), 1);
  EXPECT_EQ(response.queues(0).config().name(), "c-2");
  EXPECT_THAT(response.next_page_token(), IsEmpty());

  v1::ListQueuesRequest filtered;
  filtered.set_name_glob("c-?");
  ASSERT_THAT(CallAdmin(&AdminService::Stub::ListQueues, filtered, &response), IsOk());
  EXPECT_EQ(response.queues_size(), 2);
}

TEST_F(AdminTest, GarbledPageTokenIsRefused) {
  v1::ListQueuesRequest request;
  request.set_page_token("nonsense");
  v1::ListQueuesResponse response;
  EXPECT_THAT(CallAdmin(&AdminService::Stub::ListQueues, request, &response),
              FailsWith(grpc::StatusCode::INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"));
}

TEST_F(AdminTest, PurgeSparesLeasedMessagesAndDryRunPurgesNothing) {
  MakeQueue("q");
  Publish("q", Numbered("m", 10));
  const v1::Delivery leased = ReceiveAll("q", 1)[0];
  v1::PurgeQueueRequest request;
  request.set_queue("q");
  request.set_dry_run(true);
  v1::PurgeQueueResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::PurgeQueue, request, &response), IsOk());
  EXPECT_EQ(response.purged(), 9);
  EXPECT_EQ(Stats("q").ready(), 9);
  request.set_dry_run(false);
  ASSERT_THAT(CallAdmin(&AdminService::Stub::PurgeQueue, request, &response), IsOk());
  EXPECT_EQ(response.purged(), 9);
  EXPECT_EQ(Stats("q").ready(), 0);
  EXPECT_EQ(Stats("q").leased(), 1);
  EXPECT_EQ(Ack("q", {leased.receipt()}).acked(), 1);
}

TEST_F(AdminTest, PurgedMessagesStayGoneAndTheQueueGoesOn) {
  MakeQueue("q");
  Publish("q", Numbered("old", 100));
  v1::PurgeQueueRequest request;
  request.set_queue("q");
  v1::PurgeQueueResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::PurgeQueue, request, &response), IsOk());
  Publish("q", {"new"});
  KillAndRestart();
  EXPECT_THAT(BodiesOf(Receive("q", 10)), ElementsAre("new"));
}

TEST_F(AdminTest, DeleteHonoursItsConditions) {
  MakeQueue("q");
  Publish("q", {"m"});
  v1::DeleteQueueRequest request;
  request.set_queue("q");
  request.set_if_empty(true);
  EXPECT_THAT(Delete(request), FailsWith(grpc::StatusCode::FAILED_PRECONDITION, "NOT_EMPTY"));
  request.set_if_empty(false);
  request.set_if_unused(true);
  {
    Subscription subscription(*client_, SubscribeTo("q"));
    EXPECT_THAT(Delete(request), FailsWith(grpc::StatusCode::FAILED_PRECONDITION, "IN_USE"));
  }
  request.set_if_unused(false);
  request.set_etag("nonsense");
  EXPECT_FALSE(Delete(request).ok());
  request.clear_etag();
  EXPECT_THAT(Delete(request), IsOk());
  EXPECT_THAT(Delete(request), FailsWith(grpc::StatusCode::NOT_FOUND, "QUEUE_NOT_FOUND"));
}

TEST_F(AdminTest, QueueMadeAgainUnderTheSameNameIsEmpty) {
  MakeQueue("q");
  Publish("q", {"old"});
  v1::DeleteQueueRequest request;
  request.set_queue("q");
  ASSERT_THAT(Delete(request), IsOk());
  MakeQueue("q");
  KillAndRestart();
  EXPECT_EQ(Stats("q").ready(), 0);
}

TEST_F(AdminTest, ServerInfoNamesVersionLimitsAndTheMissingAuthentication) {
  v1::GetServerInfoRequest request;
  v1::GetServerInfoResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::GetServerInfo, request, &response), IsOk());
  EXPECT_THAT(response.version(), Not(IsEmpty()));
  EXPECT_THAT(response.server_id(), Not(IsEmpty()));
  EXPECT_GT(response.start_time().seconds(), 0);
  EXPECT_FALSE(response.limits().empty());
  EXPECT_THAT(response.features(), ::testing::IsSupersetOf({"consume", "transact", "exchanges"}));
  EXPECT_THAT(response.warnings(), Contains(HasSubstr("no authentication")));
  const std::string server_id = response.server_id();
  KillAndRestart();
  ASSERT_THAT(CallAdmin(&AdminService::Stub::GetServerInfo, request, &response), IsOk());
  EXPECT_EQ(response.server_id(), server_id) << "the same over restarts";
}

}  // namespace
}  // namespace sluice::testing
