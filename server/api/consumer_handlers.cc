#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/api/field_checks.h"
#include "server/api/handlers.h"
#include "server/api/paging.h"
#include "server/model/error.h"
#include "sluice/v1/consumer_admin.pb.h"

namespace sluice::api {
namespace {

void ToProto(const broker::ConsumerInfo& info, v1::Consumer* out) {
  out->set_consumer_id(absl::StrCat(info.id));
  out->set_consumer(info.consumer);
  out->set_queue(info.queue);
  out->set_principal(info.principal);
  out->set_peer(info.peer);
  out->set_in_flight(info.in_flight);
  out->set_bytes_in_flight(info.bytes_in_flight);
  out->set_active(info.active);
  SetTimestamp(info.connect_ms, out->mutable_connect_time());
}

}  // namespace

void HandleListConsumers(const std::shared_ptr<UnaryCall>& call) {
  v1::ListConsumersRequest request;
  if (!call->Parse(&request)) return;
  if (!request.queue().empty()) {
    if (auto status = CheckName("queue", request.queue()); !status.ok()) return call->Fail(status);
  }
  const auto limit = CountOr("page_size", request.page_size(), kPageSizeDefault, kPageSizeMax);
  if (!limit.ok()) return call->Fail(limit.status());
  const std::string listing = absl::StrCat("ListConsumers/", request.queue());
  const auto after = call->api().page_tokens.Decode(listing, request.page_token());
  if (!after.ok()) return call->Fail(after.status());
  broker::ListConsumersCommand command;
  command.queue = request.queue();
  // Sealed here as a number, or empty at the start.
  if (!absl::SimpleAtoi(*after, &command.after)) command.after = 0;
  command.limit = static_cast<int32_t>(*limit);
  using Result = absl::StatusOr<broker::ListConsumersCommand::Outcome>;
  command.done = AnswerOnLoop<Result>(call, [listing](UnaryCall& call, Result result) {
    if (!result.ok()) return call.Fail(result.status());
    v1::ListConsumersResponse response;
    PageSize size;
    bool more = result->more;
    for (const auto& info : result->consumers) {
      v1::Consumer entry;
      ToProto(info, &entry);
      if (!size.Fits(entry.ByteSizeLong())) {
        more = true;
        break;
      }
      *response.add_consumers() = std::move(entry);
    }
    if (more && response.consumers_size() > 0) {
      const auto& last = response.consumers(response.consumers_size() - 1).consumer_id();
      response.set_next_page_token(call.api().page_tokens.Encode(listing, last));
    }
    call.Reply(response);
  });
  call->api().sink->Submit(std::move(command));
}

void HandleCloseConsumer(const std::shared_ptr<UnaryCall>& call) {
  v1::CloseConsumerRequest request;
  if (!call->Parse(&request)) return;
  const std::string& text = request.consumer_id();
  if (text.empty()) return call->Fail(MakeFieldError("consumer_id", "must be set"));
  broker::CloseConsumerCommand command;
  // Ids are opaque to clients: one that was never given out is one that is not there.
  if (!absl::SimpleAtoi(text, &command.id) || command.id == 0) {
    return call->Fail(MakeError(ErrorReason::kConsumerNotFound, "there is no such consumer"));
  }
  command.done = AnswerOnLoop<absl::Status>(call, [](UnaryCall& call, absl::Status result) {
    if (!result.ok()) return call.Fail(result);
    call.Reply(v1::CloseConsumerResponse());
  });
  call->api().sink->Submit(std::move(command));
}

}  // namespace sluice::api
