#include "client/cli/format.h"

#include <gtest/gtest.h>

namespace sluice::cli {
namespace {

TEST(FormatTest, BytesForPeople) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(1023), "1023 B");
  EXPECT_EQ(HumanBytes(1024), "1.0 KiB");
  EXPECT_EQ(HumanBytes(1536), "1.5 KiB");
  EXPECT_EQ(HumanBytes((1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(HumanBytes(int64_t{3} << 30), "3.0 GiB");
}

TEST(FormatTest, CountsForPeople) {
  EXPECT_EQ(HumanCount(0), "0");
  EXPECT_EQ(HumanCount(999), "999");
  EXPECT_EQ(HumanCount(1000), "1,000");
  EXPECT_EQ(HumanCount(1234567), "1,234,567");
  EXPECT_EQ(HumanCount(-123), "-123");
  EXPECT_EQ(HumanCount(-1234), "-1,234");
  EXPECT_EQ(HumanCount(0, "message"), "0 messages");
  EXPECT_EQ(HumanCount(1, "message"), "1 message");
  EXPECT_EQ(HumanCount(2000, "message"), "2,000 messages");
}

TEST(FormatTest, DurationsForPeople) {
  EXPECT_EQ(HumanDuration(absl::ZeroDuration()), "0s");
  EXPECT_EQ(HumanDuration(absl::Seconds(-5)), "0s");
  EXPECT_EQ(HumanDuration(absl::Microseconds(10)), "1ms");
  EXPECT_EQ(HumanDuration(absl::Milliseconds(250)), "250ms");
  EXPECT_EQ(HumanDuration(absl::Milliseconds(4200)), "4.2s");
  EXPECT_EQ(HumanDuration(absl::Seconds(5)), "5s");
  EXPECT_EQ(HumanDuration(absl::Seconds(59)), "59s");
  EXPECT_EQ(HumanDuration(absl::Seconds(200)), "3m20s");
  EXPECT_EQ(HumanDuration(absl::Minutes(5)), "5m");
  EXPECT_EQ(HumanDuration(absl::Minutes(312)), "5h12m");
  EXPECT_EQ(HumanDuration(absl::Hours(24 * 9 + 4)), "9d4h");
}

TEST(FormatTest, ParsesDurations) {
  EXPECT_EQ(*ParseDuration("30s"), absl::Seconds(30));
  EXPECT_EQ(*ParseDuration("5m"), absl::Minutes(5));
  EXPECT_EQ(*ParseDuration("1h30m"), absl::Minutes(90));
  EXPECT_EQ(*ParseDuration("250ms"), absl::Milliseconds(250));
  EXPECT_EQ(*ParseDuration("7d"), absl::Hours(7 * 24));
  EXPECT_EQ(*ParseDuration("1d12h"), absl::Hours(36));
  EXPECT_EQ(*ParseDuration("2"), absl::Seconds(2));
  EXPECT_EQ(*ParseDuration("0"), absl::ZeroDuration());
  for (const char* bad : {"", "x", "5 parsecs", "-1s", "-3", "inf", "d", "nan"}) {
    EXPECT_FALSE(ParseDuration(bad).ok()) << bad;
  }
}

TEST(FormatTest, ParsesSizes) {
  EXPECT_EQ(*ParseBytes("4096"), 4096);
  EXPECT_EQ(*ParseBytes("64KiB"), 65536);
  EXPECT_EQ(*ParseBytes("10MB"), 10'000'000);
  EXPECT_EQ(*ParseBytes("1.5 kib"), 1536);
  EXPECT_EQ(*ParseBytes("2G"), 2'000'000'000);
  for (const char* bad : {"", "B", "-1", "1XB", "1e30", "nan"}) {
    EXPECT_FALSE(ParseBytes(bad).ok()) << bad;
  }
}

TEST(FormatTest, ParsesKeyValues) {
  EXPECT_EQ(*ParseKeyValue("a=b"), (std::pair<std::string, std::string>("a", "b")));
  EXPECT_EQ(*ParseKeyValue("a="), (std::pair<std::string, std::string>("a", "")));
  EXPECT_EQ(*ParseKeyValue("a=b=c"), (std::pair<std::string, std::string>("a", "b=c")));
  EXPECT_FALSE(ParseKeyValue("a").ok());
  EXPECT_FALSE(ParseKeyValue("=b").ok());
}

TEST(FormatTest, ParsesRates) {
  EXPECT_DOUBLE_EQ(*ParseRate("100"), 100);
  EXPECT_DOUBLE_EQ(*ParseRate("0.5/s"), 0.5);
  EXPECT_DOUBLE_EQ(*ParseRate("600/m"), 10);
  EXPECT_DOUBLE_EQ(*ParseRate("3600/h"), 1);
  for (const char* bad : {"", "0", "-1", "/s", "5/d", "5/", "nan", "inf", "1e13", "5 /x"}) {
    EXPECT_FALSE(ParseRate(bad).ok()) << bad;
  }
}

TEST(FormatTest, ParsesTimes) {
  const absl::Time half_past_eight = absl::FromUnixSeconds(1'772'353'800);
  EXPECT_EQ(*ParseTime("2026-03-01T08:30:00Z"), half_past_eight);
  EXPECT_EQ(*ParseTime("2026-03-01T09:30:00+01:00"), half_past_eight);
  EXPECT_EQ(*ParseTime("2026-03-01T08:30:00.250Z"), half_past_eight + absl::Milliseconds(250));
  EXPECT_EQ(*ParseTime("2026-03-01T08:30:00"), half_past_eight);
  EXPECT_EQ(*ParseTime("2026-03-01T08:30"), half_past_eight);
  for (const char* bad : {"", "tomorrow", "2026-13-01T00:00:00Z", "10", "infinite-future"}) {
    EXPECT_FALSE(ParseTime(bad).ok()) << bad;
  }
}

TEST(FormatTest, EnumsAsWordsAndBack) {
  EXPECT_EQ(EnumWords("WAIT_REASON_NO_CONSUMER", "WAIT_REASON_"), "no consumer");
  EXPECT_EQ(EnumWords("WAIT_REASON_UNSPECIFIED", "WAIT_REASON_"), "");
  EXPECT_EQ(EnumWords("", "WAIT_REASON_"), "");  // a value that this version does not know
  EXPECT_EQ(EnumName("no consumer", "WAIT_REASON_"), "WAIT_REASON_NO_CONSUMER");
  EXPECT_EQ(EnumName("drop-head", "OVERFLOW_"), "OVERFLOW_DROP_HEAD");
}

TEST(FormatTest, PreviewsAreOneLineThatFits) {
  EXPECT_EQ(Preview("", 8), "");
  EXPECT_EQ(Preview("12345678", 8), "12345678");
  EXPECT_EQ(Preview("123456789", 8), "12345...");
  EXPECT_EQ(Preview("a\nb\tc", 8), "a.b.c");
  EXPECT_EQ(Preview(std::string("\0\xff", 2), 8), "..");
}

TEST(FormatTest, AlignsTables) {
  EXPECT_EQ(Table({{"NAME", ">N"}, {"a", "10"}, {"longer", "7"}}),
            "NAME     N\n"
            "a       10\n"
            "longer   7\n");
  EXPECT_EQ(Table({}), "");
}

}  // namespace
}  // namespace sluice::cli
