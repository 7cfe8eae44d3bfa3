// `sluice receive`
#include <iostream>

#include "client/cli/commands.h"
#include "client/cli/output_file.h"
#include "client/cpp/time.h"

namespace sluice::cli {
namespace {

using Queues = v1::QueueService::StubInterface;

struct ReceiveOptions {
  v1::ReceiveRequest request;
  absl::Duration wait;
  absl::Duration lease;
  bool ack = false;
  bool auto_ack = false;
};

// After the bodies were written: a message that nobody saw must not be acked.
int AckAll(Context& context, const std::string& queue, const v1::ReceiveResponse& received) {
  v1::AckRequest ack;
  ack.set_queue(queue);
  for (const v1::Delivery& delivery : received.deliveries()) ack.add_receipts(delivery.receipt());
  const auto response = context.client().Call(&Queues::Ack, ack);
  if (!response.ok()) return context.Fail(response.status());
  for (const v1::ItemFailure& failure : response->failures()) {
    context.Fail(client::FromItem(failure.status()));
  }
  return response->failures_size() > 0 ? kExitRefused : kExitOk;
}

int Receive(Context& context, ReceiveOptions& options) {
  v1::ReceiveRequest& request = options.request;
  request.set_auto_ack(options.auto_ack);
  if (options.wait > absl::ZeroDuration()) {
    *request.mutable_wait() = client::ToProto(options.wait);
  }
  if (options.lease > absl::ZeroDuration()) {
    *request.mutable_lease() = client::ToProto(options.lease);
  }
  const auto response =
      context.client().Call(&Queues::Receive, request, context.timeout + options.wait);
  if (!response.ok()) return context.Fail(response.status());
  if (response->deliveries().empty()) return kExitNothing;
  OutputFile output;
  for (const v1::Delivery& delivery : response->deliveries()) {
    output.AppendLine(context.json ? ToJson(delivery, false) : delivery.message().body())
        .IgnoreError();  // Flush tells
  }
  if (const absl::Status written = output.Flush(); !written.ok()) return context.Fail(written);
  return options.ack ? AckAll(context, request.queue(), *response) : kExitOk;
}

}  // namespace

void AddReceiveCommand(CLI::App& app, Context& context) {
  auto options = std::make_shared<ReceiveOptions>();
  CLI::App* command =
      AddCommand(app, context, "receive", "Take messages once; exit code 4 if there are none",
                 "  sluice receive orders --ack\n"
                 "  sluice receive orders --count 10 --wait 30s --json\n"
                 "  receipt=$(sluice receive orders --json | jq -r .receipt)\n",
                 [&context, options] { return Receive(context, *options); });
  command->add_option("queue", *options->request.mutable_queue(), "Name of the queue")->required();
  command
      ->add_option_function<int>(
          "--count,-n", [options](int count) { options->request.set_max_messages(count); },
          "Messages at most [1]")
      ->check(CLI::Range(1, 1000));
  AddDuration(*command, "--wait", &options->wait, "Wait this long for a first one [0]");
  AddLease(*command, &options->lease, "Time to ack them [the queue's]");
  CLI::Option* ack = command->add_flag("--ack", options->ack, "Ack them after writing them out");
  command
      ->add_flag("--auto-ack", options->auto_ack,
                 "The server acks as it hands out: fast, but what gets lost on the way is lost")
      ->excludes(ack);
}

}  // namespace sluice::cli
