#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/exchange_codec.h"
#include "server/api/field_checks.h"
#include "server/api/handlers.h"
#include "server/api/paging.h"
#include "server/model/error.h"
#include "sluice/v1/routing.pb.h"

namespace sluice::api {
namespace {

using ExchangeResult = absl::StatusOr<Exchange>;

template <typename Response>
void ReplyExchange(UnaryCall& call, ExchangeResult result) {
  if (!result.ok()) return call.Fail(result.status());
  Response response;
  ToProto(*result, response.mutable_exchange());
  call.Reply(response);
}

}  // namespace

void HandleCreateExchange(const std::shared_ptr<UnaryCall>& call) {
  v1::CreateExchangeRequest request;
  if (!call->Parse(&request)) return;
  const std::string& name = request.exchange().name();
  if (auto status = CheckNewName("exchange.name", name); !status.ok()) return call->Fail(status);
  auto change = ToExchangeChange("exchange", request.exchange());
  if (!change.ok()) return call->Fail(change.status());
  if (!change->type) return call->Fail(MakeFieldError("exchange.type", "must be set"));
  broker::CreateExchangeCommand command;
  command.exchange = *std::move(change);
  using Result = absl::StatusOr<broker::CreateExchangeCommand::Outcome>;
  command.done = AnswerOnLoop<Result>(call, [](UnaryCall& call, Result result) {
    if (!result.ok()) return call.Fail(result.status());
    v1::CreateExchangeResponse response;
    ToProto(result->exchange, response.mutable_exchange());
    response.set_created(result->created);
    call.Reply(response);
  });
  call->api().sink->Submit(std::move(command));
}

void HandleGetExchange(const std::shared_ptr<UnaryCall>& call) {
  v1::GetExchangeRequest request;
  if (!call->Parse(&request)) return;
  if (auto status = CheckName("exchange", request.exchange()); !status.ok()) {
    return call->Fail(status);
  }
  broker::GetExchangeCommand command;
  command.exchange = request.exchange();
  command.done = AnswerOnLoop<ExchangeResult>(call, &ReplyExchange<v1::GetExchangeResponse>);
  call->api().sink->Submit(std::move(command));
}

void HandleListExchanges(const std::shared_ptr<UnaryCall>& call) {
  v1::ListExchangesRequest request;
  if (!call->Parse(&request)) return;
  if (auto status = CheckGlob("name_glob", request.name_glob()); !status.ok()) {
    return call->Fail(status);
  }
  const auto limit = CountOr("page_size", request.page_size(), kPageSizeDefault, kPageSizeMax);
  if (!limit.ok()) return call->Fail(limit.status());
  const std::string listing = absl::StrCat("ListExchanges/", request.name_glob());
  auto after = call->api().page_tokens.Decode(listing, request.page_token());
  if (!after.ok()) return call->Fail(after.status());
  broker::ListExchangesCommand command;
  command.name_glob = request.name_glob();
  command.after_name = *std::move(after);
  command.limit = static_cast<int32_t>(*limit);
  using Result = absl::StatusOr<broker::ListExchangesCommand::Outcome>;
  command.done = AnswerOnLoop<Result>(call, [listing](UnaryCall& call, Result result) {
    if (!result.ok()) return call.Fail(result.status());
    v1::ListExchangesResponse response;
    PageSize size;
    bool more = result->more;
    for (const Exchange& exchange : result->exchanges) {
      v1::Exchange entry;
      ToProto(exchange, &entry);
      if (!size.Fits(entry.ByteSizeLong())) {
        more = true;
        break;
      }
      *response.add_exchanges() = std::move(entry);
    }
    if (more && response.exchanges_size() > 0) {
      const std::string& last = response.exchanges(response.exchanges_size() - 1).name();
      response.set_next_page_token(call.api().page_tokens.Encode(listing, last));
    }
    call.Reply(response);
  });
  call->api().sink->Submit(std::move(command));
}

void HandleUpdateExchange(const std::shared_ptr<UnaryCall>& call) {
  v1::UpdateExchangeRequest request;
  if (!call->Parse(&request)) return;
  auto change = ToExchangeChange("exchange", request.exchange());
  if (!change.ok()) return call->Fail(change.status());
  broker::UpdateExchangeCommand command;
  command.exchange = *std::move(change);
  if (auto status = ApplyMask(request.update_mask(), &command.exchange, &command.replace);
      !status.ok()) {
    return call->Fail(status);
  }
  command.done = AnswerOnLoop<ExchangeResult>(call, &ReplyExchange<v1::UpdateExchangeResponse>);
  call->api().sink->Submit(std::move(command));
}

void HandleDeleteExchange(const std::shared_ptr<UnaryCall>& call) {
  v1::DeleteExchangeRequest request;
  if (!call->Parse(&request)) return;
  if (auto status = CheckName("exchange", request.exchange()); !status.ok()) {
    return call->Fail(status);
  }
  broker::DeleteExchangeCommand command;
  command.exchange = request.exchange();
  command.done = AnswerOnLoop<absl::Status>(call, [](UnaryCall& call, absl::Status result) {
    if (!result.ok()) return call.Fail(result);
    call.Reply(v1::DeleteExchangeResponse());
  });
  call->api().sink->Submit(std::move(command));
}

void HandleCreateBinding(const std::shared_ptr<UnaryCall>& call) {
  v1::CreateBindingRequest request;
  if (!call->Parse(&request)) return;
  auto binding = ToBinding("binding", request.binding());
  if (!binding.ok()) return call->Fail(binding.status());
  broker::CreateBindingCommand command;
  command.binding = *binding;
  using Result = absl::StatusOr<bool>;
  command.done = AnswerOnLoop<Result>(
      call, [binding = *std::move(binding)](UnaryCall& call, Result created) {
        if (!created.ok()) return call.Fail(created.status());
        v1::CreateBindingResponse response;
        ToProto(binding, response.mutable_binding());
        response.set_created(*created);
        call.Reply(response);
      });
  call->api().sink->Submit(std::move(command));
}

void HandleListBindings(const std::shared_ptr<UnaryCall>& call) {
  v1::ListBindingsRequest request;
  if (!call->Parse(&request)) return;
  if (!request.exchange().empty()) {
    auto status = CheckName("exchange", request.exchange());
    if (!status.ok()) return call->Fail(status);
  }
  const auto limit = CountOr("page_size", request.page_size(), kPageSizeDefault, kPageSizeMax);
  if (!limit.ok()) return call->Fail(limit.status());
  const std::string listing = absl::StrCat("ListBindings/", request.exchange());
  auto cursor = call->api().page_tokens.Decode(listing, request.page_token());
  if (!cursor.ok()) return call->Fail(cursor.status());
  broker::ListBindingsCommand command;
  command.exchange = request.exchange();
  command.cursor = *std::move(cursor);
  // The shard's cursor names the end of what it answered, so a page cannot be cut here: as many as
  // surely fit, each with all the headers that it may have.
  constexpr int64_t kBindingBytesMax = kAttributesBytesMax + 2 * kKiB;
  constexpr int64_t kBindingsPerPageMax = kResponseBytesMax / kBindingBytesMax;
  command.limit = static_cast<int32_t>(std::min(*limit, kBindingsPerPageMax));
  using Result = absl::StatusOr<broker::ListBindingsCommand::Outcome>;
  command.done = AnswerOnLoop<Result>(call, [listing](UnaryCall& call, Result result) {
    if (!result.ok()) return call.Fail(result.status());
    v1::ListBindingsResponse response;
    for (const Binding& binding : result->bindings) ToProto(binding, response.add_bindings());
    if (!result->next_cursor.empty()) {
      response.set_next_page_token(call.api().page_tokens.Encode(listing, result->next_cursor));
    }
    call.Reply(response);
  });
  call->api().sink->Submit(std::move(command));
}

void HandleDeleteBinding(const std::shared_ptr<UnaryCall>& call) {
  v1::DeleteBindingRequest request;
  if (!call->Parse(&request)) return;
  auto binding = ToBinding("binding", request.binding());
  if (!binding.ok()) return call->Fail(binding.status());
  broker::DeleteBindingCommand command;
  command.binding = *std::move(binding);
  command.done = AnswerOnLoop<absl::Status>(call, [](UnaryCall& call, absl::Status result) {
    if (!result.ok()) return call.Fail(result);
    call.Reply(v1::DeleteBindingResponse());
  });
  call->api().sink->Submit(std::move(command));
}

}  // namespace sluice::api
