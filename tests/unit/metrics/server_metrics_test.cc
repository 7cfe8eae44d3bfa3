#include "server/metrics/server_metrics.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/metrics/names.h"
#include "server/metrics/process_figures.h"

namespace sluice::metrics {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int kPublishId = 0;
constexpr int kOk = 0;
constexpr int kInternal = 1;

class ServerMetricsTest : public ::testing::Test {
 protected:
  static ShardFigures WithQueue(QueueFigures queue) {
    ShardFigures figures;
    figures.engine_up = true;
    figures.queues_total = 1;
    figures.queues.push_back(std::move(queue));
    return figures;
  }

  std::string Page(const ShardFigures& figures) {
    return metrics_.Render(figures, {.disk_bytes = 4711});
  }

  ServerMetrics metrics_{"1.2.3",
                         Clock::System(),
                         {{"sluice.v1.QueueService", "Publish", "unary"},
                          {"sluice.v1.QueueService", "Subscribe", "server_stream"}},
                         {"OK", "Internal"}};
};

TEST_F(ServerMetricsTest, NewQueueShowsEveryContractSeriesFromZero) {
  const std::string page = Page(WithQueue({.queue = "orders"}));
  for (const char* series : {
           R"(sluice_queue_messages{queue="orders",state="ready"} 0)",
           R"(sluice_queue_messages{queue="orders",state="leased"} 0)",
           R"(sluice_queue_messages{queue="orders",state="delayed"} 0)",
           R"(sluice_queue_messages{queue="orders",state="blocked"} 0)",
           R"(sluice_queue_oldest_ready_age_seconds{queue="orders"} 0)",
           R"(sluice_messages_published_total{queue="orders"} 0)",
           R"(sluice_messages_delivered_total{queue="orders"} 0)",
           R"(sluice_messages_acked_total{queue="orders"} 0)",
           R"(sluice_messages_dead_lettered_total{queue="orders"} 0)",
           R"(sluice_settle_failures_total{queue="orders",op="ack",reason="LEASE_EXPIRED"} 0)",
           R"(sluice_settle_failures_total{queue="orders",op="extend",reason="RECEIPT_INVALID"} 0)",
       }) {
    EXPECT_THAT(page, HasSubstr(std::string(series) + "\n"));
  }
}

TEST_F(ServerMetricsTest, QueueFiguresReachTheirOwnSeries) {
  QueueFigures queue{.queue = "q"};
  queue.ready = 1;
  queue.leased = 2;
  queue.delayed = 3;
  queue.blocked = 4;
  queue.oldest_ready_age_ms = 1500;
  queue.published = 5;
  queue.delivered = 6;
  queue.acked = 7;
  queue.dead_lettered = 8;
  const std::string page = Page(WithQueue(queue));
  EXPECT_THAT(page, HasSubstr(R"(sluice_queue_messages{queue="q",state="ready"} 1)"));
  EXPECT_THAT(page, HasSubstr(R"(sluice_queue_messages{queue="q",state="leased"} 2)"));
  EXPECT_THAT(page, HasSubstr(R"(sluice_queue_messages{queue="q",state="delayed"} 3)"));
  EXPECT_THAT(page, HasSubstr(R"(sluice_queue_messages{queue="q",state="blocked"} 4)"));
  EXPECT_THAT(page, HasSubstr(R"(sluice_queue_oldest_ready_age_seconds{queue="q"} 1.5)"));
  EXPECT_THAT(page, HasSubstr(R"(sluice_messages_published_total{queue="q"} 5)"));
  EXPECT_THAT(page, HasSubstr(R"(sluice_messages_delivered_total{queue="q"} 6)"));
  EXPECT_THAT(page, HasSubstr(R"(sluice_messages_acked_total{queue="q"} 7)"));
  EXPECT_THAT(page, HasSubstr(R"(sluice_messages_dead_lettered_total{queue="q"} 8)"));
}

TEST_F(ServerMetricsTest, SilentEngineLeavesOutWhatItWouldHaveSaid) {
  const std::string page = Page(ShardFigures{});
  EXPECT_THAT(page, HasSubstr("sluice_engine_up 0\n"));
  EXPECT_THAT(page, Not(HasSubstr("sluice_queues ")));
  EXPECT_THAT(page, HasSubstr("process_resident_memory_bytes "));
}

TEST_F(ServerMetricsTest, CallsAreCountedByMethodAndCode) {
  metrics_.CallStarted(kPublishId);
  metrics_.CallMessageReceived(kPublishId);
  metrics_.CallHandled(kPublishId, kInternal, 0.002);
  const std::string page = Page(ShardFigures{});
  const std::string labels =
      R"(grpc_method="Publish",grpc_service="sluice.v1.QueueService",grpc_type="unary")";
  EXPECT_THAT(page, HasSubstr("grpc_server_started_total{" + labels + "} 1\n"));
  EXPECT_THAT(page, HasSubstr("grpc_server_msg_received_total{" + labels + "} 1\n"));
  EXPECT_THAT(page, HasSubstr("grpc_server_msg_sent_total{" + labels + "} 0\n"));
  EXPECT_THAT(page, HasSubstr("grpc_server_handled_total{grpc_code=\"Internal\"," + labels + "} 1"));
  EXPECT_THAT(page, HasSubstr("grpc_server_handled_total{grpc_code=\"OK\"," + labels + "} 0"));
  EXPECT_THAT(page, HasSubstr("grpc_server_handling_seconds_count{" + labels + "} 1\n"));
}

TEST_F(ServerMetricsTest, BatchesAndSyncsFillTheirHistograms) {
  metrics_.BatchMade(3, 200, 4000);
  metrics_.LogWritten(2, 5000);
  metrics_.LogSynced(0.0003);
  const std::string page = Page(ShardFigures{});
  EXPECT_THAT(page, HasSubstr("sluice_commit_batch_messages_sum 200\n"));
  EXPECT_THAT(page, HasSubstr("sluice_commit_batch_commands_sum 3\n"));
  EXPECT_THAT(page, HasSubstr("sluice_commit_batch_bytes_sum 4000\n"));
  EXPECT_THAT(page, HasSubstr("sluice_log_write_batches_sum 2\n"));
  EXPECT_THAT(page, HasSubstr("sluice_log_written_bytes_total 5000\n"));
  EXPECT_THAT(page, HasSubstr("sluice_store_disk_bytes 4711\n"));
  EXPECT_THAT(page, HasSubstr("sluice_commit_sync_seconds_bucket{le=\"0.00025\"} 0\n"));
  EXPECT_THAT(page, HasSubstr("sluice_commit_sync_seconds_bucket{le=\"0.0005\"} 1\n"));
}

TEST_F(ServerMetricsTest, SettleFailuresOfQueuesThatAreNoneShareOneSeries) {
  metrics_.SettleFailed("q", "ack", "LEASE_EXPIRED");
  metrics_.SettleFailed("made-up-1", "ack", "RECEIPT_INVALID");
  metrics_.SettleFailed("made-up-2", "ack", "RECEIPT_INVALID");
  for (int scrape = 0; scrape < 2; ++scrape) {
    const std::string page = Page(WithQueue({.queue = "q"}));
    EXPECT_THAT(page, HasSubstr(
        R"(sluice_settle_failures_total{queue="q",op="ack",reason="LEASE_EXPIRED"} 1)"));
    EXPECT_THAT(page, HasSubstr(
        R"(sluice_settle_failures_total{queue="_other",op="ack",reason="RECEIPT_INVALID"} 2)"));
    EXPECT_THAT(page, Not(HasSubstr("made-up")));
  }
}

TEST_F(ServerMetricsTest, NamesMadeUpBetweenScrapesAreBounded) {
  for (int i = 0; i < 20'000; ++i) {
    metrics_.SettleFailed("made-up-" + std::to_string(i), "ack", "RECEIPT_INVALID");
  }
  const std::string page = Page(ShardFigures{});
  EXPECT_THAT(page, HasSubstr(
      R"(sluice_settle_failures_total{queue="_other",op="ack",reason="RECEIPT_INVALID"} 10000)"));
}

TEST_F(ServerMetricsTest, EveryMetricOnThePageIsDocumented) {
  std::ifstream file(SLUICE_METRICS_DOC);
  const std::string document((std::istreambuf_iterator<char>(file)), {});
  ASSERT_FALSE(document.empty()) << SLUICE_METRICS_DOC;
  std::istringstream page(Page(WithQueue({.queue = "q"})));
  int families = 0;
  for (std::string line; std::getline(page, line);) {
    std::istringstream words(line);
    std::string hash, keyword, name, type;
    words >> hash >> keyword >> name >> type;
    if (hash != "#" || keyword != "TYPE") continue;
    ++families;
    EXPECT_THAT(document, HasSubstr("| `" + name + "` | " + type + " |"));
  }
  EXPECT_GT(families, 30);
}

TEST_F(ServerMetricsTest, EveryMetricOfAnAlertIsOnThePage) {
  std::ifstream file(SLUICE_ALERTS);
  const std::string rules((std::istreambuf_iterator<char>(file)), {});
  const std::string page = Page(WithQueue({.queue = "q"}));
  const std::regex metric("\\bsluice_[a-z_]+");
  int names = 0;
  for (std::sregex_iterator it(rules.begin(), rules.end(), metric), end; it != end; ++it) {
    ++names;
    EXPECT_THAT(page, HasSubstr("# TYPE " + it->str() + " "));
  }
  EXPECT_GT(names, 5) << SLUICE_ALERTS;
}

#ifdef SLUICE_PROMTOOL
TEST_F(ServerMetricsTest, PromtoolFindsNothingWrongWithTheAlerts) {
  const std::string check = std::string(SLUICE_PROMTOOL " check rules ") + SLUICE_ALERTS;
  EXPECT_EQ(std::system(check.c_str()), 0);
}

TEST_F(ServerMetricsTest, PromtoolFindsNothingWrong) {
  metrics_.BatchMade(1, 1, 1);
  metrics_.SettleFailed("q", "nack", "LEASE_EXPIRED");
  const std::string log = ::testing::TempDir() + "sluice_promtool.log";
  FILE* promtool = popen((std::string(SLUICE_PROMTOOL " check metrics >") + log + " 2>&1").c_str(), "w");
  ASSERT_NE(promtool, nullptr);
  const std::string page = Page(WithQueue({.queue = "q"}));
  fwrite(page.data(), 1, page.size(), promtool);
  const int exit_code = pclose(promtool);
  std::ifstream said(log);
  EXPECT_EQ(exit_code, 0) << std::string(std::istreambuf_iterator<char>(said), {});
  std::remove(log.c_str());
}
#endif

TEST(ProcessFiguresTest, ReadsThisProcess) {
  const ProcessFigures figures = ReadProcessFigures();
  EXPECT_GT(figures.resident_bytes, 1'000'000);
  EXPECT_GE(figures.virtual_bytes, figures.resident_bytes);
  EXPECT_GE(figures.open_fds, 3);
  EXPECT_GE(figures.max_fds, figures.open_fds);
  EXPECT_GE(figures.threads, 1);
}

}  // namespace
}  // namespace sluice::metrics
