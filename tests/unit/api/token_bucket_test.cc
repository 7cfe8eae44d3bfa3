#include "server/api/token_bucket.h"

#include <gtest/gtest.h>

namespace sluice::api {
namespace {

constexpr int64_t kMs = 1'000'000;

TEST(TokenBucketTest, StartsFullAndFillsWithTime) {
  TokenBucket bucket({.per_second = 10, .burst = 3}, 0);
  EXPECT_EQ(bucket.WaitMs(3, 0), 0);
  EXPECT_EQ(bucket.Take(5, 0), 3);
  EXPECT_EQ(bucket.Take(1, 0), 0);
  EXPECT_EQ(bucket.WaitMs(1, 0), 100);
  EXPECT_EQ(bucket.Take(1, 99 * kMs), 0);
  EXPECT_EQ(bucket.Take(1, 100 * kMs), 1);
  EXPECT_EQ(bucket.Take(1, 100 * kMs), 0);
}

TEST(TokenBucketTest, HoldsNoMoreThanItsBurst) {
  TokenBucket bucket({.per_second = 1000, .burst = 2}, 0);
  EXPECT_EQ(bucket.Take(100, 3600'000 * kMs), 2);
  // What it never holds is not waited for.
  EXPECT_EQ(bucket.WaitMs(100, 3600'000 * kMs), 2);
}

TEST(TokenBucketTest, KeepsASlowPaceExactly) {
  TokenBucket bucket({.per_second = 0.5, .burst = 1}, 0);
  int64_t taken = 0;
  for (int64_t ms = 0; ms < 20'000; ++ms) taken += bucket.Take(1, ms * kMs);
  EXPECT_EQ(taken, 10);  // at 0 s, 2 s, ..., 18 s
}

}  // namespace
}  // namespace sluice::api
