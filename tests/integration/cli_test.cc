// The `sluice` command line: what it says and how it exits.
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/integration/fixture.h"
#include "tests/support/command.h"

namespace sluice::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// The exit codes of sluice --help.
constexpr int kOk = 0;
constexpr int kRefused = 1;
constexpr int kUsage = 2;
constexpr int kUnreachable = 3;

constexpr char kNobody[] = "127.0.0.1:1";

class CliTest : public ServerTest {
 protected:
  CommandResult Run(const std::vector<std::string>& arguments, const std::string& input = "") {
    return RunSluice(server_.address(), arguments, input);
  }

  static std::string Program() {
    const char* const other = std::getenv("SLUICE_CLI_BIN");
    // Programs and tests are built into one folder.
    return other != nullptr
               ? other
               : std::filesystem::canonical("/proc/self/exe").replace_filename("sluice").string();
  }

  // `sluice COMMAND REDIRECTION`, by a shell that runs `setup` before.
  CommandResult RunRedirected(const std::string& command, const std::string& redirection,
                              const std::string& setup = "") {
    const bool was_set = std::getenv("SLUICE_CLI_BIN") != nullptr;
    const std::string program = Program();
    const std::string script = server_.data_dir() + "/redirected";
    std::ofstream(script) << "#!/bin/sh\n"
                          << setup << "\nexec '" << program << "' \"$@\" " << redirection << "\n";
    std::filesystem::permissions(script, std::filesystem::perms::owner_all);
    setenv("SLUICE_CLI_BIN", script.c_str(), /*overwrite=*/1);
    CommandResult result = Run(absl::StrSplit(command, ' '));
    if (was_set) {
      setenv("SLUICE_CLI_BIN", program.c_str(), /*overwrite=*/1);
    } else {
      unsetenv("SLUICE_CLI_BIN");
    }
    return result;
  }
  CommandResult RunIntoFullDevice(const std::string& command) {
    return RunRedirected(command, "> /dev/full");
  }
  CommandResult RunIntoPipeWithoutReader(const std::string& command) {
    const std::string pipe = absl::StrCat("'", server_.data_dir(), "/pipe'");
    // Opened both ways at first, as it could not be opened without a reader.
    return RunRedirected(command, ">&5 5>&-",
                         absl::StrCat("mkfifo ", pipe, " && exec 4<>", pipe, " 5>", pipe, " 4<&-"));
  }

  // What a wrong command line is answered.
  std::string UsageComplaint(const std::vector<std::string>& arguments) {
    const CommandResult result = Run(arguments);
    EXPECT_EQ(result.exit_code, kUsage) << ::testing::PrintToString(arguments);
    return result.err;
  }
};

TEST_F(CliTest, ALineThatNoRequestCanCarryIsRefusedByNumberAndTheRestIsStored) {
  MakeQueue("q");
  std::string lines;
  for (int i = 1; i <= 3000; ++i) {
    absl::StrAppend(&lines, i == 1500 ? std::string(20'000'000, 'x') : absl::StrCat(i), "\n");
  }
  const CommandResult result = Run({"publish", "q"}, lines);
  EXPECT_EQ(result.exit_code, kRefused);
  EXPECT_THAT(result.err, HasSubstr("line 1500 not stored"));
  EXPECT_THAT(result.out, HasSubstr("confirmed 2,999 messages, not stored 1 "));
  EXPECT_EQ(Stats("q").ready(), 2999);
}

TEST_F(CliTest, ABodyThatNoRequestCanCarryIsRefused) {
  MakeQueue("q");
  const std::string path = server_.data_dir() + "/large";
  std::ofstream(path) << std::string(20'000'000, 'x');
  const CommandResult result = Run({"publish", "q", "--file", path});
  EXPECT_EQ(result.exit_code, kRefused);
  EXPECT_THAT(result.err, HasSubstr("16776192"));
  EXPECT_EQ(Stats("q").ready(), 0);
}

TEST_F(CliTest, ARefusalByTheServerNamesTheLine) {
  MakeQueue("q");
  const CommandResult result =
      Run({"publish", "q"}, "one\n" + std::string(2'000'000, 'x') + "\nthree\n");
  EXPECT_EQ(result.exit_code, kRefused);
  EXPECT_THAT(result.err, HasSubstr("line 2 not stored"));
  EXPECT_EQ(Stats("q").ready(), 2);
}

TEST_F(CliTest, WithoutAServerLinesAreNotSentRatherThanUnknown) {
  const CommandResult result = RunSluice(kNobody, {"publish", "q"}, "1\n2\n3\n");
  EXPECT_EQ(result.exit_code, kUnreachable);
  EXPECT_THAT(result.out, HasSubstr("confirmed 0 messages, not sent "));
  EXPECT_THAT(result.out, Not(HasSubstr("unknown")));
  EXPECT_THAT(result.err, HasSubstr("cannot reach"));
}

TEST_F(CliTest, TellsWhereItStoppedReading) {
  std::string lines;
  for (int i = 0; i < 20'000; ++i) lines += "x\n";
  const CommandResult result = RunSluice(kNobody, {"--json", "publish", "q"}, lines);
  EXPECT_EQ(result.exit_code, kUnreachable);
  EXPECT_THAT(result.out, HasSubstr("\"all_read\":false"));
  EXPECT_THAT(result.err, HasSubstr("stopped at line "));
}

TEST_F(CliTest, CtrlCEndsTheReadingAndTellsWhatWasStored) {
  MakeQueue("q");
  SluiceCommand command(server_.address(), {"publish", "q"}, "one\ntwo\nthr",
                        SluiceCommand::Input::kStaysOpen);
  while (Stats("q").ready() < 2) std::this_thread::yield();
  command.Signal(SIGINT);
  const CommandResult result = command.Wait();
  EXPECT_EQ(result.exit_code, kRefused);
  EXPECT_THAT(result.out, HasSubstr("confirmed 2 messages (8 B read"));
  EXPECT_THAT(result.err, HasSubstr("stopped at line 3 of the input"));
  EXPECT_EQ(Stats("q").ready(), 2);
}

TEST_F(CliTest, AClosedInputIsAFailureAndNoWait) {
  MakeQueue("q");
  const CommandResult result = SluiceCommand(server_.address(), {"publish", "q"}, "",
                                             SluiceCommand::Input::kClosed).Wait();
  EXPECT_EQ(result.exit_code, kRefused);
  EXPECT_THAT(result.err, HasSubstr("cannot read the input"));
}

TEST_F(CliTest, ADirectoryIsNoBody) {
  const CommandResult result = Run({"publish", "q", "--file", server_.data_dir()});
  EXPECT_EQ(result.exit_code, kUsage);
  EXPECT_THAT(result.err, HasSubstr("directory"));
  EXPECT_EQ(Run({"publish", "q", "--file", "/no/such"}).exit_code, kUsage);
}

TEST_F(CliTest, OptionsForLinesAreRefusedForOneMessage) {
  MakeQueue("q");
  const std::string path = server_.data_dir() + "/confirmed";
  for (const std::vector<std::string>& options :
       {std::vector<std::string>{"--retry"}, {"--confirmed-file", path}}) {
    std::vector<std::string> words = {"publish", "q", "body"};
    words.insert(words.end(), options.begin(), options.end());
    EXPECT_EQ(Run(words).exit_code, kUsage) << options[0];
  }
  EXPECT_EQ(Run({"publish", "q", "--retry-for", "1m"}, "1\n").exit_code, kUsage);
  EXPECT_EQ(Stats("q").ready(), 0);
  EXPECT_EQ(Run({"publish", "q", "-", "--retry", "--confirmed-file", path}, "1\n").exit_code, kOk);
  EXPECT_EQ(Stats("q").ready(), 1);
}

TEST_F(CliTest, ALeaseOfZeroIsRefused) {
  MakeQueue("q");
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"receive", "q"}, {"subscribe", "q"}, {"extend", "q", "receipt"}}) {
    std::vector<std::string> with = words;
    with.insert(with.end(), {"--lease", "0"});
    const CommandResult result = Run(with);
    EXPECT_EQ(result.exit_code, kUsage) << words[0];
    EXPECT_THAT(result.err, HasSubstr("longer than 0")) << words[0];
  }
  EXPECT_EQ(Run({"subscribe", "q", "--lease", "5s", "--idle-timeout", "10ms"}).exit_code, kOk);
}

TEST_F(CliTest, ExtendingNothingNamesNoTime) {
  MakeQueue("q");
  const CommandResult result = Run({"extend", "q", "garbage"});
  EXPECT_EQ(result.exit_code, kRefused);
  EXPECT_THAT(result.out, Not(HasSubstr("until")));
  Publish("q", {"a"});
  const std::string receipt = Receive("q").at(0).receipt();
  EXPECT_THAT(Run({"extend", "q", receipt, "garbage"}).out, HasSubstr("extended 1\nuntil 2"));
}

TEST_F(CliTest, KnowsItsVersion) {
  const CommandResult result = Run({"--version"});
  EXPECT_EQ(result.exit_code, kOk);
  EXPECT_THAT(result.out, StartsWith("sluice "));
}

TEST_F(CliTest, OutputThatCannotBeWrittenIsAFailure) {
  MakeQueue("q");
  Publish("q", {"a"});  // for the list
  for (const std::string command :
       {"definitions export", "queue list", "queue show q", "message list q", "info --json",
        "publish q hi", "bench publish --count 10 --producers 1", "publish --help", "--version"}) {
    const CommandResult result = RunIntoFullDevice(command);
    EXPECT_EQ(result.exit_code, kRefused) << command;
    EXPECT_THAT(result.err, HasSubstr("sluice: the output could not be written\n")) << command;
  }
}

TEST_F(CliTest, WorkGivesBackAMessageWhoseOutputCannotBeWrittenAndEnds) {
  MakeQueue("q");
  Publish("q", {"a", "b", "c"});
  const std::string work = "work q --count 3 --idle-timeout 1s --exec ";
  const CommandResult full = RunIntoFullDevice(work + "cat");
  EXPECT_EQ(full.exit_code, kRefused);
  EXPECT_THAT(full.err, HasSubstr("worked on 0 messages, gave back 1\n"));
  EXPECT_THAT(full.err, HasSubstr("sluice: cannot write the output: No space left on device\n"));
  EXPECT_EQ(Stats("q").ready(), 3);

  const CommandResult unread = RunIntoPipeWithoutReader(work + "cat");
  EXPECT_EQ(unread.exit_code, kOk);
  EXPECT_EQ(unread.err, "worked on 0 messages, gave back 1\n");
  EXPECT_EQ(Stats("q").ready(), 3);

  std::vector<std::string> words = absl::StrSplit(work, ' ', absl::SkipEmpty());
  words.push_back("cat; echo $SLUICE_ATTEMPT");
  const CommandResult read = Run(words);
  EXPECT_EQ(read.exit_code, kOk);
  EXPECT_EQ(read.out, "a1\nb1\nc1\n") << "in their order, and no attempt was used up";
}

TEST_F(CliTest, WorkWithoutOutputNeedsNoPlaceForIt) {
  MakeQueue("q");
  Publish("q", {"a", "b"});
  const CommandResult result = RunIntoFullDevice("work q --exec true --count 2");
  EXPECT_EQ(result.exit_code, kOk);
  EXPECT_EQ(result.err, "worked on 2 messages\n");
  EXPECT_EQ(Stats("q").ready(), 0);
}

TEST_F(CliTest, WorkThatFailedAndCouldNotBeGivenBackFailedOnce) {
  MakeQueue("q");
  Publish("q", {"a"});
  const std::string purge =
      absl::StrCat("'", Program(), "' --server ", server_.address(),
                   " queue purge q --include-leased > /dev/null");
  const CommandResult result =
      Run({"work", "q", "--exec", absl::StrCat(purge, "; exit 1"), "--count", "1"});
  EXPECT_EQ(result.exit_code, kRefused);
  EXPECT_THAT(result.err, HasSubstr("the lease has ended"));
  EXPECT_THAT(result.err, HasSubstr("worked on 1 message, failed 1\n"));
}

TEST_F(CliTest, AnUnknownCommandIsNamed) {
  EXPECT_EQ(UsageComplaint({"nosuch"}),
            "sluice: there is no command 'nosuch'; see sluice --help\n");
  EXPECT_EQ(UsageComplaint({"--json", "nosuch", "list", "--limit", "3"}),
            "sluice: there is no command 'nosuch'; see sluice --help\n");
  EXPECT_EQ(UsageComplaint({"queue", "nosuch"}),
            "sluice: there is no command 'queue nosuch'; see sluice queue --help\n");
  EXPECT_EQ(UsageComplaint({"queue", "publish", "q"}),
            "sluice: there is no command 'queue publish'; see sluice queue --help\n");
  EXPECT_THAT(UsageComplaint({"queue"}), HasSubstr("A subcommand is required"));
  EXPECT_THAT(UsageComplaint({"publish"}), HasSubstr("queue is required"));
}

TEST_F(CliTest, AWrongCountIsToldWhatItMayBe) {
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"subscribe", "q", "--count"},
        {"move", "q", "q2", "--count"},
        {"reply", "q", "--echo", "--count"},
        {"message", "redrive", "q", "--max"}}) {
    for (const std::string count : {"0", "-1", "x", "1.5", ""}) {
      std::vector<std::string> with = words;
      with.push_back(count);
      EXPECT_THAT(UsageComplaint(with),
                  HasSubstr("'" + count + "' is wrong: it must be a number from 1 on\n"))
          << words[0];
    }
  }
  EXPECT_THAT(UsageComplaint({"message", "list", "q", "--limit", "-1"}),
              HasSubstr("'-1' is wrong: it must be a number from 0 on\n"));
}

TEST_F(CliTest, AnAddressThatIsNoneIsWrongUsage) {
  for (const std::string address : {"", "localhost", "http://127.0.0.1:7070", "ipv4:garbage"}) {
    const CommandResult result = RunSluice(address, {"queue", "list"});
    EXPECT_EQ(result.exit_code, kUsage) << address;
    EXPECT_THAT(result.err, StartsWith("--server: '" + address + "' is no address of a server"));
  }
  EXPECT_EQ(RunSluice("dns:" + server_.address(), {"queue", "list"}).exit_code, kOk);
}

TEST_F(CliTest, PublishTellsHowManyLinesWereKnownAlready) {
  MakeQueue("q");
  const std::vector<std::string> publish = {"publish", "q", "--producer-id", "import-7"};
  EXPECT_THAT(Run(publish, "1\n2\n3\n").out, HasSubstr("confirmed 3 messages ("));
  EXPECT_THAT(Run(publish, "1\n2\n3\n4\n5\n").out,
              HasSubstr("confirmed 5 messages, 3 of them known already ("));
  std::vector<std::string> as_json = publish;
  as_json.insert(as_json.begin(), "--json");
  EXPECT_THAT(Run(as_json, "1\n2\n").out, HasSubstr("\"confirmed\":2,\"duplicates\":2,"));
  EXPECT_EQ(Stats("q").ready(), 5);
  EXPECT_EQ(Run({"queue", "delete", "q"}).exit_code, kOk);
  MakeQueue("q");
  EXPECT_THAT(Run(publish, "1\n2\n3\n").out, HasSubstr("confirmed 3 messages ("));
  EXPECT_EQ(Stats("q").ready(), 3) << "of the new queue none was known";
}

TEST_F(CliTest, OneMessageIsNotMessages) {
  MakeQueue("q", absl::Seconds(1));
  EXPECT_THAT(Run({"publish", "q"}, "one\n").out, HasSubstr("confirmed 1 message ("));
  EXPECT_THAT(Run({"publish", "q"}, "two\nthree\n").out, HasSubstr("confirmed 2 messages ("));
  EXPECT_EQ(Run({"queue", "purge", "q"}).out, "removed 3 messages\n");
  Publish("q", {"lost"});
  EXPECT_EQ(Run({"subscribe", "q", "--count", "2"}).err,
            "sluice: lost the lease of 1 message\n");
}

// Whoever follows the help must not be told that it is not built.
TEST_F(CliTest, TheExamplesOfQueueUpdateWork) {
  MakeQueue("orders");
  const std::string help = Run({"queue", "update", "--help"}).out;
  int examples = 0;
  std::istringstream lines(help.substr(help.find("Examples:")));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::vector<std::string> arguments;
    for (std::string word; words >> word && word[0] != '#';) arguments.push_back(word);
    if (arguments.empty() || arguments[0] != "sluice") continue;
    arguments.erase(arguments.begin());
    const CommandResult result = Run(arguments);
    EXPECT_EQ(result.exit_code, kOk) << line << "\n" << result.err;
    ++examples;
  }
  EXPECT_GE(examples, 2);
}

}  // namespace
}  // namespace sluice::testing
