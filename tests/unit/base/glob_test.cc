#include "server/base/glob.h"

#include <string>

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(GlobTest, WithoutWildcardsTheTextIsEqual) {
  EXPECT_TRUE(GlobMatches("", ""));
  EXPECT_TRUE(GlobMatches("orders", "orders"));
  EXPECT_FALSE(GlobMatches("orders", "order"));
  EXPECT_FALSE(GlobMatches("order", "orders"));
  EXPECT_FALSE(GlobMatches("", "a"));
}

TEST(GlobTest, AStarStandsForAnyRunAndNone) {
  EXPECT_TRUE(GlobMatches("*", ""));
  EXPECT_TRUE(GlobMatches("a*", "a"));
  EXPECT_TRUE(GlobMatches("*.eu", "orders.eu"));
  EXPECT_TRUE(GlobMatches("a*b*c", "a-b-b-c"));
  EXPECT_FALSE(GlobMatches("a*b*c", "a-c-b"));
  EXPECT_TRUE(GlobMatches("**", "x"));
}

TEST(GlobTest, AQuestionMarkStandsForExactlyOne) {
  EXPECT_TRUE(GlobMatches("q?", "q1"));
  EXPECT_FALSE(GlobMatches("q?", "q"));
  EXPECT_FALSE(GlobMatches("q?", "q12"));
}

TEST(GlobTest, AStarInTheTextIsACharacterLikeAnother) {
  EXPECT_TRUE(GlobMatches("*", "*a"));
  EXPECT_TRUE(GlobMatches("*b", "*ab"));
}

TEST(GlobTest, ManyStarsDoNotTakeExponentialTime) {
  std::string glob;
  for (int i = 0; i < 100; ++i) glob += "*a";
  EXPECT_FALSE(GlobMatches(glob + "b", std::string(255, 'a')));
}

}  // namespace
}  // namespace sluice
