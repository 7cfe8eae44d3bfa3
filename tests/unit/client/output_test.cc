// What a command's end makes of the state of its standard output.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <iostream>

#include "client/cli/context.h"

namespace sluice::cli {
namespace {

constexpr char kComplaint[] = "sluice: the output could not be written\n";

class FinishOutputTest : public ::testing::Test {
 protected:
  // Finishes a command that wrote a line to `fd`, which it closes.
  int FinishInto(int fd, int exit_code) {
    std::fflush(stdout);
    const int ours = dup(STDOUT_FILENO);
    dup2(fd, STDOUT_FILENO);
    close(fd);
    ::testing::internal::CaptureStderr();
    std::cout << "a line\n";
    const int finished = FinishOutput(exit_code);
    complaint_ = ::testing::internal::GetCapturedStderr();
    dup2(ours, STDOUT_FILENO);
    close(ours);
    std::cout.clear();
    std::clearerr(stdout);
    return finished;
  }

  std::string complaint_;
};

TEST_F(FinishOutputTest, WhatCannotBeWrittenIsAFailure) {
  EXPECT_EQ(FinishInto(open("/dev/full", O_WRONLY), kExitOk), kExitRefused);
  EXPECT_EQ(complaint_, kComplaint);
}

TEST_F(FinishOutputTest, AnEarlierFailureIsTheOneThatCounts) {
  EXPECT_EQ(FinishInto(open("/dev/full", O_WRONLY), kExitUnreachable), kExitUnreachable);
}

TEST_F(FinishOutputTest, WhatWasWrittenIsFine) {
  EXPECT_EQ(FinishInto(open("/dev/null", O_WRONLY), kExitOk), kExitOk);
  EXPECT_EQ(FinishInto(open("/dev/null", O_WRONLY), kExitNothing), kExitNothing);
  EXPECT_EQ(complaint_, "");
}

TEST_F(FinishOutputTest, AReaderThatSawEnoughIsFine) {
  std::signal(SIGPIPE, SIG_IGN);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[0]);
  EXPECT_EQ(FinishInto(ends[1], kExitOk), kExitOk);
  EXPECT_EQ(complaint_, "");
}

}  // namespace
}  // namespace sluice::cli
