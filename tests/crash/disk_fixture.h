// A server whose data lie on a small disk of their own.
#ifndef SLUICE_TESTS_CRASH_DISK_FIXTURE_H_
#define SLUICE_TESTS_CRASH_DISK_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "tests/support/loop_disk.h"
#include "tests/support/server_process.h"

namespace sluice::testing {

// Skips its tests where no disk can be mounted.
class ServerOnDisk : public ::testing::Test {
 protected:
  // The disk is a sparse file: it takes what is written.
  explicit ServerOnDisk(int64_t disk_bytes) : disk_bytes_(disk_bytes) {}

  void SetUp() override {
    auto disk = LoopDisk::Make(disk_bytes_);
    if (absl::IsUnavailable(disk.status())) GTEST_SKIP() << disk.status().message();
    ASSERT_TRUE(disk.ok()) << disk.status();
    disk_ = *std::move(disk);
    server_ = std::make_unique<ServerProcess>(
        std::vector<std::string>{"--data-dir", disk_->path() + "/data"});
    ASSERT_TRUE(server_->Start().ok());
  }
  void TearDown() override { server_.reset(); }  // before its disk

  const int64_t disk_bytes_;
  std::unique_ptr<LoopDisk> disk_;
  std::unique_ptr<ServerProcess> server_;
};

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_CRASH_DISK_FIXTURE_H_
