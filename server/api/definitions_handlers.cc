#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/definitions_codec.h"
#include "server/api/exchange_codec.h"
#include "server/api/field_checks.h"
#include "server/api/handlers.h"
#include "server/api/queue_codec.h"
#include "server/model/error.h"
#include "sluice/v1/definitions.pb.h"

namespace sluice::api {
void HandleExportDefinitions(const std::shared_ptr<UnaryCall>& call) {
  v1::ExportDefinitionsRequest request;
  if (!call->Parse(&request)) return;
  broker::ExportDefinitionsCommand command;
  command.bytes_max = static_cast<size_t>(kResponseBytesMax);
  using Result = absl::StatusOr<broker::DefinitionsSnapshot>;
  command.done = AnswerOnLoop<Result>(call, [](UnaryCall& call, Result result) {
    if (!result.ok()) return call.Fail(result.status());
    v1::ExportDefinitionsResponse response;
    v1::Definitions& definitions = *response.mutable_definitions();
    for (const QueueConfig& queue : result->queues) ToProto(queue, definitions.add_queues());
    for (const Exchange& exchange : result->exchanges) {
      ToProto(exchange, definitions.add_exchanges());
    }
    for (const Binding& binding : result->bindings) ToProto(binding, definitions.add_bindings());
    // A document cannot be cut into pages.
    if (static_cast<int64_t>(response.ByteSizeLong()) > kResponseBytesMax) {
      return call.Fail(MakeError(
          ErrorReason::kLimitReached,
          absl::StrCat("the definitions are over ", kResponseBytesMax,
                       " bytes; list queues, exchanges and bindings instead")));
    }
    call.Reply(response);
  });
  call->api().sink->Submit(std::move(command));
}

void HandleApplyDefinitions(const std::shared_ptr<UnaryCall>& call) {
  v1::ApplyDefinitionsRequest request;
  if (!call->Parse(&request)) return;
  auto definitions = ToDefinitions(request.definitions());
  if (!definitions.ok()) return call->Fail(definitions.status());
  broker::ApplyDefinitionsCommand command;
  command.definitions = *std::move(definitions);
  command.dry_run = request.dry_run();
  command.prune = request.prune();
  using Result = absl::StatusOr<std::vector<broker::DefinitionChange>>;
  command.done = AnswerOnLoop<Result>(call, [](UnaryCall& call, Result result) {
    if (!result.ok()) return call.Fail(result.status());
    v1::ApplyDefinitionsResponse response;
    ToProto(*result, &response);
    call.Reply(response);
  });
  call->api().sink->Submit(std::move(command));
}

}  // namespace sluice::api
