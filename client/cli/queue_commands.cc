// `sluice queue ...`
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/commands.h"
#include "client/cli/format.h"
#include "client/cli/queue_config_options.h"

namespace sluice::cli {
namespace {

using Admin = v1::AdminService::StubInterface;

std::string Waiting(const v1::Queue& queue) {
  std::vector<std::string> reasons;
  for (const int reason : queue.waiting()) {
    reasons.push_back(
        EnumWords(v1::WaitReason_Name(static_cast<v1::WaitReason>(reason)), "WAIT_REASON_"));
  }
  return absl::StrJoin(reasons, ", ");
}

std::string OldestAge(const v1::QueueStats& stats) {
  return stats.has_oldest_ready_age() ? HumanDuration(FromProto(stats.oldest_ready_age())) : "-";
}

std::string OrNone(const google::protobuf::Duration& duration) {
  const absl::Duration value = FromProto(duration);
  return value == absl::ZeroDuration() ? "none" : HumanDuration(value);
}

std::string RateText(const v1::QueueConfig& config) {
  if (!config.has_delivery_rate()) return "no limit";
  return absl::StrCat(config.delivery_rate().per_second(), " messages/s, at once up to ",
                      config.delivery_rate().burst());
}

void PrintConfig(const v1::QueueConfig& config) {
  const auto row = &PrintRow;
  using Format = std::string (*)(int64_t);
  const auto limit = [](int64_t value, Format format) {
    return value == 0 ? "none" : format(value);
  };
  row("lease", OrNone(config.lease()));
  row("ttl", OrNone(config.ttl()));
  row("retry", absl::StrCat(OrNone(config.retry().min_backoff()), " to ",
                            OrNone(config.retry().max_backoff()), ", ",
                            config.retry().max_attempts() == 0
                                ? std::string("no limit of attempts")
                                : HumanCount(config.retry().max_attempts(), "attempt"),
                            config.retry().discard_when_exhausted() ? ", then dropped" : ""));
  row("dead letter queue",
      config.dead_letter_queue().empty() ? "none" : config.dead_letter_queue());
  row("max length", limit(config.max_length(), HumanCount));
  row("max bytes", limit(config.max_bytes(), HumanBytes));
  row("when full", config.overflow() == v1::OVERFLOW_DROP_HEAD ? "drop the oldest" : "reject");
  row("dedup window", OrNone(config.dedup_window()));
  row("delivery rate", RateText(config));
  row("single active", config.single_active_consumer() ? "yes" : "no");
  row("priority aging", OrNone(config.priority_aging()));
  row("idle expiry", OrNone(config.idle_expiry()));
  for (const auto& [key, value] : config.labels()) row("label", absl::StrCat(key, "=", value));
}

void PrintQueue(const v1::Queue& queue) {
  const v1::QueueStats& stats = queue.stats();
  const auto row = &PrintRow;
  row("name", queue.config().name());
  row("state", queue.state() == v1::QUEUE_STATE_PAUSED ? "paused" : "active");
  row("ready", HumanCount(stats.ready()));
  row("leased", HumanCount(stats.leased()));
  row("delayed", HumanCount(stats.delayed()));
  row("blocked", HumanCount(stats.blocked()));
  row("size", HumanBytes(stats.bytes()));
  row("consumers", HumanCount(stats.consumers()));
  row("oldest ready", OldestAge(stats));
  if (queue.waiting_size() > 0) row("waits for", Waiting(queue));
  PrintConfig(queue.config());
  row("created", HumanTime(queue.create_time()));
  row("updated", HumanTime(queue.update_time()));
  row("etag", queue.etag());
  std::cout.flush();
}

void AddCreate(CLI::App& app, Context& context) {
  auto request = std::make_shared<v1::CreateQueueRequest>();
  auto mask = std::make_shared<google::protobuf::FieldMask>();
  CLI::App* command = AddCommand(
      app, context, "create", "Make a queue; fine if there is the same one already",
      "  sluice queue create orders\n"
      "  sluice queue create mail --lease 5m --min-backoff 10s --label team=web\n"
      "  sluice queue create jobs --max-attempts 5 --dead-letter-queue jobs.dead --ttl 1d\n"
      "  sluice queue create feed --max-length 100000 --overflow drop-head --delivery-rate 50/s\n",
      [&context, request, mask] {
        const auto response = context.client().Call(&Admin::CreateQueue, *request);
        if (!response.ok()) return context.Fail(response.status());
        if (context.json) {
          PrintJson(*response);
        } else {
          std::cout << (response->created() ? "created " : "there already: ")
                    << response->queue().config().name() << std::endl;
        }
        return static_cast<int>(kExitOk);
      });
  command->add_option("name", *request->mutable_config()->mutable_name(), "Name of the queue")
      ->required();
  AddQueueConfigOptions(*command, request->mutable_config(), mask.get());
}

int List(Context& context, const v1::ListQueuesRequest& request) {
  std::vector<std::vector<std::string>> rows = {
      {"QUEUE", ">READY", ">LEASED", ">DELAYED", ">BLOCKED", ">SIZE", ">CONSUMERS", ">OLDEST",
       "WAITS FOR"}};
  const absl::Status status = EachPage(context, &Admin::ListQueues, request, [&](const auto& page) {
    for (const v1::Queue& queue : page.queues()) {
      if (context.json) {
        PrintJson(queue);
        continue;
      }
      const v1::QueueStats& stats = queue.stats();
      const bool paused = queue.state() == v1::QUEUE_STATE_PAUSED;
      rows.push_back({queue.config().name(), HumanCount(stats.ready()), HumanCount(stats.leased()),
                      HumanCount(stats.delayed()), HumanCount(stats.blocked()),
                      HumanBytes(stats.bytes()), HumanCount(stats.consumers()), OldestAge(stats),
                      queue.waiting_size() == 0 && paused ? "paused" : Waiting(queue)});
    }
  });
  if (!status.ok()) return context.Fail(status);
  if (!context.json) PrintTable(rows, "no queues");
  return kExitOk;
}

void AddList(CLI::App& app, Context& context) {
  auto request = std::make_shared<v1::ListQueuesRequest>();
  CLI::App* command =
      AddCommand(app, context, "list", "List queues with what they hold",
                 "  sluice queue list\n"
                 "  sluice queue list 'mail.*'\n"
                 "  sluice queue list --json | jq -r .config.name\n",
                 [&context, request] { return List(context, *request); });
  command->add_option("glob", *request->mutable_name_glob(),
                      "Names to list: * stands for any characters, ? for one");
}

void AddShow(CLI::App& app, Context& context) {
  auto request = std::make_shared<v1::GetQueueRequest>();
  CLI::App* command = AddCommand(
      app, context, "show", "Show one queue: what it holds, why that waits, how it works",
      "  sluice queue show orders\n"
      "  sluice queue show orders --json | jq .stats.ready\n",
      [&context, request] {
        const auto response = context.client().Call(&Admin::GetQueue, *request);
        if (!response.ok()) return context.Fail(response.status());
        if (context.json) {
          PrintJson(response->queue());
        } else {
          PrintQueue(response->queue());
        }
        return static_cast<int>(kExitOk);
      });
  command->add_option("name", *request->mutable_queue(), "Name of the queue")->required();
}

void AddUpdate(CLI::App& app, Context& context) {
  auto request = std::make_shared<v1::UpdateQueueRequest>();
  CLI::App* command = AddCommand(
      app, context, "update", "Change how a queue works; what is not named stays as it is",
      "  sluice queue update orders --lease 2m\n"
      "  sluice queue update orders --min-backoff 5s --max-backoff 2m\n",
      [&context, request] {
        if (request->update_mask().paths().empty()) {
          std::cerr << "sluice: say what to change; see sluice queue update --help\n";
          return static_cast<int>(kExitUsage);
        }
        const auto response = context.client().Call(&Admin::UpdateQueue, *request);
        if (!response.ok()) return context.Fail(response.status());
        if (context.json) {
          PrintJson(response->queue());
        } else {
          std::cout << "updated " << response->queue().config().name() << std::endl;
        }
        return static_cast<int>(kExitOk);
      });
  command->add_option("name", *request->mutable_config()->mutable_name(), "Name of the queue")
      ->required();
  command->add_option("--etag", *request->mutable_etag(), "Only if nobody changed it since");
  AddQueueConfigOptions(*command, request->mutable_config(), request->mutable_update_mask());
}

void AddDelete(CLI::App& app, Context& context) {
  auto request = std::make_shared<v1::DeleteQueueRequest>();
  auto flags = std::make_shared<std::pair<bool, bool>>();
  CLI::App* command = AddCommand(
      app, context, "delete", "Delete a queue with everything that it holds",
      "  sluice queue delete orders\n"
      "  sluice queue delete orders --if-empty --if-unused\n",
      [&context, request, flags] {
        request->set_if_empty(flags->first);
        request->set_if_unused(flags->second);
        const auto response = context.client().Call(&Admin::DeleteQueue, *request);
        if (!response.ok()) return context.Fail(response.status());
        if (context.json) {
          PrintJson(*response);
        } else {
          std::cout << "deleted " << request->queue() << std::endl;
        }
        return static_cast<int>(kExitOk);
      });
  command->add_option("name", *request->mutable_queue(), "Name of the queue")->required();
  command->add_flag("--if-empty", flags->first, "Only if it holds nothing");
  command->add_flag("--if-unused", flags->second, "Only if it has no consumers");
  command->add_option("--etag", *request->mutable_etag(), "Only if nobody changed it since");
}

void AddPurge(CLI::App& app, Context& context) {
  auto request = std::make_shared<v1::PurgeQueueRequest>();
  auto flags = std::make_shared<std::pair<bool, bool>>();
  CLI::App* command = AddCommand(
      app, context, "purge", "Remove all messages of a queue, but those that consumers hold",
      "  sluice queue purge orders --dry-run\n"
      "  sluice queue purge orders\n",
      [&context, request, flags] {
        request->set_dry_run(flags->first);
        request->set_include_leased(flags->second);
        const auto response = context.client().Call(&Admin::PurgeQueue, *request);
        if (!response.ok()) return context.Fail(response.status());
        if (context.json) {
          PrintJson(*response);
        } else {
          std::cout << (flags->first ? "would remove " : "removed ")
                    << HumanCount(response->purged(), "message") << std::endl;
        }
        return static_cast<int>(kExitOk);
      });
  command->add_option("name", *request->mutable_queue(), "Name of the queue")->required();
  command->add_flag("--dry-run", flags->first, "Count, and remove nothing");
  command->add_flag("--include-leased", flags->second, "Also what consumers hold");
}

void AddPause(CLI::App& app, Context& context) {
  auto request = std::make_shared<v1::PauseQueueRequest>();
  AddCommand(app, context, "pause", "Stop deliveries; publishing and settling go on",
             "  sluice queue pause orders\n",
             [&context, request] {
               return Unary(context, &Admin::PauseQueue, *request, [&](const auto& response) {
                 return absl::StrCat("paused ", response.queue().config().name());
               });
             })
      ->add_option("name", *request->mutable_queue(), "Name of the queue")
      ->required();
}

void AddResume(CLI::App& app, Context& context) {
  auto request = std::make_shared<v1::ResumeQueueRequest>();
  AddCommand(app, context, "resume", "Let a paused queue deliver again",
             "  sluice queue resume orders\n",
             [&context, request] {
               return Unary(context, &Admin::ResumeQueue, *request, [&](const auto& response) {
                 return absl::StrCat("resumed ", response.queue().config().name());
               });
             })
      ->add_option("name", *request->mutable_queue(), "Name of the queue")
      ->required();
}

}  // namespace

void AddQueueCommands(CLI::App& app, Context& context) {
  CLI::App* queue = app.add_subcommand("queue", "Make, show, change and delete queues");
  queue->require_subcommand(1);
  AddCreate(*queue, context);
  AddList(*queue, context);
  AddShow(*queue, context);
  AddUpdate(*queue, context);
  AddDelete(*queue, context);
  AddPurge(*queue, context);
  AddPause(*queue, context);
  AddResume(*queue, context);
}

}  // namespace sluice::cli
