// The text at /metrics has the names that dashboards depend on, and they move.
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/integration/fixture.h"

namespace sluice::testing {
namespace {

class MetricsTest : public ServerTest {
 protected:
  std::string Text() {
    const absl::StatusOr<HttpAnswer> answer = HttpGet(server_.http_port(), "/metrics");
    EXPECT_TRUE(answer.ok()) << answer.status();
    if (!answer.ok()) return "";
    EXPECT_EQ(answer->code, 200);
    return answer->body;
  }
  // The value of the series of that name whose labels contain all of `labels`; -1 if there is none.
  double Value(const std::string& name, const std::vector<std::string>& labels) {
    for (absl::string_view line : absl::StrSplit(Text(), '\n')) {
      if (!absl::StartsWith(line, name + "{") && !absl::StartsWith(line, name + " ")) continue;
      bool all = true;
      for (const std::string& label : labels) all = all && absl::StrContains(line, label);
      double value = 0;
      if (all && absl::SimpleAtod(line.substr(line.rfind(' ') + 1), &value)) return value;
    }
    return -1;
  }
  double State(const std::string& state) {
    return Value("sluice_queue_messages",
                 {"queue=\"q\"", absl::StrCat("state=\"", state, "\"")});
  }
  double Total(const std::string& what) {
    return Value(absl::StrCat("sluice_messages_", what, "_total"), {"queue=\"q\""});
  }
};

TEST_F(MetricsTest, SeriesOfAQueueStartAtZeroAndMove) {
  MakeQueue("q");
  EXPECT_TRUE(WaitUntil([&] { return State("ready") == 0; }));
  EXPECT_EQ(State("leased"), 0);
  EXPECT_EQ(State("delayed"), 0);
  EXPECT_EQ(Total("published"), 0);
  EXPECT_EQ(Total("delivered"), 0);
  EXPECT_EQ(Total("acked"), 0);
  EXPECT_EQ(Total("dead_lettered"), 0);

  Publish("q", Numbered("m", 5));
  const std::vector<v1::Delivery> deliveries = ReceiveAll("q", 3);
  Ack("q", {deliveries[0].receipt()});
  EXPECT_TRUE(WaitUntil([&] { return Total("acked") == 1; }));
  EXPECT_EQ(Total("published"), 5);
  EXPECT_EQ(Total("delivered"), 3);
  EXPECT_EQ(State("ready"), 2);
  EXPECT_EQ(State("leased"), 2);
  EXPECT_TRUE(WaitUntil(
      [&] { return Value("sluice_queue_oldest_ready_age_seconds", {"queue=\"q\""}) > 0; }));
}

TEST_F(MetricsTest, SettleFailuresAreCountedByReason) {
  MakeQueue("q");
  Ack("q", {"nonsense"});
  EXPECT_TRUE(WaitUntil([&] {
    return Value("sluice_settle_failures_total",
                 {"queue=\"q\"", "op=\"ack\"", "reason=\"RECEIPT_INVALID\""}) == 1;
  })) << Text();
}

TEST_F(MetricsTest, GrpcAndCommitFiguresAreThere) {
  MakeQueue("q");
  Publish("q", {"m"});
  EXPECT_TRUE(WaitUntil([&] {
    return Value("grpc_server_handled_total", {"grpc_method=\"Publish\"", "grpc_code=\"OK\""}) >= 1;
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
