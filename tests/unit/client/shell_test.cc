#include "client/cli/shell.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>

namespace sluice::cli {
namespace {

TEST(ShellTest, InputGoesInAndOutputComesBack) {
  EXPECT_EQ(*RunShell("cat", "", {}), "");
  EXPECT_EQ(*RunShell("tr a-z A-Z", "hello", {}), "HELLO");
  EXPECT_EQ(*RunShell("printf '%s' \"$SLUICE_QUEUE\"", "", {{"SLUICE_QUEUE", "a b"}}), "a b");
}

TEST(ShellTest, WhatIsGivenStandsInsteadOfWhatIsInherited) {
  setenv("SLUICE_QUEUE", "outer", /*overwrite=*/1);
  setenv("SLUICE_QUEUE_TOO", "stays", /*overwrite=*/1);
  EXPECT_EQ(*RunShell("echo $SLUICE_QUEUE $SLUICE_QUEUE_TOO", "", {{"SLUICE_QUEUE", "ours"}}),
            "ours stays\n");
  unsetenv("SLUICE_QUEUE");
  unsetenv("SLUICE_QUEUE_TOO");
}

TEST(ShellTest, MoreThanAPipeHoldsPassesBothWays) {
  const std::string large(4 << 20, 'x');
  EXPECT_EQ(*RunShell("cat", large, {}), large);
}

TEST(ShellTest, ACommandNeedNotReadItsInput) {
  std::signal(SIGPIPE, SIG_IGN);  // as main does
  EXPECT_EQ(*RunShell("echo done", std::string(4 << 20, 'x'), {}), "done\n");
}

TEST(ShellTest, FailuresSayHowItEnded) {
  EXPECT_EQ(RunShell("exit 3", "", {}).status().message(), "the command ended with exit code 3");
  EXPECT_EQ(RunShell("kill -9 $$", "", {}).status().message(),
            "the command was ended by signal 9");
  EXPECT_FALSE(RunShell("no-such-command-anywhere", "", {}).ok());
}

TEST(ShellTest, OutputIsBounded) {
  EXPECT_EQ(RunShell("head -c 15728640 /dev/zero", "", {})->size(), kShellOutputBytesMax);
  EXPECT_TRUE(absl::IsResourceExhausted(RunShell("head -c 15728641 /dev/zero", "", {}).status()));
}

}  // namespace
}  // namespace sluice::cli
