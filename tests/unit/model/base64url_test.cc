#include "server/model/base64url.h"

#include <string>

#include <gtest/gtest.h>

namespace sluice {
namespace {

std::string Encode(std::string_view raw) {
  std::string text(Base64UrlBytes(raw.size()), '\0');
  Base64UrlEncode(raw, text.data());
  return text;
}

TEST(Base64UrlTest, WritesTheAlphabetForUrlsWithoutPadding) {
  EXPECT_EQ(Encode(""), "");
  EXPECT_EQ(Encode("f"), "Zg");
  EXPECT_EQ(Encode("fo"), "Zm8");
  EXPECT_EQ(Encode("foo"), "Zm9v");
  EXPECT_EQ(Encode("\xfb\xff\xfe"), "-__-");
}

TEST(Base64UrlTest, ReadsBackWhatItWrote) {
  std::string raw;
  for (int i = 0; i < 64; ++i) {
    raw.push_back(static_cast<char>(i * 37));
    std::string read(raw.size(), '\0');
    ASSERT_TRUE(Base64UrlDecode(Encode(raw), raw.size(), read.data()));
    EXPECT_EQ(read, raw);
  }
}

TEST(Base64UrlTest, RefusesWhatIsNotTheOneEncoding) {
  char raw[2];
  EXPECT_TRUE(Base64UrlDecode("Zm8", 2, raw));
  EXPECT_FALSE(Base64UrlDecode("Zm9", 2, raw)) << "bits left over";
  EXPECT_FALSE(Base64UrlDecode("Zm8=", 2, raw)) << "padded";
  EXPECT_FALSE(Base64UrlDecode("Zm", 2, raw)) << "too short";
  EXPECT_FALSE(Base64UrlDecode("Zm8A", 2, raw)) << "too long";
  EXPECT_FALSE(Base64UrlDecode("Zm+", 2, raw)) << "the other alphabet";
  EXPECT_FALSE(Base64UrlDecode("Z 8", 2, raw));
}

}  // namespace
}  // namespace sluice
