#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "server/api/delivery_assembly.h"
#include "server/api/field_checks.h"
#include "server/api/handlers.h"
#include "server/model/error.h"
#include "sluice/v1/delivery.pb.h"

namespace sluice::api {
namespace {

constexpr int64_t kReceiveBytesDefault = 2 * kMiB;
// Clients that read have done so by then.
constexpr int64_t kMemoryRetryMs = 1 * kSecondMs;

using Result = absl::StatusOr<std::vector<broker::OutgoingDelivery>>;

absl::StatusOr<broker::ReceiveCommand> ToCommand(const v1::ReceiveRequest& request) {
  if (auto status = CheckName("queue", request.queue()); !status.ok()) return status;
  if (auto status = CheckShortString("consumer", request.consumer()); !status.ok()) return status;
  const auto messages = CountOr("max_messages", request.max_messages(), kReceiveMessagesDefault,
                                kReceiveMessagesMax);
  if (!messages.ok()) return messages.status();
  const auto bytes =
      CountOr("max_bytes", request.max_bytes(), kReceiveBytesDefault, kResponseBytesMax);
  if (!bytes.ok()) return bytes.status();
  const auto wait_ms = ToMs("wait", request.wait(), 0, kReceiveWaitMsMax);
  if (!wait_ms.ok()) return wait_ms.status();
  const auto lease_ms = LeaseMs(request.has_lease(), request.lease());
  if (!lease_ms.ok()) return lease_ms.status();
  broker::ReceiveCommand command;
  command.queue = request.queue();
  command.consumer = request.consumer();
  command.max_messages = static_cast<int32_t>(*messages);
  command.max_bytes = *bytes;
  command.wait_ms = *wait_ms;
  command.lease_ms = *lease_ms;
  command.auto_ack = request.auto_ack();
  return command;
}

std::vector<Receipt> ReceiptsOf(const std::vector<broker::OutgoingDelivery>& deliveries,
                                size_t from) {
  std::vector<Receipt> receipts;
  for (size_t i = from; i < deliveries.size(); ++i) receipts.push_back(deliveries[i].receipt);
  return receipts;
}

void ReportWritten(ApiContext& api, std::vector<Receipt> receipts, bool auto_ack, bool written) {
  if (receipts.empty() || (written && !auto_ack)) return;
  api.sink->Submit(broker::ReceiveWrittenCommand{std::move(receipts), auto_ack, written});
}

// Too many answers wait for clients that do not read: what this one would carry goes to others.
void RefuseAnswer(UnaryCall& call, const Result& result, bool auto_ack) {
  ReportWritten(call.api(), ReceiptsOf(*result, 0), auto_ack, false);
  call.Fail(WithRetryAfter(
      MakeError(ErrorReason::kMemoryFull,
                "answers to other Receive calls wait to be read and fill the server's memory"),
      kMemoryRetryMs));
}

void Answer(UnaryCall& call, const std::string& queue, bool auto_ack, const Result& result) {
  if (!result.ok()) return call.Fail(result.status());
  ApiContext& api = call.api();
  if (!result->empty() &&
      api.receive_bytes.load(std::memory_order_relaxed) >= api.options.receive_bytes_max) {
    return RefuseAnswer(call, result, auto_ack);
  }
  DeliveryAssembly assembly(queue, auto_ack, &api.receipts);
  size_t taken = 0;
  while (taken < result->size() && assembly.Add((*result)[taken])) ++taken;
  // max_bytes counts messages; with their envelopes they may still be too many for one response.
  ReportWritten(api, ReceiptsOf(*result, taken), auto_ack, false);
  std::vector<Receipt> receipts = ReceiptsOf(*result, 0);
  receipts.resize(taken);
  int64_t bytes = 0;
  for (size_t i = 0; i < taken; ++i) bytes += (*result)[i].payload.size();
  api.receive_bytes.fetch_add(bytes, std::memory_order_relaxed);
  call.OnWritten([&api, receipts = std::move(receipts), auto_ack, bytes](bool written) mutable {
    api.receive_bytes.fetch_sub(bytes, std::memory_order_relaxed);
    ReportWritten(api, std::move(receipts), auto_ack, written);
  });
  call.Reply(assembly.Finish());
}

}  // namespace

void HandleReceive(const std::shared_ptr<UnaryCall>& call) {
  v1::ReceiveRequest request;
  if (!call->Parse(&request)) return;
  auto command = ToCommand(request);
  if (!command.ok()) return call->Fail(command.status());
  ApiContext& api = call->api();
  auto slot = std::make_unique<StreamSlot>();
  if (auto status = slot->TakeReceive(&api); !status.ok()) return call->Fail(status);
  command->call_id = api.next_receive_id.fetch_add(1, std::memory_order_relaxed);
  command->wait_ms = std::min(command->wait_ms, call->WaitMsMax());
  broker::CancelReceiveCommand cancel{command->queue, command->call_id};
  command->done = AnswerOnLoop<Result>(
      call, [queue = command->queue, auto_ack = command->auto_ack, slot = std::move(slot)](
                UnaryCall& call, const Result& result) { Answer(call, queue, auto_ack, result); });
  api.sink->Submit(*std::move(command));
  // Behind the command, so that there is something to cancel.
  call->OnCancelled([&api, cancel = std::move(cancel)] { api.sink->Submit(cancel); });
}

}  // namespace sluice::api
