// `sluice bench` at a tiny scale: that each mode runs, checks all of its messages and cleans up.
// Not how fast.
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <csignal>
#include <thread>

#include "tests/integration/feature_fixture.h"
#include "tests/support/command.h"

namespace sluice::testing {
namespace {

using google::protobuf::Struct;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kOk = 0;
constexpr int kRefused = 1;
constexpr int kUsage = 2;
constexpr int kUnreachable = 3;

double Number(const Struct& object, const std::string& name) {
  EXPECT_TRUE(object.fields().contains(name)) << name;
  return object.fields().contains(name) ? object.fields().at(name).number_value() : -1;
}

class CliBenchTest : public FeatureTest {
 protected:
  CommandResult Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--json", "bench"});
    return RunSluice(server_.address(), arguments);
  }

  // Runs a mode, expects figures that agree with each other, and nothing left on the server.
  Struct Measure(const std::vector<std::string>& arguments) {
    const CommandResult result = Run(arguments);
    EXPECT_EQ(result.exit_code, kOk) << result.err;
    Struct figures;
    EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(result.out, &figures).ok())
        << result.out;
    EXPECT_EQ(figures.fields().at("bench").string_value(), arguments[0]);
    EXPECT_TRUE(figures.fields().at("complete").bool_value());
    EXPECT_EQ(Number(figures, "lost"), 0);
    EXPECT_EQ(Number(figures, "duplicates"), 0);
    EXPECT_EQ(Number(figures, "foreign"), 0);
    EXPECT_EQ(Number(figures, "acked"), Number(figures, "consumed"));
    EXPECT_EQ(Number(figures, "confirmed"),
              Number(figures, "consumed") + Number(figures, "stored"));
    for (const auto& row : figures.fields().at("rows").list_value().values()) {
      ExpectConsistent(row.struct_value());
    }
    ExpectConsistent(figures);
    EXPECT_THAT(Queues(), IsEmpty());
    return figures;
  }

  static void ExpectConsistent(const Struct& row) {
    const double seconds = Number(row, "seconds");
    EXPECT_GT(Number(row, "messages"), 0);
    EXPECT_GT(seconds, 0);
    // Seconds are rounded to milliseconds.
    EXPECT_NEAR(Number(row, "messages_per_second") * seconds, Number(row, "messages"),
                Number(row, "messages") * 0.001 / seconds + 1);
    const Struct& latency = row.fields().at("latency_us").struct_value();
    EXPECT_LE(Number(latency, "p50"), Number(latency, "p99"));
    EXPECT_LE(Number(latency, "p99"), Number(latency, "p999"));
    EXPECT_LE(Number(latency, "p999"), Number(latency, "max"));
  }

  std::vector<std::string> Queues() {
    v1::ListQueuesResponse response;
    EXPECT_THAT(CallAdmin(&AdminService::Stub::ListQueues, v1::ListQueuesRequest(), &response),
                IsOk());
    std::vector<std::string> names;
    for (const v1::Queue& queue : response.queues()) names.push_back(queue.config().name());
    v1::ListExchangesResponse exchanges;
    EXPECT_THAT(
        CallAdmin(&AdminService::Stub::ListExchanges, v1::ListExchangesRequest(), &exchanges),
        IsOk());
    for (const v1::Exchange& exchange : exchanges.exchanges()) names.push_back(exchange.name());
    return names;
  }
};

TEST_F(CliBenchTest, EachConfirmHasWaitedForASync) {
  const auto syncs = [&] { return Metric("sluice_commit_sync_seconds_count", {}); };
  constexpr int kMessages = 300;
  const double before = syncs();
  ASSERT_GE(before, 0);
  // One at a time: no two of them can share a sync.
  Measure({"publish", "--unary", "--producers", "1", "--in-flight", "1", "--count",
           std::to_string(kMessages), "--warmup", "0s"});
  EXPECT_GE(syncs() - before, kMessages);
}

TEST_F(CliBenchTest, PublishConfirmsAll) {
  const Struct figures = Measure({"publish", "--count", "2000", "--size", "100"});
  EXPECT_EQ(Number(figures, "messages"), 2000);
  // With a tenth before it, to warm up.
  EXPECT_EQ(Number(figures, "stored"), 2200);
  EXPECT_EQ(Number(figures.fields().at("latency_us").struct_value(), "count"), 2000);
}

TEST_F(CliBenchTest, PublishMakesUnaryCallsToo) {
  const Struct figures = Measure({"publish", "--unary", "--in-flight", "7", "--batch", "3",
                                  "--count", "1000", "--producers", "3", "--warmup", "0"});
  EXPECT_EQ(Number(figures, "messages"), 1000);
  EXPECT_EQ(Number(figures, "stored"), 1000);
  EXPECT_EQ(Number(figures, "producers"), 3);
}

TEST_F(CliBenchTest, DrainConsumesTheBacklog) {
  const Struct figures = Measure({"drain", "--count", "3000", "--consumers", "3"});
  EXPECT_EQ(Number(figures, "messages"), 3000);
  EXPECT_EQ(Number(figures, "acked"), 3300);
  EXPECT_EQ(Number(figures, "stored"), 0);
}

TEST_F(CliBenchTest, FlowConsumesWhatItPublishes) {
  const Struct figures = Measure({"flow", "--count", "3000", "--window", "50", "--credit", "20",
                                  "--ack-batch", "5"});
  EXPECT_EQ(Number(figures, "messages"), 3000);
  EXPECT_EQ(Number(figures, "acked"), 3300);
  EXPECT_EQ(Number(figures.fields().at("latency_us").struct_value(), "count"), 3000);
}

TEST_F(CliBenchTest, PaceKeepsToItsRate) {
  const Struct figures =
      Measure({"pace", "--rate", "500/s", "--seconds", "1s", "--warmup", "100ms"});
  EXPECT_EQ(Number(figures, "messages"), 500);
  // The last message is due 2 ms before the second is over; a loaded machine may take longer.
  EXPECT_LE(Number(figures, "messages_per_second"), 501.5);
}

TEST_F(CliBenchTest, ManyQueuesGetEveryMessage) {
  const Struct figures = Measure({"many-queues", "--queues", "600", "--count", "2000"});
  EXPECT_EQ(Number(figures, "stored"), 4400);
  EXPECT_GT(Number(figures.fields().at("ratios").struct_value(), "many_to_one"), 0);
}

TEST_F(CliBenchTest, ManyConsumersShareTheirQueue) {
  const Struct figures =
      Measure({"many-consumers", "--consumers", "20", "--count", "4000", "--credit", "10"});
  EXPECT_EQ(Number(figures, "acked"), 4400);
  EXPECT_GE(
      Number(figures.fields().at("ratios").struct_value(), "busiest_to_idlest_consumer"), 1);
}

TEST_F(CliBenchTest, ManyConsumersMayBeIdle) {
  const Struct figures = Measure({"many-consumers", "--idle", "--consumers", "20", "--rate",
                                  "1000/s", "--seconds", "300ms", "--warmup", "0"});
  EXPECT_EQ(Number(figures, "stored"), 600);
  EXPECT_GT(
      Number(figures.fields().at("ratios").struct_value(), "p99_beside_idle_to_alone"), 0);
}

TEST_F(CliBenchTest, DeepComparesWithEmpty) {
  // The credit bounds what consumers take beyond the count.
  const Struct figures = Measure(
      {"deep", "--depth", "5000", "--count", "1000", "--warmup", "0", "--credit", "100"});
  EXPECT_EQ(Number(figures, "acked"), 9000);
  const Struct& ratios = figures.fields().at("ratios").struct_value();
  for (const char* work : {"publish", "flow", "drain"}) {
    EXPECT_GT(Number(ratios, std::string(work) + "_deep_to_empty"), 0) << work;
  }
}

TEST_F(CliBenchTest, WhatIsToStayStays) {
  EXPECT_EQ(
      Run({"publish", "--count", "10", "--queue", "mine", "--keep", "--warmup", "0"}).exit_code,
      kOk);
  EXPECT_THAT(Queues(), ::testing::ElementsAre("mine"));
  EXPECT_EQ(Stats("mine").ready(), 10);
}

TEST_F(CliBenchTest, AQueueOfOthersIsLeftAlone) {
  MakeQueue("orders");
  Publish("orders", {"precious"});
  const CommandResult result = Run({"drain", "--count", "10", "--queue", "orders"});
  EXPECT_EQ(result.exit_code, kRefused);
  EXPECT_THAT(result.err, HasSubstr("orders"));
  EXPECT_EQ(Stats("orders").ready(), 1);
}

TEST_F(CliBenchTest, CtrlCEndsItAndLeavesNothingBehind) {
  SluiceCommand command(server_.address(),
                        {"bench", "flow", "--seconds", "600", "--rate", "100/s"});
  while (Queues().empty()) std::this_thread::yield();
  command.Signal(SIGINT);
  const CommandResult result = command.Wait();
  EXPECT_EQ(result.exit_code, kRefused);
  EXPECT_THAT(result.err, HasSubstr("stopped before the end"));
  EXPECT_THAT(Queues(), IsEmpty());
}

TEST_F(CliBenchTest, AServerThatGoesAwayEndsIt) {
  SluiceCommand command(
      server_.address(),
      {"--timeout", "2s", "bench", "flow", "--seconds", "600", "--rate", "100/s"});
  while (Queues().empty()) std::this_thread::yield();
  server_.Kill();
  EXPECT_EQ(command.Wait().exit_code, kUnreachable);
}

TEST_F(CliBenchTest, WrongOptionsAreRefused) {
  EXPECT_EQ(Run({"publish", "--size", "31"}).exit_code, kUsage);
  EXPECT_EQ(Run({"publish", "--in-flight", "10"}).exit_code, kUsage);  // needs --unary
  EXPECT_EQ(Run({"flow", "--count", "0"}).exit_code, kUsage);
  EXPECT_EQ(Run({}).exit_code, kUsage);
  EXPECT_THAT(Queues(), IsEmpty());
}

}  // namespace
}  // namespace sluice::testing
