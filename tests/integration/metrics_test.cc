// The text at /metrics has the names that dashboards depend on, and they move.
#include <fstream>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "tests/integration/feature_fixture.h"

namespace sluice::testing {
namespace {

class MetricsTest : public FeatureTest {
 protected:
  std::string Text() {
    absl::StatusOr<HttpAnswer> answer;
    EXPECT_TRUE(WaitUntil([&] {
      answer = HttpGet(server_.http_port(), "/metrics");
      return answer.ok() && answer->code == 200;
    }));
    return answer.ok() ? answer->body : "";
  }
  double State(const std::string& state, const std::string& queue = "q") {
    return Metric("sluice_queue_messages", {absl::StrCat("queue=\"", queue, "\""),
                                            absl::StrCat("state=\"", state, "\"")});
  }
  double SettleFailures(const std::string& op, const std::string& reason) {
    return Metric("sluice_settle_failures_total",
                  {"queue=\"q\"", absl::StrCat("op=\"", op, "\""),
                   absl::StrCat("reason=\"", reason, "\"")});
  }
};

TEST_F(MetricsTest, SeriesOfAQueueStartAtZeroAndMove) {
  MakeQueue("q");
  EXPECT_TRUE(WaitUntil([&] { return State("ready") == 0; }));
  EXPECT_EQ(State("leased"), 0);
  EXPECT_EQ(State("delayed"), 0);
  EXPECT_EQ(Total("published", "q"), 0);
  EXPECT_EQ(Total("delivered", "q"), 0);
  EXPECT_EQ(Total("acked", "q"), 0);
  EXPECT_EQ(Total("dead_lettered", "q"), 0);

  Publish("q", Numbered("m", 5));
  const std::vector<v1::Delivery> deliveries = ReceiveAll("q", 3);
  Ack("q", {deliveries[0].receipt()});
  EXPECT_TRUE(WaitUntil([&] { return Total("acked", "q") == 1; }));
  EXPECT_EQ(Total("published", "q"), 5);
  EXPECT_EQ(Total("delivered", "q"), 3);
  EXPECT_EQ(State("ready"), 2);
  EXPECT_EQ(State("leased"), 2);
  EXPECT_TRUE(WaitUntil(
      [&] { return Metric("sluice_queue_oldest_ready_age_seconds", {"queue=\"q\""}) > 0; }));
}

TEST_F(MetricsTest, SettleFailuresAreCountedByReason) {
  MakeQueue("q");
  for (const char* op : {"ack", "nack", "extend"}) {
    for (const char* reason : {"RECEIPT_INVALID", "LEASE_EXPIRED"}) {
      EXPECT_EQ(SettleFailures(op, reason), 0) << op << " " << reason;
    }
  }
  Ack("q", {"nonsense", "nonsense"});
  Nack("q", "nonsense", v1::NACK_ACTION_RETRY);
  Publish("q", {"m"});
  const v1::Delivery delivery = ReceiveAll("q", 1)[0];
  Nack("q", delivery.receipt(), v1::NACK_ACTION_RETRY);
  Extend("q", delivery.receipt(), absl::Seconds(5));
  EXPECT_TRUE(WaitUntil([&] { return SettleFailures("extend", "LEASE_EXPIRED") == 1; })) << Text();
  EXPECT_EQ(SettleFailures("ack", "RECEIPT_INVALID"), 2);
  EXPECT_EQ(SettleFailures("nack", "RECEIPT_INVALID"), 1);
  EXPECT_EQ(SettleFailures("ack", "LEASE_EXPIRED"), 0);
}

// One message for each way out of a queue, and one for each state.
TEST_F(MetricsTest, EveryWayOutOfAQueueIsCounted) {
  MakeQueue("dead");
  v1::QueueConfig config = QueueWithDeadLetters("q", "dead", 2);
  *config.mutable_lease() = ToProto(kShortestLease);
  Create(config);
  const char* const kTotals[] = {"published", "delivered", "redelivered",   "acked",
                                 "retried",   "discarded", "purged",        "expired",
                                 "dropped",   "duplicate", "dead_lettered", "published_bytes"};
  for (const char* total : kTotals) EXPECT_EQ(Total(total, "q"), 0) << total;

  Send("q", MessageOf("retried, then dead-lettered"));
  FailOnce("q");
  EXPECT_EQ(Total("retried", "q"), 1);
  FailOnce("q");
  AwaitReady("dead", 1);
  EXPECT_EQ(Total("retried", "q"), 1) << "the last failure leaves nothing in the queue";
  EXPECT_EQ(Total("redelivered", "q"), 1);
  EXPECT_EQ(Total("dead_lettered", "q"), 1);
  Send("q", MessageOf("discarded"));
  FailOnce("q", v1::NACK_ACTION_DISCARD);
  EXPECT_EQ(Total("discarded", "q"), 1);
  Send("q", ExpiringIn("expired", absl::Milliseconds(50)));
  AwaitReady("dead", 2);
  EXPECT_EQ(Total("expired", "q"), 1);
  EXPECT_EQ(Total("dead_lettered", "q"), 2);
  Send("q", MessageOf("lease runs out"));
  ReceiveAll("q", 1);
  AwaitReady("q", 1);
  EXPECT_EQ(Metric("sluice_leases_expired_total", {"queue=\"q\""}), 1);
  EXPECT_EQ(Total("retried", "q"), 2) << "a lease that runs out is an attempt that failed";
  Ack("q", ReceiptsOf(ReceiveAll("q", 1)));
  EXPECT_EQ(Total("acked", "q"), 1);
  Send("q", Once("deleted", "id"));
  EXPECT_TRUE(Send("q", Once("deleted", "id")).duplicate());
  EXPECT_EQ(Total("duplicate", "q"), 1);
  v1::DeleteMessagesRequest request;
  request.set_queue("q");
  request.mutable_filter()->add_states(v1::MESSAGE_STATE_READY);
  v1::DeleteMessagesResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::DeleteMessages, request, &response), IsOk());
  EXPECT_EQ(Total("purged", "q"), 1);
  config.set_max_length(1);
  config.set_overflow(v1::OVERFLOW_DROP_HEAD);
  Update(config);
  SendAll("q", {MessageOf("dropped")});
  Send("q", MessageOf("stays"));
  EXPECT_EQ(Total("dropped", "q"), 1);
  EXPECT_EQ(Total("published", "q"), 7);
  EXPECT_EQ(Total("published", "dead"), 0) << "moved, not published";
  EXPECT_EQ(Metric("sluice_queue_bytes", {"queue=\"q\""}), Stats("q").bytes());
}

TEST_F(MetricsTest, StatesAreThoseOfTheMessages) {
  MakeQueue("q");
  SendAll("q", {InGroup("leased", "g"), InGroup("blocked", "g"), After("due later", absl::Hours(1)),
                MessageOf("waits for a retry")});
  const std::vector<v1::Delivery> taken = Receive("q", 10);
  ASSERT_EQ(taken.size(), 2u);
  Nack("q", taken[1].receipt(), v1::NACK_ACTION_DELAY, absl::Hours(1));
  Send("q", MessageOf("ready"));
  EXPECT_EQ(State("leased"), 1);
  EXPECT_EQ(State("blocked"), 1);
  EXPECT_EQ(State("delayed"), 2);
  EXPECT_EQ(State("ready"), 1);
  EXPECT_EQ(Metric("sluice_queue_consumers", {"queue=\"q\""}), 0);
  Subscription subscription(*client_, SubscribeTo("q"));
  EXPECT_EQ(Metric("sluice_queue_consumers", {"queue=\"q\""}), 1);
}

TEST_F(MetricsTest, BeyondAThousandQueuesTheRestIsOneSeries) {
  v1::ApplyDefinitionsRequest request;
  for (int i = 0; i < 1002; ++i) {
    request.mutable_definitions()->add_queues()->set_name(absl::StrCat("q", 1000 + i));
  }
  v1::ApplyDefinitionsResponse response;
  ASSERT_THAT(CallAdmin(&AdminService::Stub::ApplyDefinitions, request, &response), IsOk());
  for (const char* queue : {"q1000", "q1999", "q2000", "q2001"}) Publish(queue, {"m"});
  EXPECT_EQ(Total("published", "q1999"), 1);
  EXPECT_EQ(Total("published", "q2000"), -1) << "has no series of its own";
  EXPECT_EQ(Total("published", "_other"), 2);
  EXPECT_EQ(State("ready", "_other"), 2);
  EXPECT_EQ(Metric("sluice_queues", {}), 1002);
}

// What the document lists is on the page, and what is on the page is in the document.
TEST_F(MetricsTest, TheDocumentAndThePageNameTheSameMetrics) {
  MakeQueue("q");
  Publish("q", {"m"});
  std::set<std::string> on_page;
  for (absl::string_view line : absl::StrSplit(Text(), '\n')) {
    if (!absl::ConsumePrefix(&line, "# TYPE ")) continue;
    on_page.insert(std::string(line.substr(0, line.rfind(' '))) + " " +
                   std::string(line.substr(line.rfind(' ') + 1)));
  }
  std::set<std::string> documented;
  std::ifstream file(SLUICE_METRICS_DOCUMENT);
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> cells = absl::StrSplit(line, " | ");
    if (cells.size() < 4 || !absl::StartsWith(cells[0], "| `")) continue;
    documented.insert(cells[0].substr(3, cells[0].size() - 4) + " " + cells[1]);
  }
  EXPECT_GT(documented.size(), 40u);
  EXPECT_THAT(on_page, ::testing::ElementsAreArray(documented));
}

TEST_F(MetricsTest, GrpcAndCommitFiguresAreThere) {
  MakeQueue("q");
  Publish("q", {"m"});
  EXPECT_TRUE(WaitUntil([&] {
    return Metric("grpc_server_handled_total", {"grpc_method=\"Publish\"", "grpc_code=\"OK\""}) >= 1;
  })) << Text();
}

TEST_F(MetricsTest, HealthAndReadinessFollowTheServer) {
  // The pages come up right behind the service, which the fixture waits for.
  EXPECT_TRUE(WaitUntil([&] {
    const absl::StatusOr<HttpAnswer> health = HttpGet(server_.http_port(), "/healthz");
    return health.ok() && health->code == 200;
  }));
  EXPECT_TRUE(WaitUntil([&] {
    const absl::StatusOr<HttpAnswer> ready = HttpGet(server_.http_port(), "/readyz");
    return ready.ok() && ready->code == 200;
  }));
  const absl::StatusOr<HttpAnswer> other = HttpGet(server_.http_port(), "/no-such-page");
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(other->code, 404);
}

}  // namespace
}  // namespace sluice::testing
