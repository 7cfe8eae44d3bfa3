#include "client/cli/line_input.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace sluice::cli {
namespace {

using Lines = std::vector<std::string>;

class LineInputTest : public ::testing::Test {
 protected:
  LineInputTest() { EXPECT_EQ(pipe2(pipe_, O_CLOEXEC), 0); }
  ~LineInputTest() override {
    close(pipe_[0]);
    End();
  }

  void Write(const std::string& text) {
    ASSERT_EQ(write(pipe_[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  void End() {
    if (pipe_[1] >= 0) close(std::exchange(pipe_[1], -1));
  }
  static Lines ReadAll(LineInput& input) {
    Lines lines;
    for (std::string line; input.Next(&line);) lines.push_back(line);
    return lines;
  }

  int pipe_[2];
};

TEST_F(LineInputTest, LinesAreWhatLiesBetweenNewlines) {
  Write("one\n\ntwo\r\nthree");
  End();
  LineInput input(pipe_[0]);
  EXPECT_EQ(ReadAll(input), (Lines{"one", "", "two\r", "three"}));
  EXPECT_TRUE(input.status().ok());
  EXPECT_FALSE(input.stopped());
  EXPECT_EQ(input.bytes(), 15);
}

TEST_F(LineInputTest, AnEmptyInputHasNoLines) {
  End();
  LineInput input(pipe_[0]);
  EXPECT_EQ(ReadAll(input), Lines{});
  EXPECT_TRUE(input.status().ok());
}

TEST_F(LineInputTest, LinesLongerThanAReadAndInPiecesAreWhole) {
  const std::string line(200'000, 'x');
  std::thread writer([&] {
    for (int i = 0; i < 3; ++i) Write(line + "\nshort\n");
    End();
  });
  LineInput input(pipe_[0]);
  EXPECT_EQ(ReadAll(input), (Lines{line, "short", line, "short", line, "short"}));
  writer.join();
}

TEST_F(LineInputTest, AStopEndsAReadThatWaitsAndGivesOutNoHalfLine) {
  Write("one\nhal");
  LineInput input(pipe_[0]);
  std::string line;
  ASSERT_TRUE(input.Next(&line));
  std::thread stopper([&] { input.Stop(); });
  EXPECT_FALSE(input.Next(&line));
  EXPECT_TRUE(input.stopped());
  EXPECT_EQ(input.bytes(), 4);
  stopper.join();
  EXPECT_FALSE(input.Next(&line));
}

TEST_F(LineInputTest, AClosedInputIsAnError) {
  const int ours = dup(STDIN_FILENO);
  close(STDIN_FILENO);
  LineInput input(STDIN_FILENO);
  EXPECT_EQ(ReadAll(input), Lines{});
  EXPECT_FALSE(input.status().ok());
  dup2(ours, STDIN_FILENO);
  close(ours);
}

TEST_F(LineInputTest, WhatCannotBeReadIsAnError) {
  const int directory = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  LineInput input(directory);
  EXPECT_EQ(ReadAll(input), Lines{});
  EXPECT_FALSE(input.status().ok());
  close(directory);
}

}  // namespace
}  // namespace sluice::cli
