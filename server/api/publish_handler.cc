#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/handlers.h"
#include "server/api/publish_parser.h"
#include "server/api/publish_results.h"
#include "server/model/error.h"

namespace sluice::api {
namespace {

// By then what is in flight has been synced, or the disk has a problem.
constexpr int64_t kMemoryRetryMs = 100;

}  // namespace

absl::Status AdmitPublish(const ApiContext& api) {
  if (!api.budget.full()) return absl::OkStatus();
  return WithRetryAfter(MakeError(ErrorReason::kMemoryFull,
                                  absl::StrCat("publishes in flight hold ",
                                               api.options.server_bytes_max,
                                               " bytes; try again shortly")),
                        kMemoryRetryMs);
}

void HandlePublish(const std::shared_ptr<UnaryCall>& call) {
  ApiContext& api = call->api();
  auto publish = ParsePublishRequest(call->request(), api.rules);
  if (!publish.ok()) return call->Fail(publish.status());
  publish->wait_when_full_ms = std::min(publish->wait_when_full_ms, call->WaitMsMax());

  int64_t bytes = 0;
  for (const auto& message : publish->messages) bytes += message.payload.size();
  broker::PublishCommand command;
  command.publish = *std::move(publish);
  if (command.publish.wait_when_full_ms > 0) {
    command.caller = api.next_publish_caller.fetch_add(1, std::memory_order_relaxed);
  }
  const uint64_t caller = command.caller;
  using Result = absl::StatusOr<std::vector<broker::PublishedMessage>>;
  command.done = AnswerOnLoop<Result>(
      call, [share = BudgetShare(&api.budget, bytes)](UnaryCall& call, Result result) {
        if (!result.ok()) return call.Fail(result.status());
        call.Reply(PublishResponseBytes(*result));
      });
  if (caller == 0) return call->loop().Submit(std::move(command));
  call->SetLong();
  api.sink->Submit(std::move(command));
  // Behind the command, so that there is something to abandon.
  call->OnCancelled([&api, caller] { api.sink->Submit(broker::AbandonPublishesCommand{caller}); });
}

}  // namespace sluice::api
