#include "server/config/command_line.h"

#include <unistd.h>

#include <fstream>
#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::config {
namespace {

using ::testing::HasSubstr;

class CommandLineTest : public ::testing::Test {
 protected:
  ~CommandLineTest() override {
    if (!path_.empty()) unlink(path_.c_str());
  }

  absl::StatusOr<CommandLine> Parse(const std::vector<std::string>& arguments) {
    const Environment environment = [this](const std::string& name) -> std::optional<std::string> {
      const auto found = variables_.find(name);
      if (found == variables_.end()) return std::nullopt;
      return found->second;
    };
    return ParseCommandLine(arguments, environment, "1.2.3");
  }

  std::string File(const std::string& text) {
    path_ = ::testing::TempDir() + "sluice_settings_" + std::to_string(getpid()) + ".yaml";
    std::ofstream(path_) << text;
    return path_;
  }

  std::string Refusal(const std::vector<std::string>& arguments) {
    const absl::StatusOr<CommandLine> parsed = Parse(arguments);
    return parsed.ok() ? "accepted" : std::string(parsed.status().message());
  }

  std::map<std::string, std::string> variables_;
  std::string path_;
};

TEST_F(CommandLineTest, DefaultsAreLoopbackAndTheDocumentedPorts) {
  const auto parsed = Parse({});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->settings.listen.ToString(), "127.0.0.1:7070");
  EXPECT_EQ(parsed->settings.http_listen.ToString(), "127.0.0.1:7071");
  EXPECT_EQ(parsed->settings.data_dir, "./sluice-data");
  EXPECT_FALSE(parsed->text);
}

TEST_F(CommandLineTest, GrpcThreadsFollowTheCoresUnlessTheyAreSet) {
  const Settings defaults;
  EXPECT_EQ(GrpcThreads(defaults, 0), 1) << "not known";
  EXPECT_EQ(GrpcThreads(defaults, 2), 1);
  EXPECT_EQ(GrpcThreads(defaults, 16), 4);
  EXPECT_EQ(GrpcThreads(defaults, 10'000), kGrpcThreadsMax);
  const auto parsed = Parse({"--grpc-threads", "7"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(GrpcThreads(parsed->settings, 2), 7);
  for (const char* value : {"0", "65", "-1", "many", ""}) {
    EXPECT_THAT(Refusal({"--grpc-threads", value}), HasSubstr("from 1 to 64")) << value;
  }
}

TEST_F(CommandLineTest, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  const std::string file = File("data_dir: from-file\nlog_level: error\nbody_bytes_max: 2MiB\n");
  variables_ = {{"SLUICE_DATA_DIR", "from-environment"}, {"SLUICE_LOG_LEVEL", "warning"}};
  const auto parsed = Parse({"--config", file, "--data-dir", "from-flag"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->settings.data_dir, "from-flag");
  EXPECT_EQ(parsed->settings.log_level, LogLevel::kWarning);
  EXPECT_EQ(parsed->settings.body_bytes_max, 2 * kMiB);
  EXPECT_EQ(parsed->settings.window_bytes_max, Settings().window_bytes_max);
}

TEST_F(CommandLineTest, ConfigFileCanBeNamedByTheEnvironment) {
  variables_ = {{"SLUICE_CONFIG", File("log_format: json\n")}};
  const auto parsed = Parse({});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->settings.log_format, LogFormat::kJson);
}

TEST_F(CommandLineTest, SwitchCanBeTakenBackByAStrongerSource) {
  variables_ = {{"SLUICE_INSECURE", "true"}};
  ASSERT_TRUE(Parse({})->settings.insecure);
  EXPECT_FALSE(Parse({"--insecure=false"})->settings.insecure);
}

TEST_F(CommandLineTest, BeyondLoopbackNeedsInsecure) {
  for (const char* address : {"0.0.0.0:7070", "[::]:7070", "10.1.2.3:7070", "example.org:7070"}) {
    EXPECT_THAT(Refusal({"--listen", address}), HasSubstr("listen: ")) << address;
    EXPECT_TRUE(Parse({"--listen", address, "--insecure"}).ok()) << address;
  }
  EXPECT_THAT(Refusal({"--http-listen", "0.0.0.0:7071"}), HasSubstr("http-listen: "));
  for (const char* address : {"127.0.0.2:7070", "[::1]:7070", "localhost:7070"}) {
    EXPECT_TRUE(Parse({"--listen", address}).ok()) << address;
  }
}

TEST_F(CommandLineTest, GarbledAddressesAreRefused) {
  for (const char* address : {"", "7070", ":7070", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536",
                              "127.0.0.1:x", "::1:7070", "[]:7070", "127.0.0.1:-1"}) {
    EXPECT_THAT(Refusal({std::string("--listen=") + address}), HasSubstr("listen")) << address;
  }
}

TEST_F(CommandLineTest, SizesHaveUnitsAndBounds) {
  EXPECT_EQ(Parse({"--body-bytes-max", "1KiB"})->settings.body_bytes_max, 1024);
  EXPECT_EQ(Parse({"--body-bytes-max", "15MiB"})->settings.body_bytes_max, 15 * kMiB);
  EXPECT_EQ(Parse({"--window-bytes-max", "1GiB"})->settings.window_bytes_max, 1024u * kMiB);
  for (const char* size : {"1023", "15728641", "16MiB", "-1", "1.5MiB", "lots", "",
                           "18446744073709551615GiB"}) {
    EXPECT_THAT(Refusal({std::string("--body-bytes-max=") + size}), HasSubstr("body-bytes-max"))
        << size;
  }
}

TEST_F(CommandLineTest, TheDiskReserveIsTheStoresToChooseUnlessSet) {
  EXPECT_EQ(Parse({})->settings.disk_reserve_bytes, std::nullopt);
  EXPECT_EQ(Parse({"--disk-reserve", "2GiB"})->settings.disk_reserve_bytes, 2048 * kMiB);
  for (const char* size : {"15MiB", "1025GiB", "2%"}) {
    EXPECT_THAT(Refusal({std::string("--disk-reserve=") + size}), HasSubstr("disk-reserve"));
  }
}

TEST_F(CommandLineTest, ConnectionAgeIsZeroOrWithinBounds) {
  EXPECT_EQ(Parse({"--connection-age-max", "0"})->settings.connection_age_ms_max, 0);
  EXPECT_EQ(Parse({"--connection-age-max", "1m"})->settings.connection_age_ms_max, kMinuteMs);
  for (const char* time : {"59s", "721h", "-1h", "soon"}) {
    EXPECT_THAT(Refusal({std::string("--connection-age-max=") + time}),
                HasSubstr("connection-age-max: "))
        << time;
  }
}

TEST_F(CommandLineTest, ErrorSaysWhereTheValueCameFrom) {
  variables_ = {{"SLUICE_LOG_LEVEL", "loud"}};
  EXPECT_THAT(Refusal({}), HasSubstr("log-level: 'loud'"));
  EXPECT_THAT(Refusal({}), HasSubstr("set by SLUICE_LOG_LEVEL"));
  variables_.clear();
  const std::string file = File("log_format: xml\n");
  EXPECT_THAT(Refusal({"--config", file}), HasSubstr("set by " + file));
}

TEST_F(CommandLineTest, FileWithUnknownOrNestedSettingsIsRefused) {
  EXPECT_THAT(Refusal({"--config", File("lissten: 127.0.0.1:1\n")}), HasSubstr("'lissten'"));
  EXPECT_THAT(Refusal({"--config", File("listen: [a, b]\n")}), HasSubstr("listen is not a single"));
  EXPECT_THAT(Refusal({"--config", File("- listen\n")}), HasSubstr("is not a map"));
  EXPECT_THAT(Refusal({"--config", File("a: b: c\n")}), HasSubstr("config: "));
  EXPECT_THAT(Refusal({"--config", "/nonexistent/sluice.yaml"}), HasSubstr("/nonexistent/"));
}

TEST_F(CommandLineTest, EmptyFileChangesNothing) {
  EXPECT_TRUE(Parse({"--config", File("# nothing\n")}).ok());
}

TEST_F(CommandLineTest, VariablesThatAreNoSettingAreIgnored) {
  variables_ = {{"SLUICE_PORT", "tcp://10.0.0.1:7070"}, {"SLUICE_SERVER", "127.0.0.1:1"}};
  EXPECT_TRUE(Parse({}).ok());
}

TEST_F(CommandLineTest, WhatIsNotBuiltIsRefusedByName) {
  EXPECT_THAT(Refusal({"--shards", "2"}), HasSubstr("shards: "));
  EXPECT_THAT(Refusal({"--auto-create-queues"}), HasSubstr("auto-create-queues: "));
}

TEST_F(CommandLineTest, UnknownFlagsAndSameAddressesAreRefused) {
  EXPECT_THAT(Refusal({"--wat"}), HasSubstr("--wat"));
  EXPECT_THAT(Refusal({"stray"}), HasSubstr("stray"));
  EXPECT_THAT(Refusal({"--http-listen", "127.0.0.1:7070"}), HasSubstr("http-listen: "));
}

TEST_F(CommandLineTest, HelpNamesEverySettingAndItsDefault) {
  const auto parsed = Parse({"--help"});
  ASSERT_TRUE(parsed.ok() && parsed->text);
  for (const char* word : {"--listen", "127.0.0.1:7070", "--http-listen", "--data-dir", "--insecure",
                           "--accept-clock", "--body-bytes-max", "1MiB", "--window-bytes-max",
                           "--in-flight-bytes-max", "--disk-reserve", "--connection-age-max", "--log-level",
                           "--log-format", "SLUICE_HTTP_LISTEN", "--config"}) {
    EXPECT_THAT(*parsed->text, HasSubstr(word));
  }
  EXPECT_EQ(*Parse({"--version"})->text, "sluiced 1.2.3\n");
}

TEST_F(CommandLineTest, DefinitionsNameAFile) {
  EXPECT_EQ(Parse({})->settings.definitions, "");
  EXPECT_EQ(Parse({"--definitions", "queues.yaml"})->settings.definitions, "queues.yaml");
  variables_ = {{"SLUICE_DEFINITIONS", "from-environment.yaml"}};
  EXPECT_EQ(Parse({})->settings.definitions, "from-environment.yaml");
}

TEST_F(CommandLineTest, ConfigThatIsADirectoryIsRefused) {
  EXPECT_THAT(Refusal({"--config", ::testing::TempDir()}), HasSubstr("is a directory"));
}

TEST_F(CommandLineTest, PagesOverIpv6AreRefusedAndGrpcIsNot) {
  EXPECT_THAT(Refusal({"--http-listen", "[::1]:7071"}),
              AllOf(HasSubstr("http-listen"), HasSubstr("IPv4 only")));
  EXPECT_TRUE(Parse({"--listen", "[::1]:7070"}).ok());
}

TEST_F(CommandLineTest, ConnectionGraceHasBoundsAndNoZero) {
  EXPECT_EQ(Parse({})->settings.connection_age_grace_ms, kHourMs);
  EXPECT_EQ(Parse({"--connection-age-grace", "1s"})->settings.connection_age_grace_ms, kSecondMs);
  EXPECT_THAT(Refusal({"--connection-age-grace", "999ms"}), HasSubstr("between"));
  EXPECT_THAT(Refusal({"--connection-age-grace", "0"}), HasSubstr("between"));
  EXPECT_EQ(Parse({"--connection-age-max", "0"})->settings.connection_age_ms_max, 0);
}

}  // namespace
}  // namespace sluice::config
