// Rates with bursts.
#include "server/model/token_bucket.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;

TokenBucket Bucket(double per_second, int32_t burst) {
  TokenBucket bucket;
  bucket.Configure({per_second, burst}, 0);
  return bucket;
}
// How many can be taken at once.
int TakeAll(TokenBucket& bucket, int64_t now_ns, int max = 10'000) {
  int taken = 0;
  while (taken < max && bucket.HasToken(now_ns)) {
    bucket.Take(now_ns);
    ++taken;
  }
  return taken;
}

TEST(TokenBucket, WithoutALimitThereIsAlwaysAToken) {
  TokenBucket bucket;
  EXPECT_FALSE(bucket.limited());
  EXPECT_EQ(TakeAll(bucket, 0), 10'000);
}

TEST(TokenBucket, StartsFullAndRefillsAtItsRate) {
  TokenBucket bucket = Bucket(10, 5);
  int64_t now_ns = 1000 * kSecondNs;
  EXPECT_EQ(TakeAll(bucket, now_ns), 5);
  EXPECT_EQ(bucket.NextTokenNs(), now_ns + kSecondNs / 10);
  EXPECT_EQ(TakeAll(bucket, now_ns + kSecondNs / 10 - 1), 0);
  EXPECT_EQ(TakeAll(bucket, now_ns + kSecondNs / 10), 1);
  EXPECT_EQ(TakeAll(bucket, now_ns + kSecondNs / 2), 4);
  EXPECT_EQ(TakeAll(bucket, now_ns + 100 * kSecondNs), 5) << "never more than the burst";
}

TEST(TokenBucket, SeveralAreTakenAtOnce) {
  TokenBucket bucket = Bucket(10, 3);
  EXPECT_EQ(bucket.Available(5, 0), 3);
  EXPECT_LE(bucket.TokensAtNs(3), 0);
  bucket.Take(0, 3);
  EXPECT_EQ(bucket.Available(1, 0), 0);
  EXPECT_EQ(bucket.TokensAtNs(1), kSecondNs / 10);
  EXPECT_EQ(bucket.TokensAtNs(2), kSecondNs / 5);
  EXPECT_EQ(bucket.TokensAtNs(100), 3 * kSecondNs / 10) << "what it never holds is not waited for";
  EXPECT_EQ(bucket.Available(1, kSecondNs / 10 - 1000), 0);
  EXPECT_EQ(bucket.Available(5, kSecondNs / 10), 1);
  EXPECT_EQ(bucket.Available(5, 3600 * kSecondNs), 3);
}

TEST(TokenBucket, WithoutALimitAsManyAsWantedAreThere) {
  TokenBucket bucket;
  EXPECT_EQ(bucket.Available(7, 0), 7);
  bucket.Take(0, 7);
  EXPECT_LE(bucket.TokensAtNs(7), 0);
}

TEST(TokenBucket, ABurstOfNoneIsOne) {
  TokenBucket bucket = Bucket(1, 0);
  EXPECT_EQ(TakeAll(bucket, kSecondNs), 1);
}

TEST(TokenBucket, KeepsItsRateOverManyTokens) {
  for (const double per_second : {0.001, 0.3, 7.0, 1e6}) {
    TokenBucket bucket = Bucket(per_second, 1);
    int64_t now_ns = 50 * 24 * 3600 * kSecondNs;
    const int64_t start_ns = now_ns;
    constexpr int kTokens = 10'000;
    for (int i = 0; i < kTokens; ++i) {
      now_ns = std::max(now_ns, bucket.NextTokenNs());
      ASSERT_TRUE(bucket.HasToken(now_ns));
      bucket.Take(now_ns);
    }
    const double rate = (kTokens - 1) / (static_cast<double>(now_ns - start_ns) / kSecondNs);
    EXPECT_NEAR(rate, per_second, per_second * 0.01);
  }
}

TEST(TokenBucket, WhatIsGivenBackCanBeTakenAgain) {
  TokenBucket bucket = Bucket(1, 2);
  EXPECT_EQ(TakeAll(bucket, kSecondNs), 2);
  bucket.GiveBack();
  EXPECT_EQ(TakeAll(bucket, kSecondNs), 1);
}

TEST(TokenBucket, ANewRateHoldsFromNowOn) {
  TokenBucket bucket = Bucket(1, 1);
  const int64_t now_ns = kSecondNs;
  EXPECT_EQ(TakeAll(bucket, now_ns), 1);
  bucket.Configure({0, 0}, now_ns);
  EXPECT_EQ(TakeAll(bucket, now_ns, 7), 7);
  bucket.Configure({1000, 1}, now_ns);
  EXPECT_EQ(TakeAll(bucket, now_ns), 1);
  EXPECT_EQ(bucket.NextTokenNs(), now_ns + kSecondNs / 1000);
}

TEST(TokenBucket, WhatIsMissingComesBackAtTheNewRate) {
  const int64_t now_ns = kSecondNs;
  TokenBucket bucket = Bucket(0.001, 1);
  EXPECT_EQ(TakeAll(bucket, now_ns), 1);
  bucket.Configure({10, 5}, now_ns);
  EXPECT_EQ(TakeAll(bucket, now_ns), 4) << "the new burst without the one that was taken";
  bucket.Configure({1, 2}, now_ns);
  EXPECT_EQ(bucket.NextTokenNs(), now_ns + kSecondNs) << "never more missing than the burst";
}

}  // namespace
}  // namespace sluice
