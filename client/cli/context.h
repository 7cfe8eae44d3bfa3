// What every command shares: the server, the output, the exit code.
#ifndef SLUICE_CLIENT_CLI_CONTEXT_H_
#define SLUICE_CLIENT_CLI_CONTEXT_H_

#include <google/protobuf/message.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cpp/client.h"

namespace sluice::cli {

// A contract for scripts; the text of --help repeats it.
enum ExitCode : int {
  kExitOk = 0,
  kExitRefused = 1,      // the server, or an item of the call, said no; or a local file did
  kExitUsage = 2,        // the command line is wrong; nothing was sent
  kExitUnreachable = 3,  // no answer: it did not happen, or nobody knows whether it did
  kExitNothing = 4,      // fine, but there was nothing there
};

// Not thread-safe, but for client() after its first call.
class Context {
 public:
  std::string server = client::kDefaultAddress;
  absl::Duration timeout = absl::Seconds(10);
  bool json = false;
  int exit_code = kExitOk;

  // Made on first use, so that commands can settle signals before gRPC starts threads.
  client::Client& client();

  // Says on stderr what went wrong and what to do about it. The exit code that goes with it.
  int Fail(const absl::Status& status) const;
  // The same text, without printing.
  std::string Explain(const absl::Status& status) const;

 private:
  std::unique_ptr<client::Client> client_;
};

int ExitCodeOf(const absl::Status& status);

// proto3 JSON on one line. `defaults`: also fields that have their default value, so that scripts
// find every number.
std::string ToJson(const google::protobuf::Message& message, bool defaults);
void PrintJson(const google::protobuf::Message& message, bool defaults = true);

void PrintLine(const std::string& text);

// One unary call, for example `Unary(context, &Admin::PauseQueue, request, text)`. Prints its
// answer, as JSON or as `text(response)` makes it for people. The exit code.
template <typename Method, typename Request, typename Text>
int Unary(Context& context, Method method, const Request& request, Text text) {
  const auto response = context.client().Call(method, request);
  if (!response.ok()) return context.Fail(response.status());
  if (context.json) {
    PrintJson(*response);
  } else {
    PrintLine(text(*response));
  }
  return kExitOk;
}

// Pages of a list as large as they may be: the fewest calls.
inline constexpr int kListPageSize = 1000;

// Calls a list page by page and `visit(response)` with each.
template <typename Method, typename Request, typename Visit>
absl::Status EachPage(Context& context, Method method, Request request, Visit visit) {
  request.set_page_size(kListPageSize);
  do {
    const auto response = context.client().Call(method, request);
    if (!response.ok()) return response.status();
    visit(*response);
    request.set_page_token(response->next_page_token());
  } while (!request.page_token().empty());
  return absl::OkStatus();
}

// Prints a table with its heading, or on stderr that there is `nothing` ("no queues").
void PrintTable(const std::vector<std::vector<std::string>>& rows, const std::string& nothing);
// "name:       value", aligned with its neighbours.
void PrintRow(absl::string_view name, const std::string& value);

// At the end of a command: exit code 1, and on stderr why, if standard output could not be written
// and `exit_code` is 0; otherwise `exit_code`. A reader of a pipe that left is no failure.
int FinishOutput(int exit_code);

// A subcommand whose `run` gives the exit code; `examples` ends its --help.
CLI::App* AddCommand(CLI::App& parent, Context& context, const std::string& name,
                     const std::string& help, const std::string& examples,
                     std::function<int()> run);

// Options that parse as format.h says; a wrong value is a usage error.
CLI::Option* AddDuration(CLI::App& app, const std::string& name, absl::Duration* target,
                         const std::string& help);
// The same for --lease: 0, which on the wire would mean the queue's, is a usage error.
CLI::Option* AddLease(CLI::App& app, absl::Duration* target, const std::string& help);
CLI::Option* AddDurationFunction(CLI::App& app, const std::string& name,
                                 std::function<void(absl::Duration)> take, const std::string& help);
CLI::Option* AddTimeFunction(CLI::App& app, const std::string& name,
                             std::function<void(absl::Time)> take, const std::string& help);
CLI::Option* AddRate(CLI::App& app, const std::string& name, std::function<void(double)> take,
                     const std::string& help);
// For whole numbers: `least` and more.
CLI::Validator FromOn(int64_t least);
CLI::Option* AddBytes(CLI::App& app, const std::string& name,
                      std::function<void(int64_t)> take, const std::string& help);
CLI::Option* AddKeyValues(CLI::App& app, const std::string& name,
                          std::function<void(const std::string&, const std::string&)> take,
                          const std::string& help);

}  // namespace sluice::cli

#endif  // SLUICE_CLIENT_CLI_CONTEXT_H_
