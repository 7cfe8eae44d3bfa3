#include "client/cli/context.h"

#include <google/protobuf/util/json_util.h>
#include <poll.h>
#include <unistd.h>

#include <iostream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/cli/format.h"

namespace sluice::cli {
namespace {

// What a person can do about a refusal; empty where the server's words are enough.
absl::string_view HintFor(v1::ErrorReason reason) {
  switch (reason) {
    case v1::ERROR_REASON_QUEUE_NOT_FOUND:
      return "make it with: sluice queue create NAME";
    case v1::ERROR_REASON_EXCHANGE_NOT_FOUND:
      return "make it with: sluice exchange create NAME --type TYPE";
    case v1::ERROR_REASON_NO_ROUTE:
      return "see where it leads with: sluice binding list EXCHANGE";
    case v1::ERROR_REASON_CONFIG_CONFLICT:
      return "compare with: sluice queue show NAME --json; change it with: sluice queue update";
    case v1::ERROR_REASON_NOT_EMPTY:
      return "empty it first with: sluice queue purge NAME";
    case v1::ERROR_REASON_LEASE_EXPIRED:
      return "the message was handed out again, or is gone; only its newest receipt counts";
    case v1::ERROR_REASON_RECEIPT_INVALID:
      return "receipts come from receive --json and subscribe --json, and belong to their queue";
    case v1::ERROR_REASON_CONSUMER_NOT_FOUND:
      return "see who is there with: sluice consumer list";
    case v1::ERROR_REASON_ETAG_MISMATCH:
      return "it changed meanwhile: read it again";
    default:
      return "";
  }
}

}  // namespace

client::Client& Context::client() {
  if (client_ == nullptr) {
    client_ = std::make_unique<client::Client>(
        client::ClientOptions{.address = server, .timeout = timeout});
  }
  return *client_;
}

int ExitCodeOf(const absl::Status& status) {
  if (status.ok()) return kExitOk;
  if (absl::IsUnavailable(status) || client::MaybeHappened(status)) return kExitUnreachable;
  return kExitRefused;
}

std::string Context::Explain(const absl::Status& status) const {
  if (client::NotConnected(status)) {
    return absl::StrCat("cannot reach ", server, ": is sluiced running?");
  }
  std::string text(status.message());
  if (text.empty()) text = absl::StatusCodeToString(status.code());
  const v1::ErrorReason reason = client::ReasonOf(status);
  if (absl::IsDeadlineExceeded(status)) {
    text = absl::StrCat("no answer from ", server, " within ", HumanDuration(timeout),
                        " (--timeout); it may have happened all the same");
  } else if (client::MaybeHappened(status)) {
    text = absl::StrCat("lost ", server, " before it answered: ", text,
                        "; it may have happened all the same");
  }
  for (const client::FieldViolation& violation : client::FieldViolationsOf(status)) {
    // The server's sentence usually says it all already.
    if (absl::StrContains(text, violation.description)) continue;
    absl::StrAppend(&text, "\n  field ", violation.field, ": ", violation.description);
  }
  if (const absl::string_view hint = HintFor(reason); !hint.empty()) {
    absl::StrAppend(&text, "\n  ", hint);
  }
  if (const auto wait = client::RetryAfterOf(status)) {
    absl::StrAppend(&text, "\n  try again in ", HumanDuration(*wait));
  }
  return text;
}

int Context::Fail(const absl::Status& status) const {
  std::cerr << "sluice: " << Explain(status) << "\n";
  return ExitCodeOf(status);
}

std::string ToJson(const google::protobuf::Message& message, bool defaults) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = defaults;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) return "{}";
  return json;
}

void PrintJson(const google::protobuf::Message& message, bool defaults) {
  std::cout << ToJson(message, defaults) << std::endl;
}

void PrintLine(const std::string& text) { std::cout << text << std::endl; }

void PrintTable(const std::vector<std::vector<std::string>>& rows, const std::string& nothing) {
  if (rows.size() > 1) {
    std::cout << Table(rows) << std::flush;
  } else {
    std::cerr << nothing << "\n";
  }
}

void PrintRow(absl::string_view name, const std::string& value) {
  constexpr size_t kNameWidth = 22;
  const std::string pad(name.size() < kNameWidth ? kNameWidth - name.size() : 1, ' ');
  std::cout << name << ":" << pad << value << "\n";
}

namespace {

// A stream does not keep why it failed; the pipe itself still knows.
bool ReaderLeft(int fd) {
  pollfd pipe = {.fd = fd, .events = POLLOUT, .revents = 0};
  return poll(&pipe, 1, 0) == 1 && (pipe.revents & (POLLERR | POLLHUP)) != 0;
}

}  // namespace

int FinishOutput(int exit_code) {
  // `sluice message list q | head` is no failure.
  if (std::cout.flush() || ReaderLeft(STDOUT_FILENO)) return exit_code;
  std::cerr << "sluice: the output could not be written\n";
  return exit_code == kExitOk ? static_cast<int>(kExitRefused) : exit_code;
}

CLI::App* AddCommand(CLI::App& parent, Context& context, const std::string& name,
                     const std::string& help, const std::string& examples,
                     std::function<int()> run) {
  CLI::App* command = parent.add_subcommand(name, help);
  command->footer("Examples:\n" + examples);
  command->callback([&context, run = std::move(run)] { context.exit_code = run(); });
  return command;
}

namespace {

// An option whose text `parse` turns into what `take` takes.
template <typename T>
CLI::Option* AddParsed(CLI::App& app, const std::string& name, const std::string& type,
                       absl::StatusOr<T> (*parse)(absl::string_view), std::function<void(T)> take,
                       const std::string& help) {
  const auto set = [name, parse, take = std::move(take)](const std::string& text) {
    const auto parsed = parse(text);
    if (!parsed.ok()) throw CLI::ValidationError(name, std::string(parsed.status().message()));
    take(*parsed);
  };
  return app.add_option_function<std::string>(name, set, help)->type_name(type);
}

}  // namespace

CLI::Option* AddDurationFunction(CLI::App& app, const std::string& name,
                                 std::function<void(absl::Duration)> take,
                                 const std::string& help) {
  return AddParsed<absl::Duration>(app, name, "TIME", &ParseDuration, std::move(take), help);
}

CLI::Option* AddDuration(CLI::App& app, const std::string& name, absl::Duration* target,
                         const std::string& help) {
  return AddDurationFunction(
      app, name, [target](absl::Duration duration) { *target = duration; }, help);
}

CLI::Option* AddTimeFunction(CLI::App& app, const std::string& name,
                             std::function<void(absl::Time)> take, const std::string& help) {
  return AddParsed<absl::Time>(app, name, "DATE", &ParseTime, std::move(take), help);
}

CLI::Option* AddRate(CLI::App& app, const std::string& name, std::function<void(double)> take,
                     const std::string& help) {
  return AddParsed<double>(app, name, "RATE", &ParseRate, std::move(take), help);
}

CLI::Option* AddLease(CLI::App& app, absl::Duration* target, const std::string& help) {
  return AddDurationFunction(
      app, "--lease",
      [target](absl::Duration lease) {
        if (lease == absl::ZeroDuration()) {
          throw CLI::ValidationError("--lease",
                                     "must be longer than 0; leave it out for the queue's lease");
        }
        *target = lease;
      },
      help);
}

CLI::Validator FromOn(int64_t least) {
  return CLI::Validator(
      [least](std::string& text) {
        int64_t number = 0;
        if (absl::SimpleAtoi(text, &number) && number >= least) return std::string();
        return absl::StrCat("'", text, "' is wrong: it must be a number from ", least, " on");
      },
      absl::StrCat("FROM ", least));
}

CLI::Option* AddBytes(CLI::App& app, const std::string& name, std::function<void(int64_t)> take,
                      const std::string& help) {
  return AddParsed<int64_t>(app, name, "SIZE", &ParseBytes, std::move(take), help);
}

CLI::Option* AddKeyValues(CLI::App& app, const std::string& name,
                          std::function<void(const std::string&, const std::string&)> take,
                          const std::string& help) {
  return app
      .add_option_function<std::vector<std::string>>(
          name,
          [name, take = std::move(take)](const std::vector<std::string>& texts) {
            for (const std::string& text : texts) {
              const auto parsed = ParseKeyValue(text);
              if (!parsed.ok()) {
                throw CLI::ValidationError(name, std::string(parsed.status().message()));
              }
              take(parsed->first, parsed->second);
            }
          },
          help)
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

}  // namespace sluice::cli
