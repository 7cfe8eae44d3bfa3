#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/error_mapping.h"
#include "server/api/field_checks.h"
#include "server/api/handlers.h"
#include "server/api/settle_parser.h"
#include "server/model/error.h"
#include "sluice/v1/settle.pb.h"

namespace sluice::api {
namespace {

using SettleResult = absl::StatusOr<broker::SettleOutcome>;
using ExtendResult = absl::StatusOr<broker::ExtendOutcome>;

// Failures found here and in the shard, in order of the request.
template <typename Response>
void AddFailures(UnaryCall& call, const ParsedReceipts& parsed,
                 const std::vector<broker::SettleFailure>& of_shard, Response* response) {
  std::vector<std::pair<int32_t, const absl::Status*>> all;
  for (const auto& failure : parsed.failures) all.emplace_back(failure.index, &failure.status);
  for (const auto& failure : of_shard) {
    all.emplace_back(parsed.IndexOf(failure.index), &failure.status);
  }
  std::sort(all.begin(), all.end());
  for (const auto& [index, status] : all) {
    auto* failure = response->add_failures();
    failure->set_index(index);
    ToItemStatus(*status, failure->mutable_status());
    if (RpcObserver* observer = call.api().observer) {
      observer->OnSettleFailure(call.method(), parsed.queue, ReasonOf(*status));
    }
  }
}

void ReplyAck(UnaryCall& call, const ParsedReceipts& parsed, const SettleResult& result) {
  if (!result.ok()) return call.Fail(result.status());
  v1::AckResponse response;
  AddFailures(call, parsed, result->failures, &response);
  response.set_acked(result->settled);
  call.Reply(response);
}

void ReplyNack(UnaryCall& call, const ParsedReceipts& parsed, const SettleResult& result) {
  if (!result.ok()) return call.Fail(result.status());
  v1::NackResponse response;
  AddFailures(call, parsed, result->failures, &response);
  call.Reply(response);
}

using ReplySettled = void (*)(UnaryCall&, const ParsedReceipts&, const SettleResult&);

// `parsed.receipts` have become `items` one to one. Goes to the shard also when nothing is left to
// settle: it knows whether the queue exists.
void SubmitSettle(const std::shared_ptr<UnaryCall>& call, ParsedReceipts parsed,
                  std::vector<broker::SettleItem> items, ReplySettled reply) {
  broker::SettleCommand command;
  command.queue = parsed.queue;
  command.items = std::move(items);
  command.done = AnswerOnLoop<SettleResult>(
      call, [parsed = std::move(parsed), reply](UnaryCall& call, SettleResult result) {
        reply(call, parsed, result);
      });
  call->api().sink->Submit(std::move(command));
}

absl::StatusOr<broker::SettleItem> ToSettleItem(const v1::NackItem& item, int index) {
  const auto path = [index](const char* field) {
    return absl::StrCat("items[", index, "].", field);
  };
  if (!item.reason().empty()) return MakeNotBuiltError(path("reason"));
  if (item.has_delay() && item.action() != v1::NACK_ACTION_DELAY) {
    return MakeFieldError(path("delay"), "goes with the action DELAY only");
  }
  broker::SettleItem settle;
  switch (item.action()) {
    case v1::NACK_ACTION_UNSPECIFIED:
    case v1::NACK_ACTION_RETRY: settle.action = broker::SettleAction::kRetry; return settle;
    case v1::NACK_ACTION_DISCARD: settle.action = broker::SettleAction::kDiscard; return settle;
    case v1::NACK_ACTION_RELEASE: settle.action = broker::SettleAction::kRelease; return settle;
    case v1::NACK_ACTION_DEAD_LETTER:
      return MakeNotBuiltError(path("action"));
    case v1::NACK_ACTION_DELAY: {
      settle.action = broker::SettleAction::kDelay;
      auto delay_ms = ToMs(path("delay"), item.delay(), 0, kDelayMsMax);
      if (!delay_ms.ok()) return delay_ms.status();
      settle.delay_ms = *delay_ms;
      return settle;
    }
    case v1::NackAction_INT_MIN_SENTINEL_DO_NOT_USE_:
    case v1::NackAction_INT_MAX_SENTINEL_DO_NOT_USE_: break;
  }
  return MakeFieldError(path("action"), "not a known action");
}

}  // namespace

void HandleAck(const std::shared_ptr<UnaryCall>& call) {
  auto parsed = ParseAckRequest(call->request(), call->api().receipts);
  if (!parsed.ok()) return call->Fail(parsed.status());
  std::vector<broker::SettleItem> items;
  items.reserve(parsed->receipts.size());
  for (const Receipt& receipt : parsed->receipts) items.push_back({receipt});
  SubmitSettle(call, *std::move(parsed), std::move(items), &ReplyAck);
}

void HandleNack(const std::shared_ptr<UnaryCall>& call) {
  v1::NackRequest request;
  if (!call->Parse(&request)) return;
  if (auto status = CheckName("queue", request.queue()); !status.ok()) return call->Fail(status);
  ReceiptCollector collector(call->api().receipts);
  std::vector<broker::SettleItem> items;
  for (int i = 0; i < request.items_size(); ++i) {
    const v1::NackItem& item = request.items(i);
    auto settle = ToSettleItem(item, i);
    if (!settle.ok()) return call->Fail(settle.status());
    if (collector.Add(item.receipt())) items.push_back(*settle);
  }
  if (auto status = collector.CheckCount("items"); !status.ok()) return call->Fail(status);
  ParsedReceipts parsed = collector.Take();
  parsed.queue = request.queue();
  for (size_t i = 0; i < items.size(); ++i) items[i].receipt = parsed.receipts[i];
  SubmitSettle(call, std::move(parsed), std::move(items), &ReplyNack);
}

void HandleExtendLease(const std::shared_ptr<UnaryCall>& call) {
  v1::ExtendLeaseRequest request;
  if (!call->Parse(&request)) return;
  if (auto status = CheckName("queue", request.queue()); !status.ok()) return call->Fail(status);
  const auto lease_ms = LeaseMs(request.has_lease(), request.lease());
  if (!lease_ms.ok()) return call->Fail(lease_ms.status());
  ReceiptCollector collector(call->api().receipts);
  for (const std::string& receipt : request.receipts()) collector.Add(receipt);
  if (auto status = collector.CheckCount("receipts"); !status.ok()) return call->Fail(status);
  ParsedReceipts parsed = collector.Take();
  parsed.queue = request.queue();

  broker::ExtendLeaseCommand command;
  command.queue = parsed.queue;
  command.receipts = std::move(parsed.receipts);
  command.lease_ms = *lease_ms;
  const auto reply = [parsed = std::move(parsed)](UnaryCall& call, ExtendResult result) {
    if (!result.ok()) return call.Fail(result.status());
    v1::ExtendLeaseResponse response;
    AddFailures(call, parsed, result->failures, &response);
    if (result->lease_expires_at_ms > 0) {
      SetTimestamp(result->lease_expires_at_ms, response.mutable_lease_expires_at());
    }
    call.Reply(response);
  };
  command.done = AnswerOnLoop<ExtendResult>(call, std::move(reply));
  call->api().sink->Submit(std::move(command));
}

}  // namespace sluice::api
