// `sluice move`
#include <algorithm>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/format.h"
#include "client/cpp/time.h"

namespace sluice::cli {
namespace {

using Queues = v1::QueueService::StubInterface;

struct MoveOptions {
  std::string from;
  std::string to;
  bool to_exchange = false;
  int64_t count = 0;  // 0: all
};

// Messages of one step: few enough to finish well within their lease.
constexpr int64_t kStepMessages = 100;

// Publishes and acks in one commit: each message is in one of the two places at any time.
v1::TransactRequest ToMove(const MoveOptions& options, v1::ReceiveResponse* received) {
  v1::TransactRequest request;
  v1::AckRequest& ack = *request.add_acks();
  ack.set_queue(options.from);
  v1::PublishRequest& publish = *request.add_publishes();
  if (options.to_exchange) {
    publish.set_exchange(options.to);
    publish.set_mandatory(true);  // what finds no route stays where it is
  } else {
    publish.set_queue(options.to);
  }
  for (v1::Delivery& delivery : *received->mutable_deliveries()) {
    ack.add_receipts(delivery.receipt());
    v1::Message& message = *publish.add_messages();
    message = std::move(*delivery.mutable_message());
    message.clear_schedule();  // its time has come already
  }
  return request;
}

void Release(Context& context, const MoveOptions& options, const v1::TransactRequest& request) {
  v1::NackRequest nack;
  nack.set_queue(options.from);
  for (const std::string& receipt : request.acks(0).receipts()) {
    v1::NackItem& item = *nack.add_items();
    item.set_receipt(receipt);
    item.set_action(v1::NACK_ACTION_RELEASE);
  }
  // Their leases end by themselves if this does not arrive.
  context.client().Call(&Queues::Nack, nack).status().IgnoreError();
}

int Move(Context& context, const MoveOptions& options) {
  int64_t moved = 0;
  absl::Status status;
  while (options.count == 0 || moved < options.count) {
    v1::ReceiveRequest receive;
    receive.set_queue(options.from);
    const int64_t left = options.count == 0 ? kStepMessages : options.count - moved;
    receive.set_max_messages(static_cast<int32_t>(std::min(left, kStepMessages)));
    auto received = context.client().Call(&Queues::Receive, receive);
    status = received.status();
    if (!status.ok() || received->deliveries().empty()) break;
    const v1::TransactRequest request = ToMove(options, &*received);
    const auto response = context.client().Call(&Queues::Transact, request);
    status = response.status();
    if (!status.ok()) {
      Release(context, options, request);
      break;
    }
    moved += request.acks(0).receipts_size();
  }
  if (context.json) {
    std::cout << absl::StrCat("{\"moved\":", moved, "}") << std::endl;
  } else if (status.ok() || moved > 0) {
    std::cout << "moved " << HumanCount(moved, "message") << std::endl;
  }
  return status.ok() ? kExitOk : context.Fail(status);
}

}  // namespace

void AddMoveCommand(CLI::App& app, Context& context) {
  auto options = std::make_shared<MoveOptions>();
  CLI::App* command = AddCommand(
      app, context, "move",
      "Move the ready messages of a queue to another: none twice, none lost. They are new there: "
      "other ids, attempts from 1.",
      "  sluice move orders orders.slow\n"
      "  sluice move orders events --to-exchange --count 10\n",
      [&context, options] { return Move(context, *options); });
  command->add_option("from", options->from, "Queue to take from")->required();
  command->add_option("to", options->to, "Queue to move to")->required();
  command->add_flag("--to-exchange", options->to_exchange, "The destination is an exchange");
  command->add_option("--count,-n", options->count, "Messages at most [all that are ready]")
      ->check(FromOn(1));
}

}  // namespace sluice::cli
