#include "server/api/message_scan.h"

#include <algorithm>

#include "server/model/big_endian.h"
#include "server/model/error.h"

namespace sluice::api {
namespace {

constexpr size_t kCursorBytes = sizeof(Lane) + sizeof(Seq) + sizeof(uint32_t);

// What a step counts as at least: a shard may pass over what is settled and find little.
constexpr int64_t kStepCostMin = 100;

// Brings a shard's answer to the loop.
template <typename Result, typename Handler>
absl::AnyInvocable<void(Result)> OnLoop(EventLoop* loop, Handler handler) {
  return [loop, handler = std::move(handler)](Result result) mutable {
    loop->Post([handler = std::move(handler), result = std::move(result)]() mutable {
      handler(std::move(result));
    });
  };
}

}  // namespace

std::string ScanCursor::Encode() const {
  char bytes[kCursorBytes];
  char* p = PutBigEndian(place.lane, bytes);
  p = PutBigEndian(place.seq, p);
  PutBigEndian(static_cast<uint32_t>(next_id), p);
  return std::string(bytes, kCursorBytes);
}

ScanCursor ScanCursor::Decode(std::string_view bytes) {
  ScanCursor cursor;
  if (bytes.size() != kCursorBytes) return cursor;
  cursor.place.lane = GetBigEndian<Lane>(bytes.data());
  cursor.place.seq = GetBigEndian<Seq>(bytes.data() + sizeof(Lane));
  cursor.next_id = GetBigEndian<uint32_t>(bytes.data() + sizeof(Lane) + sizeof(Seq));
  return cursor;
}

struct MessageScan::ById {
  ScanCursor cursor;
  int32_t looks_max = 0;
  int64_t now_ms = 0;
  Done done;
  ScanStep step;
};

void MessageScan::Look(broker::ListedMessage message, const ScanCursor& after, int64_t now_ms,
                       ScanStep* step) const {
  step->bytes += message.payload.size();
  if (!filter_.Matches(message, now_ms)) return;
  step->matches.push_back(std::move(message));
  step->after.push_back(after);
}

void MessageScan::Step(const ScanCursor& cursor, int32_t looks_max, int64_t now_ms, Done done) {
  if (filter_.ids().empty()) return StepByPlace(cursor, looks_max, now_ms, std::move(done));
  auto state = std::make_shared<ById>();
  state->cursor = cursor;
  state->looks_max = looks_max;
  state->now_ms = now_ms;
  state->done = std::move(done);
  StepById(std::move(state));
}

void MessageScan::StepByPlace(const ScanCursor& cursor, int32_t looks_max, int64_t now_ms,
                              Done done) {
  broker::ListMessagesCommand command;
  command.queue = queue_;
  command.cursor = cursor.place;
  command.scan_max = looks_max;
  using Result = absl::StatusOr<broker::ListMessagesCommand::Outcome>;
  command.done = OnLoop<Result>(
      loop_, [self = shared_from_this(), now_ms, done = std::move(done)](Result result) mutable {
        if (!result.ok()) return done(result.status());
        ScanStep step;
        step.looked_at = static_cast<int64_t>(result->messages.size());
        for (broker::ListedMessage& message : result->messages) {
          ScanCursor after;
          after.place = {message.position.lane, message.position.seq + 1};
          self->Look(std::move(message), after, now_ms, &step);
        }
        step.end = !result->next;
        if (result->next) step.next.place = *result->next;
        done(std::move(step));
      });
  sink_->Submit(std::move(command));
}

void MessageScan::StepById(std::shared_ptr<ById> state) {
  const std::vector<MessagePosition>& ids = filter_.ids();
  const bool end = state->cursor.next_id >= ids.size();
  if (end || state->step.looked_at >= state->looks_max || state->step.bytes >= kResponseBytesMax) {
    state->step.end = end;
    state->step.next = state->cursor;
    return state->done(std::move(state->step));
  }
  broker::GetMessageCommand command;
  command.queue = queue_;
  command.id = ids[state->cursor.next_id];
  using Result = absl::StatusOr<broker::ListedMessage>;
  command.done = OnLoop<Result>(loop_, [self = shared_from_this(), state](Result result) mutable {
    if (!result.ok() && ReasonOf(result.status()) != ErrorReason::kMessageNotFound) {
      return state->done(result.status());
    }
    ++state->cursor.next_id;
    ++state->step.looked_at;
    if (result.ok()) self->Look(*std::move(result), state->cursor, state->now_ms, &state->step);
    self->StepById(std::move(state));
  });
  sink_->Submit(std::move(command));
}

void BoundedScan::Run(const ScanCursor& from) {
  const int64_t looks = std::min<int64_t>(kScanStepMessages, kScanMessagesMax - messages_);
  scan_->Step(from, static_cast<int32_t>(looks), now_ms_,
              [self = shared_from_this()](absl::StatusOr<ScanStep> step) {
                if (!step.ok()) return self->end_(step.status());
                self->messages_ += std::max(step->looked_at, kStepCostMin);
                self->bytes_ += step->bytes;
                const bool end = step->end;
                const ScanCursor next = step->next;
                if (const auto stop = self->step_(*step)) return self->end_(stop);
                if (end) return self->end_(std::optional<ScanCursor>());
                if (self->messages_ >= kScanMessagesMax || self->bytes_ >= kScanBytesMax) {
                  return self->end_(std::optional<ScanCursor>(next));
                }
                self->Run(next);
              });
}

}  // namespace sluice::api
