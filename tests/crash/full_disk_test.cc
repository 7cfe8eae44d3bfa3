// A small disk filled to the brim: publishes are refused in time, acks go on, restarts work.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "tests/crash/disk_fixture.h"
#include "tests/support/client.h"
#include "tests/support/loop_disk.h"
#include "tests/support/server_process.h"

namespace sluice::testing {
namespace {

using v1::AdminService;
using v1::QueueService;

constexpr int64_t kMiB = 1 << 20;
constexpr int64_t kDiskBytes = 512 * kMiB;
constexpr int kPublishers = 3;
constexpr int kBatch = 20;
constexpr size_t kBodyBytes = 45'000;
// This many refusals in a row: what was under way has been flushed, and it is still full.
constexpr int kRefusalsEnough = 5;
constexpr absl::Duration kRefusedPause = absl::Milliseconds(200);
constexpr int kReceiveMax = 40;  // bodies of one answer stay below what a client takes

class FullDisk : public ServerOnDisk {
 protected:
  FullDisk() : ServerOnDisk(kDiskBytes) {}

  void SetUp() override {
    ServerOnDisk::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    Client client(server_->address());
    v1::CreateQueueRequest request;
    request.mutable_config()->set_name("q");
    v1::CreateQueueResponse response;
    ASSERT_TRUE(Call(client.admin, &AdminService::Stub::CreateQueue, request, &response).ok());
  }

  // Publishes until it is refused for good; nothing but a refusal may end a call.
  void FillUp() {
    std::vector<std::thread> publishers;
    for (int p = 0; p < kPublishers; ++p) {
      publishers.emplace_back([this, number = next_publisher_++] { Fill(number); });
    }
    for (std::thread& publisher : publishers) publisher.join();
  }
  // Receives and acks `count` messages: none twice, none that was not published.
  void Drain(size_t count) {
    Client client(server_->address());
    while (count > 0) {
      v1::ReceiveRequest receive;
      receive.set_queue("q");
      receive.set_max_messages(static_cast<int>(std::min<size_t>(count, kReceiveMax)));
      *receive.mutable_wait() = ToProto(absl::Seconds(10));
      v1::ReceiveResponse received;
      const grpc::Status status =
          Call(client.queues, &QueueService::Stub::Receive, receive, &received);
      ASSERT_TRUE(status.ok()) << status.error_message();
      ASSERT_GT(received.deliveries_size(), 0) << count << " are missing";
      v1::AckRequest ack;
      ack.set_queue("q");
      for (const v1::Delivery& delivery : received.deliveries()) {
        const std::string id = delivery.message().body().substr(0, kIdBytes);
        EXPECT_TRUE(acked_.insert(id).second) << id << " came again after its ack";
        ack.add_receipts(delivery.receipt());
      }
      v1::AckResponse acked;
      const grpc::Status ack_status = Call(client.queues, &QueueService::Stub::Ack, ack, &acked);
      ASSERT_TRUE(ack_status.ok()) << ack_status.error_message();
      EXPECT_EQ(acked.acked(), received.deliveries_size());
      count -= static_cast<size_t>(received.deliveries_size());
    }
  }
  int64_t Depth() {
    Client client(server_->address());
    v1::GetQueueRequest request;
    request.set_queue("q");
    v1::GetQueueResponse response;
    EXPECT_TRUE(Call(client.admin, &AdminService::Stub::GetQueue, request, &response).ok());
    const v1::QueueStats& stats = response.queue().stats();
    return stats.ready() + stats.leased() + stats.delayed() + stats.blocked();
  }

  static constexpr size_t kIdBytes = 12;
  int next_publisher_ = 0;
  std::mutex mutex_;
  std::set<std::string> confirmed_;
  std::set<std::string> acked_;

 private:
  void Fill(int publisher) {
    Client client(server_->address());
    std::mt19937_64 random(static_cast<uint64_t>(publisher));
    std::string noise(kBodyBytes, '\0');  // does not compress
    for (char& c : noise) c = static_cast<char>(random());
    int refused = 0;
    for (int next = 0; refused < kRefusalsEnough; ++next) {
      v1::PublishRequest request;
      request.set_queue("q");
      std::vector<std::string> ids;
      for (int i = 0; i < kBatch; ++i) {
        std::string id = absl::StrCat(publisher, "-", next, "-", i, "-");
        id.resize(kIdBytes, '.');
        std::rotate(noise.begin(), noise.begin() + 7, noise.end());
        request.add_messages()->set_body(id + noise);
        ids.push_back(std::move(id));
      }
      v1::PublishResponse response;
      const grpc::Status status =
          Call(client.queues, &QueueService::Stub::Publish, request, &response);
      if (status.ok()) {
        refused = 0;
        std::lock_guard lock(mutex_);
        confirmed_.insert(ids.begin(), ids.end());
        continue;
      }
      ASSERT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED)
          << status.error_message();
      ++refused;
      absl::SleepFor(kRefusedPause);
    }
  }
};

TEST_F(FullDisk, AcksAndRestartsGoOnAndNothingIsLost) {
  FillUp();
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_GT(confirmed_.size() * kBodyBytes, kDiskBytes / 4) << "refused far too early";
  EXPECT_GT(disk_->FreeBytes(), 32 * kMiB) << "there is hardly room for acks";
  EXPECT_EQ(Depth(), static_cast<int64_t>(confirmed_.size()));

  // The log is replayed into files on the full disk.
  server_->Kill();
  const absl::Status started = server_->Start();
  ASSERT_TRUE(started.ok()) << started;
  FillUp();
  ASSERT_FALSE(HasFatalFailure());
  const size_t all = confirmed_.size();
  EXPECT_EQ(Depth(), static_cast<int64_t>(all));

  Drain(all / 2);
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(server_->Terminate().value_or(-1), 0) << server_->Log();
  ASSERT_TRUE(server_->Start().ok());
  Drain(all - all / 2);
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(acked_, confirmed_);
  EXPECT_EQ(Depth(), 0);

  // The space has come back.
  EXPECT_TRUE(WaitUntil([&] { return disk_->FreeBytes() > kDiskBytes / 2; }));
  EXPECT_EQ(server_->Terminate().value_or(-1), 0) << server_->Log();
}

TEST_F(FullDisk, AStoreThatCannotBeOpenedForLackOfSpaceSaysSoAndLosesNothing) {
  FillUp();
  ASSERT_FALSE(HasFatalFailure());
  server_->Kill();
  // Somebody else takes what was kept free.
  const std::string filler = disk_->path() + "/filler";
  ASSERT_EQ(std::system(absl::StrCat("cat /dev/zero > ", filler, " 2>/dev/null; sync").c_str()) & 0xff,
            0);
  ASSERT_TRUE(server_->Spawn().ok());
  // With next to nothing in its log it finds room even so.
  if (const auto code = server_->WaitForExit(absl::Seconds(5)); code.ok()) {
    EXPECT_EQ(*code, 1);
    EXPECT_NE(server_->Log().find("too full to open the store"), std::string::npos)
        << server_->Log();
  }
  server_->Kill();
  ASSERT_EQ(remove(filler.c_str()), 0);
  ASSERT_TRUE(server_->Start().ok());
  EXPECT_EQ(Depth(), static_cast<int64_t>(confirmed_.size()));
}

TEST(SmallDisk, IsRefusedWithTheNumberOfBytesItTakes) {
  auto disk = LoopDisk::Make(200 * kMiB);
  if (absl::IsUnavailable(disk.status())) GTEST_SKIP() << disk.status().message();
  ASSERT_TRUE(disk.ok()) << disk.status();
  ServerProcess server({"--data-dir", (*disk)->path() + "/data"});
  ASSERT_TRUE(server.Spawn().ok());
  EXPECT_EQ(server.WaitForExit(absl::Seconds(30)).value_or(-1), 1);
  EXPECT_NE(server.Log().find("at least 288 MiB are needed"), std::string::npos) << server.Log();
}

}  // namespace
}  // namespace sluice::testing
