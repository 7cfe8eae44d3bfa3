#include "server/base/log.h"

#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(LogTest, TextLineIsKeyValueAndQuotesOnlyWhereNeeded) {
  EXPECT_EQ(FormatLogLine(LogFormat::kText, LogLevel::kInfo, "T", "server started",
                          {{"queue", "orders"}, {"count", 3}, {"ok", true}, {"why", "a b"}}),
            R"(time=T level=info event="server started" queue=orders count=3 ok=true why="a b")");
}

TEST(LogTest, EmptyValueStaysVisible) {
  EXPECT_EQ(FormatLogLine(LogFormat::kText, LogLevel::kError, "T", "e", {{"peer", ""}}),
            R"(time=T level=error event=e peer="")");
}

TEST(LogTest, JsonLineKeepsNumbersAndBooleansBare) {
  EXPECT_EQ(FormatLogLine(LogFormat::kJson, LogLevel::kWarning, "T", "slow",
                          {{"ms", -7}, {"fatal", false}, {"peer", "ipv4:1.2.3.4:5"}}),
            R"({"time":"T","level":"warning","event":"slow","ms":-7,"fatal":false,)"
            R"("peer":"ipv4:1.2.3.4:5"})");
}

TEST(LogTest, ControlCharactersCannotForgeALine) {
  const std::string value = std::string("a\nlevel=error \"x\"\\") + '\0' + "\x1b";
  for (const LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    const std::string line = FormatLogLine(format, LogLevel::kInfo, "T", "e", {{"v", value}});
    EXPECT_EQ(line.find('\n'), std::string::npos);
    EXPECT_NE(line.find(R"("a\nlevel=error \"x\"\\\u0000\u001b")"), std::string::npos) << line;
  }
}

TEST(LogTest, ParsesLevelsAndFormatsByName) {
  EXPECT_EQ(ParseLogLevel("warning"), LogLevel::kWarning);
  EXPECT_EQ(ParseLogLevel("loud"), std::nullopt);
  EXPECT_EQ(ParseLogFormat("json"), LogFormat::kJson);
  EXPECT_EQ(ParseLogFormat("xml"), std::nullopt);
}

TEST(LogTest, LevelDecidesWhatIsEnabled) {
  ConfigureLog(LogLevel::kWarning, LogFormat::kText);
  EXPECT_FALSE(LogEnabled(LogLevel::kInfo));
  EXPECT_TRUE(LogEnabled(LogLevel::kError));
  ConfigureLog(LogLevel::kInfo, LogFormat::kText);
}

}  // namespace
}  // namespace sluice
