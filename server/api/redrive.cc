#include "server/api/redrive.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/error_mapping.h"
#include "server/api/field_checks.h"
#include "server/model/error.h"

namespace sluice::api {
namespace {

// One command moves no more: other work of the shard goes between.
constexpr int64_t kMovesPerCommandMax = 500;
// Progress is reported after this many moves, or this long.
constexpr int64_t kReportMoves = 1000;
constexpr int64_t kReportMs = 1 * kSecondMs;
constexpr int64_t kNsPerMs = 1'000'000;

absl::StatusOr<RateLimit> ToRate(const v1::RedriveMessagesRequest& request) {
  RateLimit rate;
  rate.per_second = request.has_rate() ? request.rate().per_second() : RedriveCall::kRateDefault;
  // NaN is within no bounds.
  if (!(rate.per_second >= kRatePerSecondMin && rate.per_second <= kRatePerSecondMax)) {
    return MakeFieldError("rate.per_second", absl::StrCat("must be ", kRatePerSecondMin, " to ",
                                                          kRatePerSecondMax));
  }
  const int32_t burst = request.rate().burst();
  if (burst < 0 || burst > kRateBurstMax) {
    return MakeFieldError("rate.burst", absl::StrCat("must be 0 to ", kRateBurstMax));
  }
  const auto of_a_second =
      std::clamp<int64_t>(std::llround(rate.per_second), 1, kRateBurstMax);
  rate.burst = burst > 0 ? burst : static_cast<int32_t>(of_a_second);
  return rate;
}

}  // namespace

RedriveCall::RedriveCall(const MethodBinding& binding, EventLoop* loop)
    : ServerStreamCall(binding, loop) {}

void RedriveCall::OnRequested() {
  if (auto status = Open(); !status.ok()) EndWith(std::move(status));
}

absl::Status RedriveCall::Open() {
  if (auto status = CheckAdmission(false); !status.ok()) return status;
  if (auto status = ParseMessage(request_bytes_, &request_); !status.ok()) return status;
  request_bytes_.Clear();
  if (auto status = CheckName("queue", request_.queue()); !status.ok()) return status;
  if (!request_.to_queue().empty()) {
    if (auto status = CheckName("to_queue", request_.to_queue()); !status.ok()) return status;
    if (request_.to_queue() == request_.queue()) {
      return MakeFieldError("to_queue", "is the queue itself");
    }
  }
  if (request_.max_messages() < 0) return MakeFieldError("max_messages", "must not be negative");
  auto filter = MessageFilter::Parse("filter", request_.filter());
  if (!filter.ok()) return filter.status();
  const auto rate = ToRate(request_);
  if (!rate.ok()) return rate.status();
  if (auto status = slot_.Take(api_); !status.ok()) return status;

  reported_ns_ = api_->clock->MonotonicNs();
  pace_.Configure(*rate, reported_ns_);
  // No more is selected at once than a second takes: what waits long is not what it was.
  step_messages_ = static_cast<int32_t>(
      std::clamp<double>(std::ceil(rate->per_second), 1, kScanStepMessages));
  scan_ = std::make_shared<MessageScan>(api_->sink, loop_, request_.queue(), *std::move(filter));
  loop_->AddDrainable(this, [this] { EndWith(MakeDrainingError()); });
  age_.Start<&RedriveCall::OnAged>(StreamAgeMsMax(api_->options), self());
  writing_ = true;
  writer_.SendInitialMetadata(call_tag_.Arm<&RedriveCall::OnHeadersSent>(self()));
  working_ = true;
  CheckQueue();
  return absl::OkStatus();
}

void RedriveCall::CheckQueue() {
  broker::GetQueueCommand command;
  command.queue = request_.queue();
  command.done = [call = self()](absl::StatusOr<broker::QueueInfo> info) {
    call->loop().Post([call, info = std::move(info)] {
      if (!info.ok()) {
        call->working_ = false;
        return call->EndWith(info.status());
      }
      // By the clock that tells when messages died, which may be days off after the other was set.
      call->begin_ms_ = info->now_ms;
      const broker::QueueStats& stats = info->stats;
      const size_t ids = call->scan_->filter().ids().size();
      call->to_look_at_ = ids > 0 ? static_cast<int64_t>(ids)
                                  : stats.ready + stats.leased + stats.delayed + stats.blocked;
      call->CheckTarget();
    });
  };
  api_->sink->Submit(std::move(command));
}

void RedriveCall::CheckTarget() {
  if (request_.to_queue().empty()) {
    working_ = false;
    return Proceed();
  }
  broker::GetQueueCommand command;
  command.queue = request_.to_queue();
  command.done = [call = self()](const absl::StatusOr<broker::QueueInfo>& info) {
    call->loop().Post([call, status = info.status()] {
      call->working_ = false;
      if (!status.ok()) return call->EndWith(status);
      call->Proceed();
    });
  };
  api_->sink->Submit(std::move(command));
}

bool RedriveCall::Reached() const {
  return request_.max_messages() > 0 && moved_ >= request_.max_messages();
}

void RedriveCall::Proceed() {
  if (working_ || end_ || gone_) return FinishIfIdle();
  ReportIfDue();
  if (Reached() || (found_.empty() && scanned_all_)) return EndWith(absl::OkStatus());
  if (found_.empty()) return Scan();
  int64_t wanted =
      std::min<int64_t>(static_cast<int64_t>(found_.size()), kMovesPerCommandMax);
  if (request_.max_messages() > 0) wanted = std::min(wanted, request_.max_messages() - moved_);
  const int64_t now_ns = api_->clock->MonotonicNs();
  // Few large moves cost less than many small ones: wait until all of them may go.
  if (const int64_t wait_ns = pace_.TokensAtNs(wanted) - now_ns; wait_ns > 0) {
    const int64_t wait_ms = (wait_ns + kNsPerMs - 1) / kNsPerMs;
    return WaitForPace(std::min(wait_ms, kReportMs));
  }
  const int64_t moved = std::max<int64_t>(1, pace_.Available(wanted, now_ns));
  pace_.Take(now_ns, moved);
  Move(moved);
}

void RedriveCall::Scan() {
  working_ = true;
  scan_->Step(cursor_, step_messages_, begin_ms_, [call = self()](absl::StatusOr<ScanStep> step) {
    call->working_ = false;
    call->OnScanned(std::move(step));
  });
}

void RedriveCall::OnScanned(absl::StatusOr<ScanStep> step) {
  if (!step.ok()) return EndWith(step.status());
  looked_at_ += step->looked_at;
  cursor_ = step->next;
  scanned_all_ = step->end;
  for (const broker::ListedMessage& message : step->matches) {
    if (!Select(message)) continue;
    if (!request_.dry_run()) {
      found_.push_back(message.position);
    } else if (!Reached()) {
      ++moved_;
    }
  }
  Proceed();
}

bool RedriveCall::Select(const broker::ListedMessage& message) {
  const bool died = message.deaths && !message.deaths->empty();
  // What died, or came, since this call began may be what it moved.
  const int64_t since_ms = died ? message.deaths->front().last_ms : message.publish_ms;
  if (since_ms > begin_ms_) return false;
  if (message.state == MessageState::kLeased || (!died && request_.to_queue().empty())) {
    ++skipped_;
    return false;
  }
  return true;
}

void RedriveCall::Move(int64_t count) {
  working_ = true;
  broker::EditMessagesCommand command;
  command.queue = request_.queue();
  command.action = broker::EditMessagesCommand::Action::kMove;
  command.to_queue = request_.to_queue();
  command.positions.assign(found_.begin(), found_.begin() + count);
  found_.erase(found_.begin(), found_.begin() + count);
  command.done = [call = self(), count](absl::StatusOr<int64_t> moved) {
    call->loop().Post([call, count, moved = std::move(moved)] { call->OnMoved(count, moved); });
  };
  api_->sink->Submit(std::move(command));
}

void RedriveCall::OnMoved(int64_t asked, const absl::StatusOr<int64_t>& moved) {
  working_ = false;
  if (!moved.ok()) return EndWith(moved.status());
  moved_ += *moved;
  skipped_ += asked - *moved;
  Proceed();
}

void RedriveCall::WaitForPace(int64_t wait_ms) {
  working_ = true;
  timer_set_ = true;
  loop_->AddTimer(&timer_);
  timer_.Set(loop_->queue(), gpr_time_from_millis(wait_ms, GPR_TIMESPAN),
             timer_tag_.Arm<&RedriveCall::OnPaceTimer>(self()));
}

void RedriveCall::OnPaceTimer(bool) {
  timer_set_ = false;
  loop_->RemoveTimer(&timer_);
  working_ = false;
  Proceed();
}

v1::RedriveMessagesResponse RedriveCall::Progress() const {
  v1::RedriveMessagesResponse response;
  response.set_moved(moved_);
  response.set_skipped(skipped_);
  // What came meanwhile was not counted: never below zero.
  const int64_t rest = scanned_all_ ? 0 : to_look_at_ - looked_at_;
  response.set_remaining(std::max<int64_t>(0, rest) + static_cast<int64_t>(found_.size()));
  return response;
}

void RedriveCall::ReportIfDue() {
  if (writing_) return;
  const int64_t since_ns = api_->clock->MonotonicNs() - reported_ns_;
  if (moved_ - reported_moves_ >= kReportMoves || since_ns >= kReportMs * kNsPerMs) {
    WriteProgress();
  }
}

void RedriveCall::WriteProgress() {
  reported_moves_ = moved_;
  reported_ns_ = api_->clock->MonotonicNs();
  writing_ = true;
  CountSent();
  writer_.Write(Serialize(Progress()), call_tag_.Arm<&RedriveCall::OnWritten>(self()));
}

void RedriveCall::EndWith(absl::Status status) {
  if (!end_) end_ = std::move(status);
  FinishIfIdle();
}

void RedriveCall::FinishIfIdle() {
  if (timer_set_ && (end_ || gone_)) timer_.Cancel();
  // A move that is out belongs to the figures.
  if (writing_ || working_ || finishing_) return;
  if (gone_) return Close();
  if (!end_) return;
  if (end_->ok() && !final_written_) {
    final_written_ = true;
    return WriteProgress();
  }
  finishing_ = true;
  writing_ = true;
  Close();
  writer_.Finish(ToGrpcStatus(*end_), call_tag_.Arm<&RedriveCall::OnFinished>(self()));
}

void RedriveCall::Close() {
  age_.Cancel();
  loop_->RemoveDrainable(this);
}

void RedriveCall::OnHeadersSent(bool ok) {
  writing_ = false;
  if (!ok) gone_ = true;
  FinishIfIdle();
}

void RedriveCall::OnWritten(bool ok) {
  writing_ = false;
  if (!ok) gone_ = true;
  FinishIfIdle();
}

void RedriveCall::OnFinished(bool ok) {
  writing_ = false;
  End(ok ? static_cast<int>(end_->code()) : static_cast<int>(grpc::StatusCode::CANCELLED));
}

void RedriveCall::OnDone() {
  if (!finishing_) {
    // The client cancelled, its deadline passed, or the transport broke.
    gone_ = true;
    End(static_cast<int>(grpc::StatusCode::CANCELLED));
    FinishIfIdle();
    Close();
  }
  age_.Cancel();
}

void RedriveCall::OnAged(bool fired) {
  if (fired) EndWith(StreamAge::Status());
}

}  // namespace sluice::api
