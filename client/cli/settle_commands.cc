// `sluice ack`, `nack`, `extend`
#include <iostream>

#include "client/cli/commands.h"
#include "client/cli/format.h"
#include "client/cpp/time.h"

namespace sluice::cli {
namespace {

using Queues = v1::QueueService::StubInterface;

struct SettleOptions {
  std::string queue;
  std::vector<std::string> receipts;
  bool discard = false;
  bool release = false;
  bool dead_letter = false;
  std::optional<absl::Duration> delay;
  std::string reason;
  absl::Duration lease;
};

// Prints what was refused, by receipt, and how many were not.
template <typename Response>
int Report(const Context& context, const SettleOptions& options, const Response& response,
           absl::string_view done) {
  if (context.json) {
    PrintJson(response);
  } else {
    for (const v1::ItemFailure& failure : response.failures()) {
      const auto index = static_cast<size_t>(failure.index());
      std::cerr << "sluice: " << (index < options.receipts.size() ? options.receipts[index] : "?")
                << ": " << context.Explain(client::FromItem(failure.status())) << "\n";
    }
    std::cout << done << " " << options.receipts.size() - response.failures_size() << std::endl;
  }
  return response.failures_size() > 0 ? kExitRefused : kExitOk;
}

int Ack(Context& context, const SettleOptions& options) {
  v1::AckRequest request;
  request.set_queue(options.queue);
  for (const std::string& receipt : options.receipts) request.add_receipts(receipt);
  const auto response = context.client().Call(&Queues::Ack, request);
  if (!response.ok()) return context.Fail(response.status());
  return Report(context, options, *response, "acked");
}

int Nack(Context& context, const SettleOptions& options) {
  v1::NackRequest request;
  request.set_queue(options.queue);
  for (const std::string& receipt : options.receipts) {
    v1::NackItem& item = *request.add_items();
    item.set_receipt(receipt);
    item.set_reason(options.reason);
    if (options.delay) {
      item.set_action(v1::NACK_ACTION_DELAY);
      *item.mutable_delay() = client::ToProto(*options.delay);
    } else if (options.discard) {
      item.set_action(v1::NACK_ACTION_DISCARD);
    } else if (options.release) {
      item.set_action(v1::NACK_ACTION_RELEASE);
    } else if (options.dead_letter) {
      item.set_action(v1::NACK_ACTION_DEAD_LETTER);
    } else {
      item.set_action(v1::NACK_ACTION_RETRY);
    }
  }
  const auto response = context.client().Call(&Queues::Nack, request);
  if (!response.ok()) return context.Fail(response.status());
  return Report(context, options, *response, "nacked");
}

int Extend(Context& context, const SettleOptions& options) {
  v1::ExtendLeaseRequest request;
  request.set_queue(options.queue);
  for (const std::string& receipt : options.receipts) request.add_receipts(receipt);
  if (options.lease > absl::ZeroDuration()) {
    *request.mutable_lease() = client::ToProto(options.lease);
  }
  const auto response = context.client().Call(&Queues::ExtendLease, request);
  if (!response.ok()) return context.Fail(response.status());
  const int exit_code = Report(context, options, *response, "extended");
  const bool extended = response->failures_size() < request.receipts_size();
  if (!context.json && extended && response->has_lease_expires_at()) {
    std::cout << "until " << HumanTime(response->lease_expires_at()) << std::endl;
  }
  return exit_code;
}

void AddReceipts(CLI::App* command, SettleOptions* options) {
  command->add_option("queue", options->queue, "Name of the queue")->required();
  command->add_option("receipts", options->receipts, "Receipts, as receive --json prints them")
      ->required();
}

}  // namespace

void AddSettleCommands(CLI::App& app, Context& context) {
  auto ack = std::make_shared<SettleOptions>();
  AddReceipts(AddCommand(app, context, "ack", "Settle messages as done", "  sluice ack orders RECEIPT\n",
                         [&context, ack] { return Ack(context, *ack); }),
              ack.get());

  auto nack = std::make_shared<SettleOptions>();
  CLI::App* command = AddCommand(
      app, context, "nack", "Settle messages as not processed: by default, try again later",
      "  sluice nack orders RECEIPT                  # retry after the queue's backoff\n"
      "  sluice nack orders RECEIPT --delay 10m\n"
      "  sluice nack orders RECEIPT --release        # back at once, no failure\n"
      "  sluice nack orders RECEIPT --dead-letter --reason 'no such customer'\n",
      [&context, nack] { return Nack(context, *nack); });
  AddReceipts(command, nack.get());
  CLI::Option_group* how = command->add_option_group("action");
  AddDurationFunction(
      *how, "--delay", [nack](absl::Duration delay) { nack->delay = delay; },
      "Try again after this time");
  how->add_flag("--discard", nack->discard, "Drop them for good");
  how->add_flag("--release", nack->release, "Give them back at once, without counting a failure");
  how->add_flag("--dead-letter", nack->dead_letter, "Move them to the dead-letter queue");
  how->require_option(0, 1);
  command->add_option("--reason", nack->reason, "Why, for people");

  auto extend = std::make_shared<SettleOptions>();
  command = AddCommand(app, context, "extend", "Take more time for messages; receipts stay the same",
                       "  sluice extend orders RECEIPT --lease 5m\n",
                       [&context, extend] { return Extend(context, *extend); });
  AddReceipts(command, extend.get());
  AddLease(*command, &extend->lease, "Time from now [the queue's lease]");
}

}  // namespace sluice::cli
