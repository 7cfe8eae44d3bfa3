// `sluice consumer list|close`
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/commands.h"
#include "client/cli/format.h"

namespace sluice::cli {
namespace {

using Admin = v1::AdminService::StubInterface;

int List(Context& context, const v1::ListConsumersRequest& request) {
  std::vector<std::vector<std::string>> rows = {
      {">ID", "CONSUMER", "QUEUE", ">HOLDS", ">SIZE", "ACTIVE", ">FOR", "PEER"}};
  const auto status = EachPage(context, &Admin::ListConsumers, request, [&](const auto& page) {
    for (const v1::Consumer& consumer : page.consumers()) {
      if (context.json) {
        PrintJson(consumer);
        continue;
      }
      rows.push_back({consumer.consumer_id(), consumer.consumer(), consumer.queue(),
                      HumanCount(consumer.in_flight()), HumanBytes(consumer.bytes_in_flight()),
                      consumer.active() ? "yes" : "waits",
                      HumanDuration(absl::Now() - FromProto(consumer.connect_time())),
                      consumer.peer()});
    }
  });
  if (!status.ok()) return context.Fail(status);
  if (!context.json) PrintTable(rows, "no consumers");
  return kExitOk;
}

}  // namespace

void AddConsumerCommands(CLI::App& app, Context& context) {
  CLI::App* consumer = app.add_subcommand("consumer", "Show subscriptions, and take one off");
  consumer->require_subcommand(1);
  auto list = std::make_shared<v1::ListConsumersRequest>();
  AddCommand(*consumer, context, "list", "List subscriptions: who holds how much, since when",
             "  sluice consumer list\n"
             "  sluice consumer list orders --json | jq -r .consumerId\n",
             [&context, list] { return List(context, *list); })
      ->add_option("queue", *list->mutable_queue(), "Name of the queue [all]");
  auto close = std::make_shared<v1::CloseConsumerRequest>();
  AddCommand(*consumer, context, "close", "End a subscription; what it holds is ready at once",
             "  sluice consumer close 42\n",
             [&context, close] {
               return Unary(context, &Admin::CloseConsumer, *close, [&](const auto&) {
                 return absl::StrCat("closed ", close->consumer_id());
               });
             })
      ->add_option("id", *close->mutable_consumer_id(), "Id, as consumer list prints it")
      ->required();
}

}  // namespace sluice::cli
