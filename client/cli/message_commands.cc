// `sluice message list|show|delete|reschedule|redrive`
#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/commands.h"
#include "client/cli/format.h"
#include "client/cli/message_filter_options.h"
#include "client/cpp/time.h"

namespace sluice::cli {
namespace {

using Admin = v1::AdminService::StubInterface;

// Of each body, in a list; what fits beside the rest on a line.
constexpr int kPreviewWidth = 32;
constexpr int kWholeBody = -1;
constexpr int64_t kListedDefault = 100;

std::string StateWord(v1::MessageState state) {
  return EnumWords(v1::MessageState_Name(state), "MESSAGE_STATE_");
}

std::string Age(const google::protobuf::Timestamp& time) {
  return HumanDuration(absl::Now() - FromProto(time));
}

// "not due, in 3m20s", "leased by worker-1, for 12s", "group blocked, behind AAEC".
std::string Waiting(const v1::StoredMessage& stored) {
  std::string text = EnumWords(v1::WaitReason_Name(stored.waiting()), "WAIT_REASON_");
  if (!stored.leased_by().empty()) absl::StrAppend(&text, " by ", stored.leased_by());
  if (!stored.blocked_by_id().empty()) {
    absl::StrAppend(&text, ", behind ", stored.blocked_by_id());
  }
  if (stored.has_until()) {
    const char* const word = stored.state() == v1::MESSAGE_STATE_LEASED ? ", for " : ", in ";
    absl::StrAppend(&text, word, HumanDuration(FromProto(stored.until()) - absl::Now()));
  }
  return text;
}

// ---- list

struct ListOptions {
  v1::ListMessagesRequest request;
  int64_t limit = kListedDefault;
  bool bodies = false;
};

// Prints pages until `limit` messages were seen; 0: all.
int List(Context& context, ListOptions& options) {
  v1::ListMessagesRequest& request = options.request;
  request.set_max_body_bytes(options.bodies ? kWholeBody : kPreviewWidth + 1);
  std::vector<std::vector<std::string>> rows = {
      {"ID", "STATE", ">PRIO", ">ATTEMPT", ">AGE", ">SIZE", "GROUP", "WAITS FOR", "BODY"}};
  int64_t seen = 0;
  do {
    const int64_t wanted = options.limit == 0 ? kListPageSize : options.limit - seen;
    request.set_page_size(static_cast<int32_t>(std::min<int64_t>(wanted, kListPageSize)));
    const auto response = context.client().Call(&Admin::ListMessages, request);
    if (!response.ok()) return context.Fail(response.status());
    for (const v1::StoredMessage& stored : response->messages()) {
      ++seen;
      if (context.json) {
        PrintJson(stored, false);
        continue;
      }
      const v1::Message& message = stored.message();
      rows.push_back({message.id(), StateWord(stored.state()),
                      absl::StrCat(message.has_priority() ? message.priority() : 4),
                      absl::StrCat(stored.attempt()), Age(message.publish_time()),
                      HumanBytes(stored.size_bytes()), Preview(message.group(), kPreviewWidth),
                      Waiting(stored),
                      options.bodies ? Preview(message.body(), message.body().size())
                                     : Preview(message.body(), kPreviewWidth)});
    }
    request.set_page_token(response->next_page_token());
  } while (!request.page_token().empty() && (options.limit == 0 || seen < options.limit));
  if (!context.json) PrintTable(rows, "no messages");
  if (!request.page_token().empty()) {
    std::cerr << "there may be more: see --limit\n";
  }
  return kExitOk;
}

void AddList(CLI::App& app, Context& context) {
  auto options = std::make_shared<ListOptions>();
  CLI::App* command = AddCommand(
      app, context, "list", "List messages in any state, and why they wait; changes nothing",
      "  sluice message list orders\n"
      "  sluice message list orders --state delayed --group customer-7\n"
      "  sluice message list orders.dead --death-reason attempts --min-age 1h --limit 0 --json\n",
      [&context, options] { return List(context, *options); });
  command->add_option("queue", *options->request.mutable_queue(), "Name of the queue")->required();
  AddMessageFilterOptions(*command, options->request.mutable_filter());
  command->add_option("--limit,-n", options->limit, "Messages at most; 0 is all")
      ->check(FromOn(0))
      ->capture_default_str();
  command->add_flag("--bodies", options->bodies, "Whole bodies, not only how they begin");
}

// ---- show

void PrintStored(const v1::StoredMessage& stored) {
  const v1::Message& message = stored.message();
  const auto unless_empty = [](absl::string_view name, const std::string& value) {
    if (!value.empty()) PrintRow(name, value);
  };
  PrintRow("id", message.id());
  PrintRow("state", StateWord(stored.state()));
  unless_empty("waits for", Waiting(stored));
  PrintRow("attempt", absl::StrCat(stored.attempt()));
  PrintRow("handed out", HumanCount(stored.delivery_count(), "time"));
  PrintRow("published", absl::StrCat(HumanTime(message.publish_time()), " (",
                                     Age(message.publish_time()), " ago)"));
  PrintRow("size", HumanBytes(stored.size_bytes()));
  PrintRow("priority", absl::StrCat(message.has_priority() ? message.priority() : 4));
  unless_empty("group", message.group());
  unless_empty("exchange", message.exchange());
  unless_empty("routing key", message.routing_key());
  unless_empty("content type", message.content_type());
  unless_empty("dedup id", message.dedup_id());
  unless_empty("correlation id", message.correlation_id());
  unless_empty("reply to", message.reply_to());
  for (const auto& [key, value] : message.attributes()) {
    PrintRow("attribute", absl::StrCat(key, "=", value));
  }
  for (const v1::Death& death : stored.deaths()) {
    PrintRow("died in", absl::StrCat(death.queue(), ": ",
                                     EnumWords(v1::DeathReason_Name(death.reason()),
                                               "DEATH_REASON_"),
                                     ", ", HumanCount(death.count(), "time"), ", last ",
                                     Age(death.last_time()), " ago after ",
                                     HumanCount(death.attempts(), "attempt"),
                                     death.detail().empty() ? "" : ": ", death.detail()));
  }
  std::cout << "\n";
  std::cout.write(message.body().data(), static_cast<std::streamsize>(message.body().size()));
  std::cout << std::endl;
}

void AddShow(CLI::App& app, Context& context) {
  auto request = std::make_shared<v1::GetMessageRequest>();
  CLI::App* command = AddCommand(
      app, context, "show", "Show one message, its body and why it waits; changes nothing",
      "  sluice message show orders ID\n"
      "  sluice message show orders ID --json | jq -r .message.body | base64 -d\n",
      [&context, request] {
        request->set_max_body_bytes(kWholeBody);
        const auto response = context.client().Call(&Admin::GetMessage, *request);
        if (!response.ok()) return context.Fail(response.status());
        if (context.json) {
          PrintJson(response->message(), false);
        } else {
          PrintStored(response->message());
        }
        return static_cast<int>(kExitOk);
      });
  command->add_option("queue", *request->mutable_queue(), "Name of the queue")->required();
  command->add_option("id", *request->mutable_message_id(), "Id of the message")->required();
}

// ---- delete, reschedule

// Calls until the end of the queue is reached. `count(response)` is what one call did.
template <typename Method, typename Request, typename Count>
int EditAll(Context& context, Method method, Request request, absl::string_view verb,
            Count count) {
  if (!IsSet(request.filter())) {
    std::cerr << "sluice: say which messages, for example by --id or --min-age; see --help\n";
    return kExitUsage;
  }
  int64_t total = 0;
  do {
    const auto response = context.client().Call(method, request);
    if (!response.ok()) {
      if (total > 0) std::cerr << "sluice: " << verb << " " << HumanCount(total) << " before:\n";
      return context.Fail(response.status());
    }
    total += count(*response);
    request.set_page_token(response->next_page_token());
  } while (!request.page_token().empty());
  if (context.json) {
    std::cout << absl::StrCat("{\"", verb, "\":", total, "}") << std::endl;
  } else {
    std::cout << (request.dry_run() ? "would have " : "") << verb << " "
              << HumanCount(total, "message") << std::endl;
  }
  return kExitOk;
}

void AddDelete(CLI::App& app, Context& context) {
  auto request = std::make_shared<v1::DeleteMessagesRequest>();
  CLI::App* command = AddCommand(
      app, context, "delete", "Delete messages by id or filter, but those that consumers hold",
      "  sluice message delete orders --id ID\n"
      "  sluice message delete orders --state delayed --group customer-7 --dry-run\n",
      [&context, request] {
        return EditAll(context, &Admin::DeleteMessages, *request, "deleted",
                       [](const auto& response) { return response.deleted(); });
      });
  command->add_option("queue", *request->mutable_queue(), "Name of the queue")->required();
  AddMessageFilterOptions(*command, request->mutable_filter());
  command->add_flag_function(
      "--dry-run", [request](int64_t) { request->set_dry_run(true); }, "Count, and delete nothing");
  command->add_flag_function(
      "--include-leased", [request](int64_t) { request->set_include_leased(true); },
      "Also what consumers hold");
}

void AddReschedule(CLI::App& app, Context& context) {
  auto request = std::make_shared<v1::RescheduleMessagesRequest>();
  CLI::App* command = AddCommand(
      app, context, "reschedule", "Deliver messages at another time",
      "  sluice message reschedule orders --id ID --delay 10m\n"
      "  sluice message reschedule orders --state delayed --delay 0      # at once\n"
      "  sluice message reschedule mail -a kind=news --at 2026-03-01T08:30:00Z --dry-run\n",
      [&context, request] {
        return EditAll(context, &Admin::RescheduleMessages, *request, "rescheduled",
                       [](const auto& response) { return response.rescheduled(); });
      });
  command->add_option("queue", *request->mutable_queue(), "Name of the queue")->required();
  AddMessageFilterOptions(*command, request->mutable_filter());
  command->add_flag_function(
      "--dry-run", [request](int64_t) { request->set_dry_run(true); }, "Count, and change nothing");
  CLI::Option_group* when = command->add_option_group("when");
  AddDurationFunction(
      *when, "--delay",
      [request](absl::Duration delay) { *request->mutable_delay() = client::ToProto(delay); },
      "This long from now; 0 is at once");
  AddTimeFunction(
      *when, "--at",
      [request](absl::Time time) { *request->mutable_deliver_at() = client::ToProto(time); },
      "From this time on");
  when->require_option(1);
}

// ---- redrive

int Redrive(Context& context, const v1::RedriveMessagesRequest& request) {
  grpc::ClientContext call;  // no deadline: it lasts as long as there is something to move
  auto stream = context.client().admin().RedriveMessages(&call, request);
  const bool show = !context.json && isatty(STDERR_FILENO) == 1;
  v1::RedriveMessagesResponse progress;
  while (stream->Read(&progress)) {
    if (context.json) PrintJson(progress);
    if (show) {
      std::cerr << "\r\033[K" << HumanCount(progress.moved()) << " moved, "
                << HumanCount(progress.remaining()) << " to look at" << std::flush;
    }
  }
  if (show) std::cerr << "\r\033[K";
  const absl::Status status = client::FromGrpc(stream->Finish());
  if (!context.json && (status.ok() || progress.moved() > 0)) {
    std::cout << (request.dry_run() ? "would have moved " : "moved ")
              << HumanCount(progress.moved(), "message");
    if (progress.skipped() > 0) std::cout << ", left " << HumanCount(progress.skipped());
    std::cout << std::endl;
  }
  if (!status.ok()) return context.Fail(status);
  return progress.skipped() > 0 ? kExitRefused : kExitOk;
}

void AddRedrive(CLI::App& app, Context& context) {
  auto request = std::make_shared<v1::RedriveMessagesRequest>();
  CLI::App* command = AddCommand(
      app, context, "redrive",
      "Move messages of a dead-letter queue back to where they died, or elsewhere. Ctrl-C stops "
      "it; run it again to go on. Exit code 1 if some had to be left, as their queue is gone or "
      "full.",
      "  sluice message redrive orders.dead --dry-run\n"
      "  sluice message redrive orders.dead --rate 50/s --max 1000\n"
      "  sluice message redrive orders.dead --death-reason attempts --to orders.retry\n",
      [&context, request] { return Redrive(context, *request); });
  command->add_option("queue", *request->mutable_queue(), "Name of the dead-letter queue")
      ->required();
  AddMessageFilterOptions(*command, request->mutable_filter());
  command->add_option("--to", *request->mutable_to_queue(),
                      "Queue to move them to [the one that each died in last]");
  AddRate(
      *command, "--rate",
      [request](double per_second) { request->mutable_rate()->set_per_second(per_second); },
      "Pace of the moves, for example 50/s [the server's]");
  command
      ->add_option_function<int64_t>(
          "--max", [request](int64_t count) { request->set_max_messages(count); },
          "Stop after this many [no limit]")
      ->check(FromOn(1));
  command->add_flag_function(
      "--dry-run", [request](int64_t) { request->set_dry_run(true); }, "Count, and move nothing");
}

}  // namespace

void AddMessageCommands(CLI::App& app, Context& context) {
  CLI::App* message =
      app.add_subcommand("message", "Look at messages, delete, reschedule and redrive them");
  message->require_subcommand(1);
  AddList(*message, context);
  AddShow(*message, context);
  AddDelete(*message, context);
  AddReschedule(*message, context);
  AddRedrive(*message, context);
}

}  // namespace sluice::cli
