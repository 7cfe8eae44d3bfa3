// `sluice exchange ...`, `sluice bind`, `unbind`, `sluice binding list`
#include <algorithm>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/commands.h"
#include "client/cli/format.h"

namespace sluice::cli {
namespace {

using Admin = v1::AdminService::StubInterface;

constexpr char kTypePrefix[] = "EXCHANGE_TYPE_";

std::string TypeWord(const v1::Exchange& exchange) {
  return EnumWords(v1::ExchangeType_Name(exchange.type()), kTypePrefix);
}

std::string DestinationOf(const v1::Binding& binding) {
  return binding.has_queue() ? binding.queue() : absl::StrCat("exchange ", binding.to_exchange());
}

std::string Labels(const google::protobuf::Map<std::string, std::string>& labels) {
  std::vector<std::string> texts;
  for (const auto& [key, value] : labels) texts.push_back(absl::StrCat(key, "=", value));
  std::sort(texts.begin(), texts.end());
  return absl::StrJoin(texts, ", ");
}

std::string Headers(const v1::Binding& binding) {
  if (binding.headers().empty()) return "";
  return absl::StrCat(binding.header_match() == v1::HEADER_MATCH_ANY ? "any of " : "",
                      Labels(binding.headers()));
}

// What create and update have in common; `mask` learns what was given.
void AddExchangeOptions(CLI::App& app, v1::Exchange* exchange, google::protobuf::FieldMask* mask) {
  app.add_option_function<std::string>(
         "--alternate-exchange",
         [=](const std::string& name) {
           exchange->set_alternate_exchange(name);
           mask->add_paths("alternate_exchange");
         },
         "Exchange for messages that find no route here; '' for none")
      ->type_name("NAME");
  AddKeyValues(
      app, "--label",
      [=](const std::string& key, const std::string& value) {
        (*exchange->mutable_labels())[key] = value;
        // Once is enough: the mask names the whole map.
        if (mask->paths().empty() || *mask->paths().rbegin() != "labels") mask->add_paths("labels");
      },
      "A label for people and tools; may be repeated, and replaces all labels on update");
}

void AddCreate(CLI::App& app, Context& context) {
  auto request = std::make_shared<v1::CreateExchangeRequest>();
  auto mask = std::make_shared<google::protobuf::FieldMask>();
  CLI::App* command = AddCommand(
      app, context, "create", "Make an exchange; fine if there is the same one already",
      "  sluice exchange create events --type topic\n"
      "  sluice exchange create prices --type fanout --alternate-exchange unrouted\n",
      [&context, request, mask] {  // the options keep a pointer to the mask
        return Unary(context, &Admin::CreateExchange, *request, [](const auto& response) {
          return absl::StrCat(response.created() ? "created " : "there already: ",
                              response.exchange().name());
        });
      });
  v1::Exchange* exchange = request->mutable_exchange();
  command->add_option("name", *exchange->mutable_name(), "Name of the exchange")->required();
  command
      ->add_option_function<std::string>(
          "--type",
          [exchange](const std::string& word) {
            v1::ExchangeType type;
            if (v1::ExchangeType_Parse(EnumName(word, kTypePrefix), &type)) {
              exchange->set_type(type);
            }
          },
          "direct: by equal routing key; fanout: to all; topic: by pattern (* one word, # any); "
          "headers: by attributes")
      ->check(CLI::IsMember({"direct", "fanout", "topic", "headers"}))
      ->required();
  AddExchangeOptions(*command, exchange, mask.get());
}

int ListExchanges(Context& context, const v1::ListExchangesRequest& request) {
  std::vector<std::vector<std::string>> rows = {{"EXCHANGE", "TYPE", "ALTERNATE", "LABELS"}};
  const auto status = EachPage(context, &Admin::ListExchanges, request, [&](const auto& page) {
    for (const v1::Exchange& exchange : page.exchanges()) {
      if (context.json) {
        PrintJson(exchange);
      } else {
        rows.push_back({exchange.name(), TypeWord(exchange), exchange.alternate_exchange(),
                        Labels(exchange.labels())});
      }
    }
  });
  if (!status.ok()) return context.Fail(status);
  if (!context.json) PrintTable(rows, "no exchanges");
  return kExitOk;
}

int ListBindings(Context& context, const v1::ListBindingsRequest& request) {
  std::vector<std::vector<std::string>> rows = {{"EXCHANGE", "TO", "KEY", "HEADERS"}};
  const auto status = EachPage(context, &Admin::ListBindings, request, [&](const auto& page) {
    for (const v1::Binding& binding : page.bindings()) {
      if (context.json) {
        PrintJson(binding);
      } else {
        rows.push_back({binding.exchange(), DestinationOf(binding), binding.binding_key(),
                        Headers(binding)});
      }
    }
  });
  if (!status.ok()) return context.Fail(status);
  if (!context.json) PrintTable(rows, "no bindings");
  return kExitOk;
}

int ShowExchange(Context& context, const v1::GetExchangeRequest& request) {
  const auto response = context.client().Call(&Admin::GetExchange, request);
  if (!response.ok()) return context.Fail(response.status());
  const v1::Exchange& exchange = response->exchange();
  if (context.json) {
    PrintJson(exchange);
    return kExitOk;
  }
  PrintRow("name", exchange.name());
  PrintRow("type", TypeWord(exchange));
  PrintRow("alternate exchange",
           exchange.alternate_exchange().empty() ? "none" : exchange.alternate_exchange());
  for (const auto& [key, value] : exchange.labels()) {
    PrintRow("label", absl::StrCat(key, "=", value));
  }
  v1::ListBindingsRequest bindings;
  bindings.set_exchange(exchange.name());
  return ListBindings(context, bindings);
}

void AddListAndShow(CLI::App& app, Context& context) {
  auto list = std::make_shared<v1::ListExchangesRequest>();
  AddCommand(app, context, "list", "List exchanges",
             "  sluice exchange list\n"
             "  sluice exchange list 'shop.*' --json | jq -r .name\n",
             [&context, list] { return ListExchanges(context, *list); })
      ->add_option("glob", *list->mutable_name_glob(),
                   "Names to list: * stands for any characters, ? for one");

  auto show = std::make_shared<v1::GetExchangeRequest>();
  AddCommand(app, context, "show", "Show one exchange and its bindings",
             "  sluice exchange show events\n",
             [&context, show] { return ShowExchange(context, *show); })
      ->add_option("name", *show->mutable_exchange(), "Name of the exchange")
      ->required();
}

void AddUpdateAndDelete(CLI::App& app, Context& context) {
  auto update = std::make_shared<v1::UpdateExchangeRequest>();
  CLI::App* command = AddCommand(
      app, context, "update", "Change an exchange; what is not named stays as it is",
      "  sluice exchange update events --alternate-exchange unrouted\n", [&context, update] {
        if (update->update_mask().paths().empty()) {
          std::cerr << "sluice: say what to change; see sluice exchange update --help\n";
          return static_cast<int>(kExitUsage);
        }
        return Unary(context, &Admin::UpdateExchange, *update, [](const auto& response) {
          return absl::StrCat("updated ", response.exchange().name());
        });
      });
  command->add_option("name", *update->mutable_exchange()->mutable_name(), "Name of the exchange")
      ->required();
  AddExchangeOptions(*command, update->mutable_exchange(), update->mutable_update_mask());

  auto remove = std::make_shared<v1::DeleteExchangeRequest>();
  AddCommand(app, context, "delete", "Delete an exchange with the bindings from it and to it",
             "  sluice exchange delete events\n",
             [&context, remove] {
               return Unary(context, &Admin::DeleteExchange, *remove, [&](const auto&) {
                 return absl::StrCat("deleted ", remove->exchange());
               });
             })
      ->add_option("name", *remove->mutable_exchange(), "Name of the exchange")
      ->required();
}

struct BindOptions {
  v1::Binding binding;
  std::string destination;
  bool to_exchange = false;
  bool any = false;
};

v1::Binding ToBinding(const BindOptions& options) {
  v1::Binding binding = options.binding;
  if (options.to_exchange) {
    binding.set_to_exchange(options.destination);
  } else {
    binding.set_queue(options.destination);
  }
  if (options.any) binding.set_header_match(v1::HEADER_MATCH_ANY);
  return binding;
}

void AddBindOptions(CLI::App& app, BindOptions* options) {
  app.add_option("exchange", *options->binding.mutable_exchange(), "Name of the exchange")
      ->required();
  app.add_option("destination", options->destination, "Queue that it leads to")->required();
  app.add_flag("--to-exchange", options->to_exchange, "The destination is an exchange");
  app.add_option("--key", *options->binding.mutable_binding_key(),
                 "direct: the routing key; topic: the pattern");
  AddKeyValues(
      app, "--header",
      [options](const std::string& key, const std::string& value) {
        (*options->binding.mutable_headers())[key] = value;
      },
      "headers: an attribute and its value; may be repeated");
  app.add_flag("--any", options->any, "headers: one that agrees is enough [all must]");
}

void AddBindAndUnbind(CLI::App& app, Context& context) {
  auto bind = std::make_shared<BindOptions>();
  AddBindOptions(
      *AddCommand(app, context, "bind", "Lead an exchange to a queue; fine if it does already",
                  "  sluice bind events orders --key 'order.#'\n"
                  "  sluice bind events audit --to-exchange\n"
                  "  sluice bind by-shop north --header shop=north --header kind=order --any\n",
                  [&context, bind] {
                    v1::CreateBindingRequest request;
                    *request.mutable_binding() = ToBinding(*bind);
                    return Unary(context, &Admin::CreateBinding, request, [](const auto& response) {
                      return absl::StrCat(response.created() ? "bound " : "bound already: ",
                                          response.binding().exchange(), " to ",
                                          DestinationOf(response.binding()));
                    });
                  }),
      bind.get());

  auto unbind = std::make_shared<BindOptions>();
  AddBindOptions(
      *AddCommand(app, context, "unbind", "Delete a binding, named by all that made it",
                  "  sluice unbind events orders --key 'order.#'\n",
                  [&context, unbind] {
                    v1::DeleteBindingRequest request;
                    *request.mutable_binding() = ToBinding(*unbind);
                    return Unary(context, &Admin::DeleteBinding, request, [&](const auto&) {
                      return absl::StrCat("unbound ", request.binding().exchange(), " from ",
                                          DestinationOf(request.binding()));
                    });
                  }),
      unbind.get());
}

}  // namespace

void AddRoutingCommands(CLI::App& app, Context& context) {
  CLI::App* exchange = app.add_subcommand("exchange", "Make, show, change and delete exchanges");
  exchange->require_subcommand(1);
  AddCreate(*exchange, context);
  AddListAndShow(*exchange, context);
  AddUpdateAndDelete(*exchange, context);
  AddBindAndUnbind(app, context);
  CLI::App* binding = app.add_subcommand("binding", "Show where exchanges lead");
  binding->require_subcommand(1);
  auto request = std::make_shared<v1::ListBindingsRequest>();
  AddCommand(*binding, context, "list", "List bindings, of one exchange or of all",
             "  sluice binding list\n"
             "  sluice binding list events\n",
             [&context, request] { return ListBindings(context, *request); })
      ->add_option("exchange", *request->mutable_exchange(), "Name of the exchange [all]");
}

}  // namespace sluice::cli
