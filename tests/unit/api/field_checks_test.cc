#include "server/api/field_checks.h"

#include <gtest/gtest.h>

#include "server/api/utf8.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

google::protobuf::Duration DurationOf(int64_t seconds, int32_t nanos) {
  google::protobuf::Duration duration;
  duration.set_seconds(seconds);
  duration.set_nanos(nanos);
  return duration;
}

TEST(FieldChecksTest, NamesAreOneTo255OfTheAllowedCharacters) {
  EXPECT_TRUE(CheckName("queue", "a").ok());
  EXPECT_TRUE(CheckName("queue", "A-z_0.9").ok());
  EXPECT_TRUE(CheckName("queue", std::string(255, 'q')).ok());
  EXPECT_FALSE(CheckName("queue", std::string(256, 'q')).ok());
  for (const char* bad : {"", "a b", "a/b", "\xc3\xa4", "a\n"}) {
    EXPECT_EQ(FieldOf(CheckName("queue", bad)), "queue") << bad;
  }
}

TEST(FieldChecksTest, NamesOfTheServerCannotBeGiven) {
  EXPECT_TRUE(CheckName("queue", "sluice.tmp.1").ok());
  EXPECT_FALSE(CheckNewName("queue", "sluice.tmp.1").ok());
  EXPECT_TRUE(CheckNewName("queue", "sluicegate").ok());
}

TEST(FieldChecksTest, DurationsRoundUpAndAreRefusedWhereTheyMakeNoSense) {
  EXPECT_EQ(*ToMs("d", DurationOf(1, 1), 0, kHourMs), 1'001);
  EXPECT_EQ(*ToMs("d", DurationOf(0, 0), 0, kHourMs), 0);
  EXPECT_FALSE(ToMs("d", DurationOf(-1, 0), 0, kHourMs).ok());
  EXPECT_FALSE(ToMs("d", DurationOf(0, -1), 0, kHourMs).ok());
  EXPECT_FALSE(ToMs("d", DurationOf(1, -1), 0, kHourMs).ok());
  EXPECT_FALSE(ToMs("d", DurationOf(0, 1'000'000'000), 0, kHourMs).ok());
  EXPECT_FALSE(ToMs("d", DurationOf(INT64_MAX, 0), 0, INT64_MAX).ok());
  EXPECT_TRUE(ToMs("d", DurationOf(3600, 0), 0, kHourMs).ok());
  EXPECT_FALSE(ToMs("d", DurationOf(3600, 1), 0, kHourMs).ok());
}

TEST(FieldChecksTest, LeasesLieBetweenOneSecondAndTwelveHours) {
  EXPECT_EQ(*LeaseMs(false, DurationOf(0, 0)), 0);
  EXPECT_FALSE(LeaseMs(true, DurationOf(0, 0)).ok());
  EXPECT_EQ(*LeaseMs(true, DurationOf(1, 0)), 1'000);
  EXPECT_TRUE(LeaseMs(true, DurationOf(12 * 3600, 0)).ok());
  EXPECT_FALSE(LeaseMs(true, DurationOf(12 * 3600 + 1, 0)).ok());
}

TEST(FieldChecksTest, CountsDefaultClampAndRefuse) {
  EXPECT_EQ(*CountOr("n", 0, 100, 1'000), 100);
  EXPECT_EQ(*CountOr("n", 1'001, 100, 1'000), 1'000);
  EXPECT_EQ(FieldOf(CountOr("n", -1, 100, 1'000).status()), "n");
}

TEST(Utf8Test, PrefixesEndBetweenCharacters) {
  EXPECT_EQ(Utf8Prefix("a\xe2\x82\xac", 3), "a");
  EXPECT_EQ(Utf8Prefix("a\xe2\x82\xac", 4), "a\xe2\x82\xac");
  EXPECT_TRUE(IsUtf8("0123456789abcdef\xe2\x82\xac"));
  EXPECT_FALSE(IsUtf8("0123456789abcdef\xe2\x82"));
}

}  // namespace
}  // namespace sluice::api
