#include <utility>

#include "server/api/field_checks.h"
#include "server/api/handlers.h"
#include "server/api/item_failures.h"
#include "server/api/settle_parser.h"
#include "server/model/error.h"
#include "sluice/v1/settle.pb.h"

namespace sluice::api {
namespace {

using SettleResult = absl::StatusOr<broker::SettleOutcome>;
using ExtendResult = absl::StatusOr<broker::ExtendOutcome>;

void ReplyAck(UnaryCall& call, const ParsedReceipts& parsed, const SettleResult& result) {
  if (!result.ok()) return call.Fail(result.status());
  v1::AckResponse response;
  AddFailures(call, parsed, result->failures, response.mutable_failures());
  response.set_acked(result->settled);
  call.Reply(response);
}

void ReplyNack(UnaryCall& call, const ParsedReceipts& parsed, const SettleResult& result) {
  if (!result.ok()) return call.Fail(result.status());
  v1::NackResponse response;
  AddFailures(call, parsed, result->failures, response.mutable_failures());
  call.Reply(response);
}

using ReplySettled = void (*)(UnaryCall&, const ParsedReceipts&, const SettleResult&);

// Goes to the shard also when nothing is left to settle: it knows whether the queue exists.
void SubmitSettle(const std::shared_ptr<UnaryCall>& call, ParsedSettle settle, ReplySettled reply) {
  broker::SettleCommand command;
  command.queue = settle.receipts.queue;
  command.items = std::move(settle.items);
  command.done = AnswerOnLoop<SettleResult>(
      call, [parsed = std::move(settle.receipts), reply](UnaryCall& call, SettleResult result) {
        reply(call, parsed, result);
      });
  call->loop().Submit(std::move(command));
}

}  // namespace

void HandleAck(const std::shared_ptr<UnaryCall>& call) {
  auto parsed = ParseAckRequest(call->request(), call->api().receipts);
  if (!parsed.ok()) return call->Fail(parsed.status());
  SubmitSettle(call, ToAcks(*std::move(parsed)), &ReplyAck);
}

void HandleNack(const std::shared_ptr<UnaryCall>& call) {
  v1::NackRequest request;
  if (!call->Parse(&request)) return;
  if (auto status = CheckName("queue", request.queue()); !status.ok()) return call->Fail(status);
  auto settle = ToNacks(request, {}, call->api().receipts);
  if (!settle.ok()) return call->Fail(settle.status());
  SubmitSettle(call, *std::move(settle), &ReplyNack);
}

void HandleExtendLease(const std::shared_ptr<UnaryCall>& call) {
  v1::ExtendLeaseRequest request;
  if (!call->Parse(&request)) return;
  if (auto status = CheckName("queue", request.queue()); !status.ok()) return call->Fail(status);
  const auto lease_ms = LeaseMs(request.has_lease(), request.lease());
  if (!lease_ms.ok()) return call->Fail(lease_ms.status());
  auto parsed = ToReceipts(request, {}, call->api().receipts);
  if (!parsed.ok()) return call->Fail(parsed.status());

  broker::ExtendLeaseCommand command;
  command.queue = parsed->queue;
  command.receipts = std::move(parsed->receipts);
  command.lease_ms = *lease_ms;
  const auto reply = [parsed = *std::move(parsed)](UnaryCall& call, ExtendResult result) {
    if (!result.ok()) return call.Fail(result.status());
    v1::ExtendLeaseResponse response;
    AddFailures(call, parsed, result->failures, response.mutable_failures());
    if (result->lease_expires_at_ms > 0) {
      SetTimestamp(result->lease_expires_at_ms, response.mutable_lease_expires_at());
    }
    call.Reply(response);
  };
  command.done = AnswerOnLoop<ExtendResult>(call, std::move(reply));
  call->loop().Submit(std::move(command));
}

}  // namespace sluice::api
