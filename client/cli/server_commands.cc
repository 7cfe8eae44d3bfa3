// `sluice health`, `info`
#include <algorithm>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "client/cli/commands.h"
#include "client/cli/format.h"

namespace sluice::cli {
namespace {

int Health(Context& context, const std::string& service) {
  const auto serving = context.client().CheckHealth(service);
  if (!serving.ok()) return context.Fail(serving.status());
  const char* const word = *serving ? "SERVING" : "NOT_SERVING";
  if (context.json) {
    std::cout << absl::StrCat("{\"status\":\"", word, "\"}") << std::endl;
  } else {
    std::cout << word << std::endl;
  }
  return *serving ? kExitOk : kExitRefused;
}

int Info(Context& context) {
  const auto info = context.client().Call(&v1::AdminService::StubInterface::GetServerInfo,
                                          v1::GetServerInfoRequest());
  if (!info.ok()) return context.Fail(info.status());
  if (context.json) {
    PrintJson(*info);
    return kExitOk;
  }
  std::cout << "version:    " << info->version() << "\n"
            << "server id:  " << info->server_id() << "\n"
            << "up for:     " << HumanDuration(absl::Now() - FromProto(info->start_time()))
            << " (since " << HumanTime(info->start_time()) << ")\n";
  if (!info->principal().empty()) std::cout << "you are:    " << info->principal() << "\n";
  if (info->features_size() > 0) {
    std::cout << "features:   " << absl::StrJoin(info->features(), ", ") << "\n";
  }
  std::vector<std::vector<std::string>> rows = {{"LIMIT", ">VALUE"}};
  for (const auto& [name, value] : info->limits()) rows.push_back({name, HumanCount(value)});
  std::sort(rows.begin() + 1, rows.end());
  if (rows.size() > 1) std::cout << Table(rows);
  for (const std::string& warning : info->warnings()) std::cout << "warning: " << warning << "\n";
  std::cout.flush();
  return kExitOk;
}

}  // namespace

void AddServerCommands(CLI::App& app, Context& context) {
  auto service = std::make_shared<std::string>();
  AddCommand(app, context, "health", "Ask whether the server takes calls; exit code 0 if it does",
             "  sluice health\n"
             "  until sluice health; do sleep 1; done\n",
             [&context, service] { return Health(context, *service); })
      ->add_option("service", *service, "A service, for example sluice.v1.QueueService [all]");
  AddCommand(app, context, "info", "Show the server's version, limits and warnings",
             "  sluice info\n"
             "  sluice info --json | jq .limits\n",
             [&context] { return Info(context); });
}

}  // namespace sluice::cli
