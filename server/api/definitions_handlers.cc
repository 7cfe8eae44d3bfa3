#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/api/definitions_codec.h"
#include "server/api/exchange_codec.h"
#include "server/api/field_checks.h"
#include "server/api/handlers.h"
#include "server/api/queue_codec.h"
#include "server/model/error.h"
#include "sluice/v1/definitions.pb.h"

namespace sluice::api {
namespace {

// Reads queues, then exchanges, then bindings, a page at a time: the shard has other work between.
// Loop thread only.
class Export : public std::enable_shared_from_this<Export> {
 public:
  explicit Export(std::shared_ptr<UnaryCall> call) : call_(std::move(call)) {}

  void ReadQueues(std::string after) {
    broker::ListQueuesCommand command;
    command.after_name = std::move(after);
    command.limit = kPageSizeMax;
    using Result = absl::StatusOr<broker::ListQueuesOutcome>;
    command.done = AnswerOnLoop<Result>(call_, [self = shared_from_this()](UnaryCall& call,
                                                                           Result result) {
      if (!result.ok()) return call.Fail(result.status());
      for (const broker::QueueInfo& info : result->queues) {
        if (IsTemporary(info.config.name)) continue;
        v1::Queue queue;
        ToProto(info, &queue);
        *self->definitions()->add_queues() = std::move(*queue.mutable_config());
      }
      if (!self->StillFits()) return;
      if (!result->more || result->queues.empty()) return self->ReadExchanges("");
      self->ReadQueues(result->queues.back().config.name);
    });
    call_->api().sink->Submit(std::move(command));
  }

 private:
  // Belongs to its stream, and goes with it.
  static bool IsTemporary(const std::string& queue) {
    return absl::StartsWith(queue, "sluice.");
  }

  v1::Definitions* definitions() { return response_.mutable_definitions(); }

  void ReadExchanges(std::string after) {
    broker::ListExchangesCommand command;
    command.after_name = std::move(after);
    command.limit = kPageSizeMax;
    using Result = absl::StatusOr<broker::ListExchangesCommand::Outcome>;
    command.done = AnswerOnLoop<Result>(call_, [self = shared_from_this()](UnaryCall& call,
                                                                           Result result) {
      if (!result.ok()) return call.Fail(result.status());
      for (const Exchange& exchange : result->exchanges) {
        ToProto(exchange, self->definitions()->add_exchanges());
      }
      if (!self->StillFits()) return;
      if (!result->more || result->exchanges.empty()) return self->ReadBindings("");
      self->ReadExchanges(result->exchanges.back().name);
    });
    call_->api().sink->Submit(std::move(command));
  }

  void ReadBindings(std::string cursor) {
    broker::ListBindingsCommand command;
    command.cursor = std::move(cursor);
    command.limit = kPageSizeMax;
    using Result = absl::StatusOr<broker::ListBindingsCommand::Outcome>;
    command.done = AnswerOnLoop<Result>(call_, [self = shared_from_this()](UnaryCall& call,
                                                                           Result result) {
      if (!result.ok()) return call.Fail(result.status());
      for (const Binding& binding : result->bindings) {
        if (IsTemporary(binding.queue)) continue;
        ToProto(binding, self->definitions()->add_bindings());
      }
      if (!self->StillFits()) return;
      if (result->next_cursor.empty()) return call.Reply(self->response_);
      self->ReadBindings(result->next_cursor);
    });
    call_->api().sink->Submit(std::move(command));
  }

  // False after it has failed the call. A document cannot be cut into pages.
  bool StillFits() {
    if (static_cast<int64_t>(response_.ByteSizeLong()) <= kResponseBytesMax) return true;
    call_->Fail(absl::ResourceExhaustedError(
        absl::StrCat("the definitions are over ", kResponseBytesMax,
                     " bytes; list queues, exchanges and bindings instead")));
    return false;
  }

  const std::shared_ptr<UnaryCall> call_;
  v1::ExportDefinitionsResponse response_;
};

}  // namespace

void HandleExportDefinitions(const std::shared_ptr<UnaryCall>& call) {
  v1::ExportDefinitionsRequest request;
  if (!call->Parse(&request)) return;
  std::make_shared<Export>(call)->ReadQueues("");
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
