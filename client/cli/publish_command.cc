// `sluice publish`
#include <iostream>

#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/input_file.h"
#include "client/cli/message_options.h"
#include "client/cli/publish_lines.h"
#include "client/cpp/time.h"

namespace sluice::cli {
namespace {

struct PublishOptions {
  std::string queue;
  bool to_exchange = false;
  std::string body;
  std::string file;
  bool has_body = false;
  bool retry = false;
  absl::Duration wait_when_full;
  PublishLinesOptions lines;
};

std::string Describe(const v1::PublishResult& result) {
  if (result.routed_queues() == 0) return "no route: not stored";
  return absl::StrCat(result.message_id(), result.duplicate() ? " (duplicate)" : "",
                      result.routed_queues() > 1
                          ? absl::StrCat(" in ", result.routed_queues(), " queues")
                          : "");
}

int PublishOne(Context& context, const PublishOptions& options, std::string body) {
  v1::PublishRequest request;
  if (options.to_exchange) {
    request.set_exchange(options.queue);
  } else {
    request.set_queue(options.queue);
  }
  request.set_mandatory(options.lines.publisher.mandatory);
  *request.add_messages() = options.lines.prototype;
  request.mutable_messages(0)->set_body(std::move(body));
  if (const absl::Status size = client::CheckMessageSize(request.messages(0)); !size.ok()) {
    return context.Fail(size);
  }
  if (options.wait_when_full > absl::ZeroDuration()) {
    *request.mutable_wait_when_full() = client::ToProto(options.wait_when_full);
  }
  const auto response = context.client().Call(&v1::QueueService::StubInterface::Publish, request,
                                              context.timeout + options.wait_when_full);
  if (!response.ok()) return context.Fail(response.status());
  if (context.json) {
    PrintJson(*response);
  } else if (response->results_size() == 1 && !options.lines.quiet) {
    std::cout << Describe(response->results(0)) << std::endl;
  }
  return kExitOk;
}

int Publish(Context& context, PublishOptions& options) {
  if (options.has_body && !options.file.empty()) {
    std::cerr << "sluice: give BODY or --file, not both\n";
    return kExitUsage;
  }
  const bool one = !options.file.empty() || (options.has_body && options.body != "-");
  if (one && (options.retry || !options.lines.confirmed_path.empty() ||
              !options.lines.publisher.producer_id.empty())) {
    std::cerr << "sluice: --retry, --confirmed-file and --producer-id are for lines of standard "
                 "input; they do nothing for a BODY or --file\n";
    return kExitUsage;
  }
  if (!options.file.empty()) {
    absl::StatusOr<std::string> body = ReadFile(options.file);
    if (!body.ok()) {
      std::cerr << "sluice: " << body.status().message() << "\n";
      return kExitUsage;
    }
    return PublishOne(context, options, *std::move(body));
  }
  if (one) return PublishOne(context, options, options.body);
  client::PublisherOptions& publisher = options.lines.publisher;
  (options.to_exchange ? publisher.exchange : publisher.queue) = options.queue;
  publisher.wait_when_full = options.wait_when_full;
  if (options.retry) publisher.after_break = client::AfterBreak::kResend;
  return PublishLines(context, options.lines);
}

}  // namespace

void AddPublishCommand(CLI::App& app, Context& context) {
  auto options = std::make_shared<PublishOptions>();
  PublishLinesOptions& lines = options->lines;
  CLI::App* command = AddCommand(
      app, context, "publish", "Publish one message, or each line of the input as one",
      "  sluice publish orders 'two apples' --attribute shop=north\n"
      "  sluice publish pictures --file cat.jpg --content-type image/jpeg\n"
      "  seq 1 100000 | sluice publish numbers\n"
      "  sluice publish orders --retry --confirmed-file done.txt < orders.txt\n"
      "  sluice publish orders --producer-id import-7 --retry < orders.txt\n"
      "  sluice publish events 'sold' --exchange --routing-key order.paid --mandatory\n"
      "  sluice publish mail hello --delay 10m --ttl 1h --priority 7 --group customer-7\n",
      [&context, options] { return Publish(context, *options); });
  command->add_option("queue", options->queue, "Name of the queue, or with --exchange of an exchange")
      ->required();
  command->add_option("body", options->body,
                      "The message; without it, or as -, each line of standard input is one")
      ->each([options](const std::string&) { options->has_body = true; });
  command->add_option("--file", options->file, "Publish this whole file as one message");
  AddMessageOptions(*command, &lines.prototype);
  command->add_flag("--exchange", options->to_exchange,
                    "Publish to an exchange, which routes to any number of queues");
  command->add_flag("--mandatory", lines.publisher.mandatory,
                    "Refuse what reaches no queue, instead of dropping it");
  AddDuration(*command, "--wait-when-full", &options->wait_when_full,
              "Wait this long for space in a full queue; a --batch must fit into it");
  command->add_option("--batch", lines.publisher.max_batch_messages,
                      "Lines sent together at most; fewer go when fewer are waiting")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--window", lines.publisher.max_in_flight,
                      "Lines that may be unconfirmed at a time")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  CLI::Option* retry = command->add_flag(
      "--retry", options->retry,
      "When the server goes away, send lines of unknown outcome again: some may then be stored "
      "twice. Not with BODY or --file");
  command->add_option("--producer-id", lines.publisher.producer_id,
                      "Store the n-th line once, however often this is run with the same input and "
                      "id within 7 days; --retry then makes no duplicates. Not with BODY or --file");
  AddDuration(*command, "--retry-for", &lines.publisher.reopen_timeout,
              "With --retry, how long the server may be away [1m]")
      ->needs(retry);
  command->add_option("--confirmed-file", lines.confirmed_path,
                      "Write each line here once it is confirmed stored. Not with BODY or --file");
  command->add_flag("--quiet,-q", lines.quiet, "No ids, counts or progress");
}

}  // namespace sluice::cli
