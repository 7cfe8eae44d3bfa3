#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/field_checks.h"
#include "server/api/handlers.h"
#include "server/api/paging.h"
#include "server/api/queue_codec.h"
#include "server/model/error.h"
#include "sluice/v1/queue_admin.pb.h"
#include "sluice/v1/server_admin.pb.h"

namespace sluice::api {
namespace {

constexpr char kListQueues[] = "ListQueues";

using InfoResult = absl::StatusOr<broker::QueueInfo>;

template <typename Response>
void ReplyQueue(UnaryCall& call, InfoResult result) {
  if (!result.ok()) return call.Fail(result.status());
  Response response;
  ToProto(*result, response.mutable_queue());
  call.Reply(response);
}

}  // namespace

void HandleCreateQueue(const std::shared_ptr<UnaryCall>& call) {
  v1::CreateQueueRequest request;
  if (!call->Parse(&request)) return;
  const auto& name = request.config().name();
  if (auto status = CheckNewName("config.name", name); !status.ok()) return call->Fail(status);
  auto change = ToConfigChange(request.config());
  if (!change.ok()) return call->Fail(change.status());
  broker::CreateQueueCommand command;
  command.config = *std::move(change);
  using Result = absl::StatusOr<broker::CreateQueueOutcome>;
  command.done = AnswerOnLoop<Result>(call, [](UnaryCall& call, Result result) {
    if (!result.ok()) return call.Fail(result.status());
    v1::CreateQueueResponse response;
    ToProto(result->queue, response.mutable_queue());
    response.set_created(result->created);
    call.Reply(response);
  });
  call->api().sink->Submit(std::move(command));
}

void HandleGetQueue(const std::shared_ptr<UnaryCall>& call) {
  v1::GetQueueRequest request;
  if (!call->Parse(&request)) return;
  if (auto status = CheckName("queue", request.queue()); !status.ok()) return call->Fail(status);
  broker::GetQueueCommand command;
  command.queue = request.queue();
  command.done = AnswerOnLoop<InfoResult>(call, &ReplyQueue<v1::GetQueueResponse>);
  call->api().sink->Submit(std::move(command));
}

void HandleListQueues(const std::shared_ptr<UnaryCall>& call) {
  v1::ListQueuesRequest request;
  if (!call->Parse(&request)) return;
  if (auto status = CheckGlob("name_glob", request.name_glob()); !status.ok()) {
    return call->Fail(status);
  }
  const auto limit = CountOr("page_size", request.page_size(), kPageSizeDefault, kPageSizeMax);
  if (!limit.ok()) return call->Fail(limit.status());
  const std::string listing = absl::StrCat(kListQueues, "/", request.name_glob());
  auto after = call->api().page_tokens.Decode(listing, request.page_token());
  if (!after.ok()) return call->Fail(after.status());
  broker::ListQueuesCommand command;
  command.name_glob = request.name_glob();
  command.after_name = *std::move(after);
  command.limit = static_cast<int32_t>(*limit);
  using Result = absl::StatusOr<broker::ListQueuesOutcome>;
  command.done = AnswerOnLoop<Result>(call, [listing](UnaryCall& call, Result result) {
    if (!result.ok()) return call.Fail(result.status());
    v1::ListQueuesResponse response;
    PageSize size;
    bool cut = false;
    for (const auto& info : result->queues) {
      v1::Queue queue;
      ToProto(info, &queue);
      cut = !size.Fits(queue.ByteSizeLong());
      if (cut) break;
      *response.add_queues() = std::move(queue);
    }
    if (cut || result->more) {
      const auto& last = cut ? response.queues(response.queues_size() - 1).config().name()
                             : result->last_name;
      response.set_next_page_token(call.api().page_tokens.Encode(listing, last));
    }
    call.Reply(response);
  });
  call->api().sink->Submit(std::move(command));
}

void HandleUpdateQueue(const std::shared_ptr<UnaryCall>& call) {
  v1::UpdateQueueRequest request;
  if (!call->Parse(&request)) return;
  const auto& name = request.config().name();
  if (auto status = CheckName("config.name", name); !status.ok()) return call->Fail(status);
  auto change = ToConfigChange(request.config());
  if (!change.ok()) return call->Fail(change.status());
  broker::UpdateQueueCommand command;
  command.config = *std::move(change);
  if (auto status = ApplyMask(request.update_mask(), &command.config, &command.replace);
      !status.ok()) {
    return call->Fail(status);
  }
  const auto revision = RevisionOf(request.etag());
  if (!revision.ok()) return call->Fail(revision.status());
  command.if_revision = *revision;
  command.done = AnswerOnLoop<InfoResult>(call, &ReplyQueue<v1::UpdateQueueResponse>);
  call->api().sink->Submit(std::move(command));
}

void HandleDeleteQueue(const std::shared_ptr<UnaryCall>& call) {
  v1::DeleteQueueRequest request;
  if (!call->Parse(&request)) return;
  if (auto status = CheckName("queue", request.queue()); !status.ok()) return call->Fail(status);
  const auto revision = RevisionOf(request.etag());
  if (!revision.ok()) return call->Fail(revision.status());
  broker::DeleteQueueCommand command;
  command.queue = request.queue();
  command.if_empty = request.if_empty();
  command.if_unused = request.if_unused();
  command.if_revision = *revision;
  command.done = AnswerOnLoop<absl::Status>(call, [](UnaryCall& call, absl::Status result) {
    if (!result.ok()) return call.Fail(result);
    call.Reply(v1::DeleteQueueResponse());
  });
  call->api().sink->Submit(std::move(command));
}

void HandlePurgeQueue(const std::shared_ptr<UnaryCall>& call) {
  v1::PurgeQueueRequest request;
  if (!call->Parse(&request)) return;
  if (auto status = CheckName("queue", request.queue()); !status.ok()) return call->Fail(status);
  broker::PurgeQueueCommand command;
  command.queue = request.queue();
  command.dry_run = request.dry_run();
  command.include_leased = request.include_leased();
  using Result = absl::StatusOr<int64_t>;
  command.done = AnswerOnLoop<Result>(call, [](UnaryCall& call, Result result) {
    if (!result.ok()) return call.Fail(result.status());
    v1::PurgeQueueResponse response;
    response.set_purged(*result);
    call.Reply(response);
  });
  call->api().sink->Submit(std::move(command));
}

namespace {

// `Request` and `Response` are those of one of the two calls.
template <typename Request, typename Response>
void SetPaused(const std::shared_ptr<UnaryCall>& call, bool paused) {
  Request request;
  if (!call->Parse(&request)) return;
  if (auto status = CheckName("queue", request.queue()); !status.ok()) return call->Fail(status);
  broker::PauseQueueCommand command;
  command.queue = request.queue();
  command.paused = paused;
  command.done = AnswerOnLoop<InfoResult>(call, &ReplyQueue<Response>);
  call->api().sink->Submit(std::move(command));
}

}  // namespace

void HandlePauseQueue(const std::shared_ptr<UnaryCall>& call) {
  SetPaused<v1::PauseQueueRequest, v1::PauseQueueResponse>(call, true);
}

void HandleResumeQueue(const std::shared_ptr<UnaryCall>& call) {
  SetPaused<v1::ResumeQueueRequest, v1::ResumeQueueResponse>(call, false);
}

void HandleGetServerInfo(const std::shared_ptr<UnaryCall>& call) {
  v1::GetServerInfoRequest request;
  if (!call->Parse(&request)) return;
  const ServerOptions& options = call->api().options;
  v1::GetServerInfoResponse response;
  response.set_version(options.version);
  response.set_server_id(options.server_id);
  SetTimestamp(call->api().start_wall_ms, response.mutable_start_time());
  for (const char* feature :
       {"publish_stream", "producers", "subscribe", "receive", "consume", "transact", "exchanges",
        "temporary_queues", "messages", "redrive", "consumers", "definitions"}) {
    response.add_features(feature);
  }
  auto& limits = *response.mutable_limits();
  limits["body_bytes"] = options.body_bytes_max;
  limits["request_bytes"] = kRequestBytesMax;
  limits["response_bytes"] = kResponseBytesMax;
  limits["publish_messages"] = kMessagesPerPublishMax;
  limits["attributes"] = kAttributesMax;
  limits["attributes_bytes"] = kAttributesBytesMax;
  limits["settle_receipts"] = kReceiptsPerCallMax;
  limits["in_flight_messages"] = kMaxInFlightCeiling;
  limits["in_flight_bytes"] = kMaxBytesInFlightCeiling;
  limits["publish_stream_in_flight_messages"] = options.stream_messages_max;
  limits["publish_stream_in_flight_bytes"] = options.stream_bytes_max;
  limits["lease_ms"] = kLeaseMsMax;
  limits["receive_wait_ms"] = kReceiveWaitMsMax;
  limits["streams"] = options.streams_max;
  limits["streams_per_connection"] = options.concurrent_streams_max;
  limits["receives"] = options.receives_max;
  limits["queues"] = static_cast<int64_t>(kQueuesMax);
  limits["page_items"] = kPageSizeMax;
  for (const std::string& warning : options.warnings) response.add_warnings(warning);
  call->Reply(response);
}

absl::Status NotBuiltCall(const RpcMethod& method) {
  return MakeNotBuiltError(absl::StrCat(method.service, "/", method.method));
}

void HandleNotBuilt(const std::shared_ptr<UnaryCall>& call) {
  call->Fail(NotBuiltCall(call->method()));
}

}  // namespace sluice::api
