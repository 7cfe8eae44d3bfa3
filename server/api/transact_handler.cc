#include <utility>
#include <vector>

#include "server/api/handlers.h"
#include "server/api/publish_results.h"
#include "server/api/transact_parser.h"
#include "server/model/ids.h"
#include "sluice/v1/settle.pb.h"

namespace sluice::api {
namespace {

using Result = absl::StatusOr<std::vector<std::vector<broker::PublishedMessage>>>;

void Answer(UnaryCall& call, const Result& result) {
  if (!result.ok()) return call.Fail(result.status());
  v1::TransactResponse response;
  for (const auto& messages : *result) {
    v1::PublishResponse* publish = response.add_publishes();
    for (const broker::PublishedMessage& message : messages) {
      v1::PublishResult* out = publish->add_results();
      if (HasId(message)) out->set_message_id(FormatMessageId(message.id));
      out->set_duplicate(message.duplicate);
      out->set_routed_queues(message.routed_queues);
    }
  }
  call.Reply(response);
}

}  // namespace

void HandleTransact(const std::shared_ptr<UnaryCall>& call) {
  ApiContext& api = call->api();
  auto command = ParseTransactRequest(call->request(), api.rules, api.receipts);
  if (!command.ok()) return call->Fail(command.status());
  int64_t bytes = 0;
  for (const broker::Publish& publish : command->publishes) {
    for (const auto& message : publish.messages) bytes += message.payload.size();
  }
  command->done = AnswerOnLoop<Result>(
      call, [share = BudgetShare(&api.budget, bytes)](UnaryCall& call, const Result& result) {
        Answer(call, result);
      });
  call->loop().Submit(*std::move(command));
}

}  // namespace sluice::api
