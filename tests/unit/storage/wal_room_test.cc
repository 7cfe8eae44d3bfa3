#include "server/storage/wal_room.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace sluice::storage {
namespace {

class WalRoomTest : public ::testing::Test {
 protected:
  // Appends so many commits of that size, each synced.
  void Append(WalRoom& room, int commits, size_t bytes) {
    for (int i = 0; i < commits; ++i) {
      room.BeforeAppend(bytes);
      std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
      file.seekp(static_cast<std::streamoff>(appended_));
      file << std::string(bytes, 'x');
      appended_ += bytes;
      room.OnSync();
    }
  }

  ~WalRoomTest() override { std::filesystem::remove(path_); }

  const std::string path_ = ::testing::TempDir() + "wal_room_test_" + std::to_string(getpid());
  const std::ofstream created_{path_};
  uint64_t appended_ = 0;
};

TEST_F(WalRoomTest, SmallCommitsGetZerosAhead) {
  WalRoom room(path_);
  Append(room, 9, 7 * 1024);
  EXPECT_FALSE(room.has_room()) << "not before a chunk has told what commits are like";
  Append(room, 1, 7 * 1024);
  EXPECT_TRUE(room.has_room());
  EXPECT_EQ(room.appended(), appended_);
  EXPECT_EQ(std::filesystem::file_size(path_), appended_ + 64 * 1024);
  // And again when it is used up, and not before.
  Append(room, 9, 7 * 1024);
  EXPECT_EQ(std::filesystem::file_size(path_), 10 * 7 * 1024 + 64 * 1024u);
  Append(room, 1, 7 * 1024);
  EXPECT_EQ(std::filesystem::file_size(path_), appended_ + 64 * 1024);
}

TEST_F(WalRoomTest, LargeCommitsDoNotPayForZeros) {
  WalRoom room(path_);
  Append(room, 100, 9 * 1024);
  EXPECT_FALSE(room.has_room());
  EXPECT_EQ(std::filesystem::file_size(path_), appended_);
}

TEST_F(WalRoomTest, OneLargeCommitAmongSmallOnesEndsBehindTheRoom) {
  WalRoom room(path_);
  Append(room, 20, 4 * 1024);
  ASSERT_TRUE(room.has_room());
  Append(room, 1, 300 * 1024);
  EXPECT_FALSE(room.has_room());
  EXPECT_EQ(std::filesystem::file_size(path_), appended_);
}

TEST_F(WalRoomTest, RoomThatCannotBeMadeIsNoError) {
  WalRoom room(path_ + ".nowhere/000001.log");
  for (int i = 0; i < 50; ++i) {
    room.BeforeAppend(4 * 1024);
    room.OnSync();
  }
  EXPECT_FALSE(room.has_room());
}

}  // namespace
}  // namespace sluice::storage
