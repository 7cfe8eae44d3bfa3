// Health, reflection, draining on SIGTERM, refusing to start.
#include <signal.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "tests/integration/fixture.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Duration kDrainLimit = absl::Seconds(10);

class LifecycleTest : public ServerTest {
 protected:
  void Garble(const std::string& extension);
};

TEST_F(LifecycleTest, HealthKnowsEachServiceAndNoOther) {
  for (const char* service : {"", "sluice.v1.QueueService", "sluice.v1.AdminService"}) {
    const absl::StatusOr<HealthStatus> health = CheckHealth(client_->channel, service);
    ASSERT_TRUE(health.ok()) << health.status();
    EXPECT_EQ(*health, HealthStatus::kServing) << service;
  }
  EXPECT_EQ(CheckHealth(client_->channel, "no.such.Service").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(LifecycleTest, HealthWatchSeesTheDrainOnce) {
  std::atomic<bool> serving = false;
  std::vector<HealthStatus> seen;  // the watcher's
  std::jthread watcher([&] {
    WatchHealth(client_->channel, "sluice.v1.QueueService", [&](HealthStatus health) {
      seen.push_back(health);
      if (health == HealthStatus::kServing) serving = true;
      return true;
    });
  });
  EXPECT_TRUE(WaitUntil([&] { return serving.load(); }));
  server_.SignalTerminate();
  watcher.join();
  EXPECT_THAT(seen, ElementsAre(HealthStatus::kServing, HealthStatus::kNotServing));
  EXPECT_EQ(server_.WaitForExit(kDrainLimit).value_or(-1), 0);
}

TEST_F(LifecycleTest, ReflectionListsTheServices) {
  const absl::StatusOr<std::string> services = ListReflectedServices(client_->channel);
  ASSERT_TRUE(services.ok()) << services.status();
  EXPECT_THAT(*services, HasSubstr("sluice.v1.QueueService"));
  EXPECT_THAT(*services, HasSubstr("sluice.v1.AdminService"));
  EXPECT_THAT(*services, HasSubstr("grpc.health.v1.Health"));
}

TEST_F(LifecycleTest, SigtermEndsStreamsKeepsLeasesAndExitsZeroInTime) {
  MakeQueue("q");
  Publish("q", {"held", "waiting"});
  v1::SubscribeRequest request = SubscribeTo("q");
  request.set_max_in_flight(1);
  std::string receipt;
  {
    Subscription subscription(*client_, request);
    receipt = subscription.Next(1)[0].receipt();
    const absl::Time start = absl::Now();
    server_.SignalTerminate();
    const grpc::Status end = subscription.Finish();
    EXPECT_THAT(end, FailsWith(grpc::StatusCode::UNAVAILABLE, "DRAINING"));
    EXPECT_TRUE(DetailsOf(end).has_retry_delay);
    EXPECT_EQ(server_.WaitForExit(kDrainLimit).value_or(-1), 0);
    EXPECT_LT(absl::Now() - start, kDrainLimit);
  }
  StartServer();
  const v1::QueueStats stats = Stats("q");
  EXPECT_EQ(stats.leased(), 1);
  EXPECT_EQ(stats.ready(), 1);
  EXPECT_EQ(Ack("q", {receipt}).acked(), 1);
  const v1::Delivery other = ReceiveAll("q", 1)[0];
  EXPECT_EQ(other.message().body(), "waiting");
  EXPECT_FALSE(other.maybe_redelivered());
}

TEST_F(LifecycleTest, SigtermAnswersAWaitingReceive) {
  MakeQueue("q");
  grpc::Status status;
  std::jthread receiver([&] {
    v1::ReceiveRequest request;
    request.set_queue("q");
    *request.mutable_wait() = ToProto(absl::Seconds(15));
    v1::ReceiveResponse response;
    status = CallQueues(&QueueService::Stub::Receive, request, &response);
  });
  ASSERT_TRUE(WaitUntil([&] { return Stats("q").consumers() == 1; }));
  const absl::StatusOr<int> code = server_.Terminate(kDrainLimit);
  receiver.join();
  EXPECT_EQ(code.value_or(-1), 0);
  if (!status.ok()) {
    EXPECT_THAT(status, FailsWith(grpc::StatusCode::UNAVAILABLE, "DRAINING"));
  }
}

TEST_F(LifecycleTest, SecondServerOnTheSameDataRefuses) {
  // The same folder and other ports: the store is locked by the first.
  ServerProcess second({"--data-dir", server_.data_dir()});
  ASSERT_TRUE(second.Spawn().ok());
  const absl::StatusOr<int> code = second.WaitForExit(absl::Seconds(15));
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_NE(*code, 0);
}

TEST_F(LifecycleTest, AConfigThatIsADirectoryIsRefusedInWords) {
  ServerProcess other({"--config", "/tmp"});
  ASSERT_TRUE(other.Spawn().ok());
  const absl::StatusOr<int> code = other.WaitForExit(absl::Seconds(15));
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_EQ(*code, 64);  // EX_USAGE
  EXPECT_THAT(other.Log(), HasSubstr("/tmp: is a directory"));
}

TEST_F(LifecycleTest, APortThatIsTakenIsRefusedInWords) {
  ServerProcess second({"--listen", server_.address()});
  ASSERT_TRUE(second.Spawn().ok());
  const absl::StatusOr<int> code = second.WaitForExit(absl::Seconds(15));
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_NE(*code, 0);
  EXPECT_THAT(second.Log(), HasSubstr(absl::StrCat("cannot listen on ", server_.address(),
                                                   ": Address already in use")));
}

TEST_F(LifecycleTest, WhatGrpcSaysIsLoggedAsTheRest) {
  setenv("GRPC_VERBOSITY", "DEBUG", 1);
  ServerProcess second({"--log-format", "json", "--log-level", "debug"});
  const absl::Status started = second.Start();
  unsetenv("GRPC_VERBOSITY");
  ASSERT_TRUE(started.ok()) << started;
  EXPECT_THAT(second.Log(), HasSubstr("\"event\":\"grpc\""));
  for (const absl::string_view line : absl::StrSplit(second.Log(), '\n', absl::SkipEmpty())) {
    EXPECT_TRUE(absl::StartsWith(line, "{\"time\":")) << line;
  }
}

TEST_F(LifecycleTest, ListeningBeyondLoopbackNeedsInsecure) {
  ServerProcess open_to_all({"--listen", "0.0.0.0:0"});
  ASSERT_TRUE(open_to_all.Spawn().ok());
  const absl::StatusOr<int> code = open_to_all.WaitForExit(absl::Seconds(15));
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_NE(*code, 0);
  EXPECT_THAT(open_to_all.Log(), HasSubstr("insecure"));
}

TEST_F(LifecycleTest, AClosedTerminalIsAStopInGoodOrder) {
  MakeQueue("q");
  Publish("q", {"m"});
  ReceiveAll("q", 1);
  ASSERT_EQ(kill(server_.pid(), SIGHUP), 0);
  const absl::StatusOr<int> code = server_.WaitForExit(kDrainLimit);
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_EQ(*code, 0);
  StartServer();
  EXPECT_EQ(Stats("q").leased(), 1) << "leases are saved";
}

// Writes into the middle of the largest file of that kind.
void LifecycleTest::Garble(const std::string& extension) {
  std::filesystem::path largest;
  uintmax_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(server_.data_dir())) {
    if (entry.path().extension() == extension && entry.file_size() > bytes) {
      largest = entry.path();
      bytes = entry.file_size();
    }
  }
  ASSERT_GT(bytes, 50'000u);
  std::fstream file(largest, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(bytes / 2));
  file.write("garbage!", 8);
}

TEST_F(LifecycleTest, DamagedMessagesAreToldToWhoeverWaitsBeforeTheServerEnds) {
  MakeQueue("q");
  MakeQueue("other");
  std::mt19937 random(1);
  for (int i = 0; i < 100; ++i) {
    std::string body(2000, '\0');  // does not compress
    for (char& c : body) c = static_cast<char>(random());
    Publish("q", {body});
  }
  server_.Kill();
  StartServer();  // what was in the log is in files now
  server_.Kill();
  Garble(".sst");
  StartServer();
  Subscription other(*client_, SubscribeTo("other"));
  v1::ReceiveRequest request;
  request.set_queue("q");
  request.set_max_messages(1000);
  *request.mutable_wait() = ToProto(absl::Seconds(10));
  v1::ReceiveResponse response;
  grpc::Status status = grpc::Status::OK;
  while (status.ok()) status = CallQueues(&QueueService::Stub::Receive, request, &response);
  EXPECT_THAT(status, FailsWith(grpc::StatusCode::DATA_LOSS, "DATA_DAMAGED"));
  EXPECT_THAT(other.Finish(), FailsWith(grpc::StatusCode::DATA_LOSS, "DATA_DAMAGED"));
  const absl::StatusOr<int> code = server_.WaitForExit(absl::Seconds(15));
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_NE(*code, 0);
}

TEST_F(LifecycleTest, DamageInTheMiddleOfTheWalRefusesToStart) {
  MakeQueue("q");
  for (int i = 0; i < 50; ++i) Publish("q", {std::string(2000, 'x')});
  server_.Kill();
  Garble(".log");  // the largest is the write-ahead log
  ASSERT_TRUE(server_.Spawn().ok());
  const absl::StatusOr<int> code = server_.WaitForExit(absl::Seconds(15));
  ASSERT_TRUE(code.ok()) << "it serves damaged data";
  EXPECT_NE(*code, 0);
  EXPECT_THAT(server_.Log(), ::testing::ContainsRegex("[Dd]amage|[Cc]orrupt|DATA_LOSS"));
}

}  // namespace
}  // namespace sluice::testing
