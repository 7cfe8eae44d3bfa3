// What `sluice bench` counts as confirmed is on the disk: it is still there when the power goes right
// after the last confirm.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/crash/disk_fixture.h"
#include "tests/support/client.h"
#include "tests/support/command.h"

namespace sluice::testing {
namespace {

using v1::AdminService;

constexpr int64_t kDiskBytes = int64_t{2} << 30;
constexpr int64_t kMessages = 40'000;

class BenchPower : public ServerOnDisk {
 protected:
  BenchPower() : ServerOnDisk(kDiskBytes) {}

  // Publishes kMessages, loses power, and says how many the restarted server has.
  int64_t LeftAfterAPowerLoss(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"bench", "publish", "--queue", "kept", "--keep", "--count",
                                         std::to_string(kMessages), "--warmup", "0s"});
    const CommandResult result = RunSluice(server_->address(), arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_TRUE(disk_->LosePower().ok());
    server_->Kill();
    EXPECT_TRUE(disk_->Remount().ok());
    EXPECT_TRUE(server_->Start().ok()) << server_->Log();
    Client client(server_->address());
    v1::GetQueueRequest request;
    request.set_queue("kept");
    v1::GetQueueResponse response;
    EXPECT_TRUE(Call(client.admin, &AdminService::Stub::GetQueue, request, &response).ok());
    return response.queue().stats().ready();
  }
};

TEST_F(BenchPower, StreamedPublishesThatWereConfirmedAreThere) {
  EXPECT_EQ(LeftAfterAPowerLoss({"--window", "10000"}), kMessages);
}

TEST_F(BenchPower, SinglePublishesThatWereConfirmedAreThere) {
  EXPECT_EQ(LeftAfterAPowerLoss({"--unary", "--in-flight", "200"}), kMessages);
}

}  // namespace
}  // namespace sluice::testing
