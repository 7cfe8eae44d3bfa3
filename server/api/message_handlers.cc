// Calls that look at messages, and those that delete or reschedule what they find.
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/api/field_checks.h"
#include "server/api/handlers.h"
#include "server/api/message_filter.h"
#include "server/api/message_scan.h"
#include "server/api/paging.h"
#include "server/api/stored_message.h"
#include "server/base/strings.h"
#include "server/model/error.h"

namespace sluice::api {
namespace {

using broker::EditMessagesCommand;

// What a page token belongs to: everything in the request that decides what is found.
std::string Listing(std::string_view call, const google::protobuf::Message& request) {
  std::string bytes = absl::StrCat(ToAbsl(call), "/");
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream output(&stream);
    // Maps come in another order each time otherwise.
    output.SetSerializationDeterministic(true);
    request.SerializeToCodedStream(&output);
  }
  return bytes;
}

// ---- ListMessages, GetMessage

struct ListState {
  int64_t page_size = 0;
  int32_t max_body_bytes = 0;
  PageSize size;
  v1::ListMessagesResponse response;
  absl::Status status;
};

// Takes what fits into the page; where the page ends if it is full.
std::optional<ScanCursor> TakePage(const ScanCursor& from, ScanStep& step, ListState* state) {
  for (size_t i = 0; i < step.matches.size(); ++i) {
    const ScanCursor& before = i == 0 ? from : step.after[i - 1];
    if (state->response.messages_size() >= state->page_size) return before;
    v1::StoredMessage entry;
    state->status = ToProto(step.matches[i], state->max_body_bytes, &entry);
    if (!state->status.ok() || !state->size.Fits(entry.ByteSizeLong())) return before;
    *state->response.add_messages() = std::move(entry);
  }
  return std::nullopt;
}

}  // namespace

void HandleListMessages(const std::shared_ptr<UnaryCall>& call) {
  v1::ListMessagesRequest request;
  if (!call->Parse(&request)) return;
  if (auto status = CheckName("queue", request.queue()); !status.ok()) return call->Fail(status);
  auto filter = MessageFilter::Parse("filter", request.filter());
  if (!filter.ok()) return call->Fail(filter.status());
  const auto page = CountOr("page_size", request.page_size(), kPageSizeDefault, kPageSizeMax);
  if (!page.ok()) return call->Fail(page.status());
  if (auto status = CheckMaxBodyBytes(request.max_body_bytes()); !status.ok()) {
    return call->Fail(status);
  }
  const std::string token = request.page_token();
  auto state = std::make_shared<ListState>();
  state->page_size = *page;
  state->max_body_bytes = request.max_body_bytes();
  // Neither page size nor bodies change what is found.
  request.clear_page_token();
  request.clear_page_size();
  request.clear_max_body_bytes();
  std::string listing = Listing("ListMessages", request);
  const auto from = call->api().page_tokens.Decode(listing, token);
  if (!from.ok()) return call->Fail(from.status());

  auto scan = std::make_shared<MessageScan>(call->api().sink, &call->loop(), request.queue(),
                                            *std::move(filter));
  auto at = std::make_shared<ScanCursor>(ScanCursor::Decode(*from));
  const auto step = [state, at](ScanStep& step) {
    auto stop = TakePage(*at, step, state.get());
    *at = step.next;
    return stop;
  };
  const auto end = [call, state, listing](absl::StatusOr<std::optional<ScanCursor>> next) {
    if (!next.ok()) return call->Fail(next.status());
    if (!state->status.ok()) return call->Fail(state->status);
    if (*next) {
      state->response.set_next_page_token(
          call->api().page_tokens.Encode(listing, (*next)->Encode()));
    }
    call->Reply(state->response);
  };
  const ScanCursor start = *at;
  std::make_shared<BoundedScan>(std::move(scan), call->api().clock->WallMs(), step, end)
      ->Run(start);
}

void HandleGetMessage(const std::shared_ptr<UnaryCall>& call) {
  v1::GetMessageRequest request;
  if (!call->Parse(&request)) return;
  if (auto status = CheckName("queue", request.queue()); !status.ok()) return call->Fail(status);
  if (auto status = CheckMaxBodyBytes(request.max_body_bytes()); !status.ok()) {
    return call->Fail(status);
  }
  const auto id = ParseMessageId(request.message_id());
  if (!id) return call->Fail(MakeFieldError("message_id", "not the id of a message"));
  broker::GetMessageCommand command;
  command.queue = request.queue();
  command.id = *id;
  using Result = absl::StatusOr<broker::ListedMessage>;
  command.done = AnswerOnLoop<Result>(
      call, [max_body_bytes = request.max_body_bytes()](UnaryCall& call, Result result) {
        if (!result.ok()) return call.Fail(result.status());
        v1::GetMessageResponse response;
        auto status = ToProto(*result, max_body_bytes, response.mutable_message());
        if (!status.ok()) return call.Fail(status);
        call.Reply(response);
      });
  call->api().sink->Submit(std::move(command));
}

namespace {

// ---- DeleteMessages, RescheduleMessages

// One call that finds messages and then does something to all of them at once.
struct EditState {
  EditMessagesCommand command;
  bool dry_run = false;
  std::string listing;
  std::string token_prefix;
  std::optional<ScanCursor> next;
};

// Whether the shard would take it: a dry run should count the same.
bool IsEditable(const broker::ListedMessage& message, const EditMessagesCommand& command,
                int64_t now_ms) {
  if (message.state == MessageState::kLeased && !command.include_leased) return false;
  if (command.action != EditMessagesCommand::Action::kReschedule) return true;
  // On its way out: it goes as soon as its dead-letter queue has room.
  if (message.waiting == WaitReason::kDeadLetterQueueFull) return false;
  // What has its time already stays, or a scan would meet again what it has moved, without end.
  if (command.deliver_at_ms <= now_ms) return message.state == MessageState::kDelayed;
  return message.state != MessageState::kDelayed || message.until_ms != command.deliver_at_ms;
}

template <typename Response>
void ReplyEdited(UnaryCall& call, const EditState& state, int64_t count,
                 void (Response::*set_count)(int64_t)) {
  Response response;
  (response.*set_count)(count);
  if (state.next) {
    response.set_next_page_token(call.api().page_tokens.Encode(
        state.listing, absl::StrCat(state.token_prefix, state.next->Encode())));
  }
  call.Reply(response);
}

// Scans, edits what was found, answers.
template <typename Response>
void RunEdit(const std::shared_ptr<UnaryCall>& call, MessageFilter filter, const ScanCursor& from,
             std::shared_ptr<EditState> state, void (Response::*set_count)(int64_t)) {
  auto scan = std::make_shared<MessageScan>(call->api().sink, &call->loop(), state->command.queue,
                                            std::move(filter));
  const int64_t now_ms = call->api().clock->WallMs();
  const auto step = [state, now_ms](ScanStep& step) {
    for (const broker::ListedMessage& message : step.matches) {
      if (IsEditable(message, state->command, now_ms)) {
        state->command.positions.push_back(message.position);
      }
    }
    return std::optional<ScanCursor>();
  };
  const auto end = [call, state, set_count](absl::StatusOr<std::optional<ScanCursor>> next) {
    if (!next.ok()) return call->Fail(next.status());
    state->next = *next;
    const auto found = static_cast<int64_t>(state->command.positions.size());
    if (state->dry_run || found == 0) return ReplyEdited(*call, *state, found, set_count);
    using Result = absl::StatusOr<int64_t>;
    state->command.done =
        AnswerOnLoop<Result>(call, [state, set_count](UnaryCall& call, Result edited) {
          if (!edited.ok()) return call.Fail(edited.status());
          ReplyEdited(call, *state, *edited, set_count);
        });
    call->api().sink->Submit(std::move(state->command));
  };
  std::make_shared<BoundedScan>(std::move(scan), now_ms, step, end)->Run(from);
}

absl::StatusOr<MessageFilter> ParseSetFilter(const v1::MessageFilter& filter) {
  auto parsed = MessageFilter::Parse("filter", filter);
  if (parsed.ok() && parsed->empty()) {
    return MakeFieldError("filter", "must say which messages; purge the queue to remove all");
  }
  return parsed;
}

// When the messages of a RescheduleMessages should be delivered, as of `now_ms`.
absl::StatusOr<int64_t> DeliverAtMs(const v1::RescheduleMessagesRequest& request, int64_t now_ms) {
  switch (request.schedule_case()) {
    case v1::RescheduleMessagesRequest::kDelay: {
      const auto delay_ms = ToMs("delay", request.delay(), 0, kDelayMsMax);
      if (!delay_ms.ok()) return delay_ms.status();
      return now_ms + *delay_ms;
    }
    case v1::RescheduleMessagesRequest::kDeliverAt: {
      const auto& at = request.deliver_at();
      constexpr int32_t kNanosPerMs = 1'000'000;
      constexpr int32_t kNanosPerSecond = 1'000'000'000;
      if (at.nanos() < 0 || at.nanos() >= kNanosPerSecond) {
        return MakeFieldError("deliver_at", "not a valid time");
      }
      // Before it is turned into milliseconds, which could overflow.
      if (at.seconds() > (now_ms + kDelayMsMax) / kSecondMs) {
        return MakeFieldError("deliver_at", "over 366 days ahead");
      }
      if (at.seconds() <= 0) return 0;
      return at.seconds() * kSecondMs + (at.nanos() + kNanosPerMs - 1) / kNanosPerMs;
    }
    case v1::RescheduleMessagesRequest::SCHEDULE_NOT_SET: break;
  }
  return MakeFieldError("delay", "one of delay and deliver_at must be set");
}

}  // namespace

void HandleDeleteMessages(const std::shared_ptr<UnaryCall>& call) {
  v1::DeleteMessagesRequest request;
  if (!call->Parse(&request)) return;
  if (auto status = CheckName("queue", request.queue()); !status.ok()) return call->Fail(status);
  auto filter = ParseSetFilter(request.filter());
  if (!filter.ok()) return call->Fail(filter.status());
  auto state = std::make_shared<EditState>();
  state->command.queue = request.queue();
  state->command.action = EditMessagesCommand::Action::kDelete;
  state->command.include_leased = request.include_leased();
  state->dry_run = request.dry_run();
  const std::string token = request.page_token();
  request.clear_page_token();
  state->listing = Listing("DeleteMessages", request);
  const auto from = call->api().page_tokens.Decode(state->listing, token);
  if (!from.ok()) return call->Fail(from.status());
  RunEdit(call, *std::move(filter), ScanCursor::Decode(*from), std::move(state),
          &v1::DeleteMessagesResponse::set_deleted);
}

void HandleRescheduleMessages(const std::shared_ptr<UnaryCall>& call) {
  v1::RescheduleMessagesRequest request;
  if (!call->Parse(&request)) return;
  if (auto status = CheckName("queue", request.queue()); !status.ok()) return call->Fail(status);
  auto filter = ParseSetFilter(request.filter());
  if (!filter.ok()) return call->Fail(filter.status());
  const auto deliver_at_ms = DeliverAtMs(request, call->api().clock->WallMs());
  if (!deliver_at_ms.ok()) return call->Fail(deliver_at_ms.status());
  auto state = std::make_shared<EditState>();
  state->command.queue = request.queue();
  state->command.action = EditMessagesCommand::Action::kReschedule;
  state->command.deliver_at_ms = *deliver_at_ms;
  state->dry_run = request.dry_run();
  const std::string token = request.page_token();
  request.clear_page_token();
  state->listing = Listing("RescheduleMessages", request);
  const auto last = call->api().page_tokens.Decode(state->listing, token);
  if (!last.ok()) return call->Fail(last.status());
  // The token carries the time that the first call decided on: a delay counts from there, and what
  // was moved to that time is known by it.
  std::string_view cursor = *last;
  if (const size_t at = cursor.find('/'); at != std::string_view::npos) {
    if (!absl::SimpleAtoi(ToAbsl(cursor.substr(0, at)), &state->command.deliver_at_ms)) {
      return call->Fail(MakeError(ErrorReason::kPageTokenInvalid, "the token holds no time"));
    }
    cursor.remove_prefix(at + 1);
  }
  state->token_prefix = absl::StrCat(state->command.deliver_at_ms, "/");
  // Where zero stands for "no time", the past is any other time that has passed.
  state->command.deliver_at_ms = std::max<int64_t>(1, state->command.deliver_at_ms);
  RunEdit(call, *std::move(filter), ScanCursor::Decode(cursor), std::move(state),
          &v1::RescheduleMessagesResponse::set_rescheduled);
}

}  // namespace sluice::api
