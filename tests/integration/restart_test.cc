// Restart-and-recheck: the same state before and after, for a crash and for a clean stop.
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/integration/fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

enum class End { kKill, kTerminate };

class RestartTest : public ServerTest, public ::testing::WithParamInterface<End> {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    MakeQueue("q");
  }
  bool crashed() const { return GetParam() == End::kKill; }
  void Restart() { crashed() ? KillAndRestart() : TerminateAndRestart(); }
};

INSTANTIATE_TEST_SUITE_P(
    After, RestartTest, ::testing::Values(End::kKill, End::kTerminate),
    [](const auto& info) { return info.param == End::kKill ? "Sigkill" : "Sigterm"; });

TEST_P(RestartTest, PublishedMessagesAreThereInOrder) {
  const std::vector<std::string> bodies = Numbered("m", 2500);
  for (int i = 0; i < 2500; i += 500) {
    Publish("q", {bodies.begin() + i, bodies.begin() + i + 500});
  }
  Restart();
  EXPECT_EQ(Stats("q").ready(), 2500);
  const std::vector<v1::Delivery> deliveries = ReceiveAll("q", 2500);
  EXPECT_THAT(BodiesOf(deliveries), ElementsAreArray(bodies));
  for (const v1::Delivery& delivery : deliveries) EXPECT_EQ(delivery.attempt(), 1);
}

TEST_P(RestartTest, AckedMessagesStayGone) {
  Publish("q", Numbered("m", 1000));
  const std::vector<v1::Delivery> deliveries = ReceiveAll("q", 1000);
  std::vector<std::string> every_second;
  std::vector<std::string> left;
  for (size_t i = 0; i < deliveries.size(); ++i) {
    if (i % 2 == 0) {
      every_second.push_back(deliveries[i].receipt());
    } else {
      left.push_back(deliveries[i].message().body());
    }
  }
  EXPECT_EQ(Ack("q", every_second).acked(), 500);
  Restart();
  const v1::QueueStats stats = Stats("q");
  EXPECT_EQ(stats.ready() + stats.leased(), 500);
  if (crashed()) {
    EXPECT_THAT(BodiesOf(ReceiveAll("q", 500)), ElementsAreArray(left));
  } else {
    EXPECT_EQ(stats.leased(), 500) << "a clean stop saves leases";
  }
}

TEST_P(RestartTest, ReceiptsAreHonouredAfterwards) {
  Publish("q", {"m"});
  const v1::Delivery delivery = ReceiveAll("q", 1)[0];
  Restart();
  EXPECT_EQ(Ack("q", {delivery.receipt()}).acked(), 1);
  EXPECT_THAT(Receive("q", 1, absl::ZeroDuration()), IsEmpty());
  Restart();
  EXPECT_THAT(Ack("q", {delivery.receipt()}).failures(), IsEmpty()) << "settled twice is OK";
}

TEST_P(RestartTest, OnlyWhatMayHaveBeenHandedOutIsFlagged) {
  Publish("q", {"handed out"});
  const v1::Delivery before = ReceiveAll("q", 1)[0];
  Restart();
  if (!crashed()) {
    EXPECT_EQ(Stats("q").leased(), 1);
    EXPECT_THAT(Nack("q", before.receipt(), v1::NACK_ACTION_RELEASE).failures(), IsEmpty());
  }
  const v1::Delivery after = ReceiveAll("q", 1)[0];
  EXPECT_EQ(after.attempt(), 1) << "neither a crash nor a shutdown is a failure";
  EXPECT_TRUE(after.maybe_redelivered() || after.delivery_count() > before.delivery_count());
  if (!crashed()) {
    EXPECT_FALSE(after.maybe_redelivered());
  }
  EXPECT_THAT(Ack("q", {before.receipt()}).failures(),
              ElementsAre(ItemFails(0, grpc::StatusCode::FAILED_PRECONDITION,
                                    v1::ERROR_REASON_LEASE_EXPIRED)))
      << "granted again since";
  Publish("q", {"new"});
  const v1::Delivery fresh = ReceiveAll("q", 1)[0];
  EXPECT_EQ(fresh.message().body(), "new");
  EXPECT_FALSE(fresh.maybe_redelivered());
}

TEST_P(RestartTest, AttemptsAreRemembered) {
  Publish("q", {"m"});
  for (int attempt = 1; attempt <= 3; ++attempt) {
    const v1::Delivery delivery = ReceiveAll("q", 1)[0];
    EXPECT_EQ(delivery.attempt(), attempt);
    Nack("q", delivery.receipt(), v1::NACK_ACTION_RETRY);
  }
  Restart();
  const v1::Delivery delivery = ReceiveAll("q", 1)[0];
  EXPECT_EQ(delivery.attempt(), 4);
  EXPECT_EQ(delivery.delivery_count(), 4);
}

TEST_P(RestartTest, DelayOfANackIsRemembered) {
  Publish("q", {"m"});
  const absl::Time due = absl::Now() + absl::Seconds(2);
  Nack("q", ReceiveAll("q", 1)[0].receipt(), v1::NACK_ACTION_DELAY, absl::Seconds(2));
  Restart();
  EXPECT_EQ(Stats("q").delayed() + Stats("q").ready(), 1);
  EXPECT_EQ(ReceiveAll("q", 1)[0].attempt(), 2);
  EXPECT_GE(absl::Now(), due - absl::Milliseconds(20));
}

TEST_P(RestartTest, ANackOfAnEarlierDeliveryCounts) {
  Publish("q", {"delayed", "retried"});
  const std::vector<v1::Delivery> before = ReceiveAll("q", 2);
  Restart();
  ASSERT_THAT(Nack("q", before[0].receipt(), v1::NACK_ACTION_DELAY, absl::Hours(1)).failures(),
              IsEmpty());
  ASSERT_THAT(Nack("q", before[1].receipt(), v1::NACK_ACTION_RETRY).failures(), IsEmpty());
  const v1::Delivery again = ReceiveAll("q", 1)[0];
  EXPECT_EQ(again.message().body(), "retried");
  EXPECT_EQ(again.attempt(), 2);
  EXPECT_THAT(Receive("q", 1, absl::ZeroDuration()), IsEmpty());
}

TEST_P(RestartTest, QueuesAndTheirConfigAreThere) {
  MakeQueue("configured", absl::Seconds(77));
  v1::DeleteQueueRequest request;
  request.set_queue("q");
  v1::DeleteQueueResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::DeleteQueue, request, &response), IsOk());
  Restart();
  v1::ListQueuesResponse list;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::ListQueues, v1::ListQueuesRequest(), &list), IsOk());
  ASSERT_EQ(list.queues_size(), 1);
  EXPECT_EQ(list.queues(0).config().name(), "configured");
  EXPECT_EQ(list.queues(0).config().lease().seconds(), 77);
}

TEST_P(RestartTest, IdsAreNeverReused) {
  std::set<std::string> ids;
  for (int round = 0; round < 4; ++round) {
    for (const std::string& id : Publish("q", Numbered("m", 10))) ids.insert(id);
    Ack("q", ReceiptsOf(ReceiveAll("q", 10)));
    Restart();
  }
  EXPECT_EQ(ids.size(), 40u);
}

}  // namespace
}  // namespace sluice::testing
