#include "server/api/publish_stream.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/error_mapping.h"
#include "server/api/field_checks.h"
#include "server/api/publish_results.h"
#include "server/model/error.h"

namespace sluice::api {
namespace {

// Results in one response: about 300 KB.
constexpr int32_t kResultsPerResponseMax = 10'000;

// UNAVAILABLE may have happened, which a refusal would deny; only DRAINING did not.
bool IsUnclear(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable &&
         ReasonOf(status) != ErrorReason::kDraining;
}

}  // namespace

void PublishStreamCall::Arm(const MethodBinding& binding, EventLoop* loop) {
  // Not make_shared: what the broker keeps of a producer refers to its call for days after the end
  // of it, which would then keep the memory of the call as well.
  const std::shared_ptr<PublishStreamCall> call(new PublishStreamCall(binding, loop));
  call->context_.AsyncNotifyWhenDone(call->done_tag_.Arm<&PublishStreamCall::OnDone>(call));
  void* const tag = call->read_tag_.Arm<&PublishStreamCall::OnRequested>(call);
  binding.service->RequestBidiStream(binding.method->index, &call->context_, &call->stream_,
                                     loop->queue(), tag);
}

PublishStreamCall::PublishStreamCall(const MethodBinding& binding, EventLoop* loop)
    : Call(binding, loop), stream_(&context_) {}

PublishStreamCall::~PublishStreamCall() {
  if (in_flight_bytes_ > 0) api_->budget.Give(in_flight_bytes_);
}

std::shared_ptr<PublishStreamCall> PublishStreamCall::self() {
  return std::static_pointer_cast<PublishStreamCall>(shared_from_this());
}

void PublishStreamCall::OnRequested(bool ok) {
  if (!ok) {
    done_tag_.Release();  // no call, so no end of it either
    return;
  }
  Arm(binding_, loop_);
  Begin();
  absl::Status status = CheckAdmission(false);
  if (status.ok()) status = slot_.Take(api_);
  if (!status.ok()) return EndWith(std::move(status));
  loop_->AddDrainable(this, [this] { Drain(); });
  age_.Start<&PublishStreamCall::OnAged>(StreamAgeMsMax(api_->options), self());
  writing_ = true;
  stream_.SendInitialMetadata(write_tag_.Arm<&PublishStreamCall::OnHeadersSent>(self()));
  Advance();
}

void PublishStreamCall::OnHeadersSent(bool ok) {
  writing_ = false;
  if (!ok) gone_ = true;
  Advance();
}

void PublishStreamCall::OnRead(bool ok) {
  reading_ = false;
  if (!ok) {
    // Half-closed, cancelled or broken; in the last two cases writing will fail.
    half_closed_ = true;
    if (!initialised_) {
      return EndWith(MakeFieldError("init", "must be the first message of the stream"));
    }
    return Advance();
  }
  CountReceived();
  auto parsed = ParseStreamRequest(request_, exchange_, api_->rules);
  request_.Clear();
  if (end_) return Advance();
  if (!parsed.ok()) return EndWith(parsed.status());
  if (parsed->init) {
    if (auto status = TakeInit(*std::move(parsed->init)); !status.ok()) return EndWith(status);
  } else if (!initialised_) {
    return EndWith(MakeFieldError("init", "must be the first message of the stream"));
  } else {
    TakeBatch(*std::move(parsed->batch));
  }
  Advance();
}

absl::Status PublishStreamCall::TakeInit(v1::PublishStreamInit init) {
  if (initialised_) return MakeFieldError("init", "must come once");
  const bool to_exchange = init.has_exchange();
  if (auto status = to_exchange ? CheckName("init.exchange", init.exchange())
                                : CheckName("init.queue", init.queue());
      !status.ok()) {
    return status;
  }
  if (auto status = CheckShortString("init.producer_id", init.producer_id()); !status.ok()) {
    return status;
  }
  const auto wait_ms =
      ToMs("init.wait_when_full", init.wait_when_full(), 0, kWaitWhenFullMsMax);
  if (!wait_ms.ok()) return wait_ms.status();
  initialised_ = true;
  caller_ = api_->next_publish_caller.fetch_add(1, std::memory_order_relaxed);
  queue_ = init.queue();
  exchange_ = init.exchange();
  mandatory_ = init.mandatory();
  wait_when_full_ms_ = *wait_ms;
  return_results_ = init.return_results();
  CheckTarget(init.producer_id());
  return absl::OkStatus();
}

void PublishStreamCall::CheckTarget(const std::string& producer_id) {
  const auto answer = [call = self()](absl::StatusOr<broker::ProducerOpened> producer) {
    EventLoop& loop = call->loop();
    loop.Post([call, producer = std::move(producer)] { call->OnTargetChecked(producer); });
  };
  if (!producer_id.empty()) {
    // Kept until the next one comes, however long after the end of this call: must stay small.
    const auto ended = [weak = std::weak_ptr(self())](const absl::Status& why) {
      std::shared_ptr<PublishStreamCall> call = weak.lock();
      if (!call) return;
      EventLoop& loop = call->loop();
      // What is on its way is answered first, stored or not.
      loop.Post([call = std::move(call), why] { call->EndWith(why); });
    };
    api_->sink->Submit(
        broker::OpenProducerCommand{queue_, exchange_, producer_id, ended, answer});
    return;
  }
  // Without a producer all that is asked is whether the target is there.
  const auto checked = [answer](const absl::Status& status) {
    if (!status.ok()) return answer(status);
    answer(broker::ProducerOpened{});
  };
  if (exchange_.empty()) {
    api_->sink->Submit(broker::GetQueueCommand{
        queue_, [checked](const absl::StatusOr<broker::QueueInfo>& queue) {
          checked(queue.status());
        }});
  } else {
    api_->sink->Submit(broker::GetExchangeCommand{
        exchange_, [checked](const absl::StatusOr<Exchange>& exchange) {
          checked(exchange.status());
        }});
  }
}

void PublishStreamCall::OnTargetChecked(const absl::StatusOr<broker::ProducerOpened>& producer) {
  if (!producer.ok()) return EndWith(producer.status());
  producer_ = *producer;
  started_ = true;
  Advance();
}

absl::Status PublishStreamCall::CheckSequence(const ParsedBatch& batch) const {
  if (batch.message_count > 0 &&
      batch.first_sequence > std::numeric_limits<int64_t>::max() - batch.message_count) {
    return MakeFieldError("batch.first_sequence", "too large");
  }
  if (batch.first_sequence > last_sequence_) return absl::OkStatus();
  return MakeFieldError("batch.first_sequence",
                        absl::StrCat("must be above ", last_sequence_, ", the last one sent"),
                        ErrorReason::kSequenceRefused);
}

void PublishStreamCall::TakeBatch(ParsedBatch parsed) {
  Batch& batch = line_.emplace_back();
  const uint64_t number = line_begin_ + line_.size() - 1;
  batch.first_sequence = parsed.first_sequence;
  absl::Status status = CheckSequence(parsed);
  const int64_t others = std::max<int64_t>(parsed.message_count, 1) - 1;
  batch.last_sequence = parsed.first_sequence;
  if (parsed.first_sequence <= std::numeric_limits<int64_t>::max() - others) {
    batch.last_sequence += others;
  }
  if (status.ok()) {
    last_sequence_ = batch.last_sequence;
    status = std::move(parsed.status);
  }
  if (!status.ok()) {
    // Counts as one message, so that a client that earns nothing but refusals fills its window.
    in_flight_messages_ += batch.messages;
    OnRefused(status);
    batch.result = std::move(status);
    return;
  }
  for (const auto& message : parsed.messages) batch.bytes += message.payload.size();
  batch.messages = parsed.message_count;
  in_flight_messages_ += batch.messages;
  in_flight_bytes_ += batch.bytes;
  api_->budget.Take(batch.bytes);
  broker::PublishCommand command;
  command.publish.queue = queue_;
  command.publish.exchange = exchange_;
  command.publish.mandatory = mandatory_;
  command.publish.wait_when_full_ms = std::min(wait_when_full_ms_, WaitMsMax());
  command.publish.messages = std::move(parsed.messages);
  command.producer_stream = producer_.stream;
  command.first_sequence = batch.first_sequence;
  command.caller = caller_;
  command.done = [call = self(), number](Result result) mutable {
    EventLoop& loop = call->loop();
    loop.Post([call = std::move(call), number, result = std::move(result)]() mutable {
      call->OnStored(number, std::move(result));
    });
  };
  api_->sink->Submit(std::move(command));
}

void PublishStreamCall::OnStored(uint64_t batch_number, Result result) {
  if (!result.ok()) OnRefused(result.status());
  // Whatever else ends the stream: any other end says that what it leaves unanswered is not stored.
  if (!result.ok() && IsUnclear(result.status())) end_ = result.status();
  line_[batch_number - line_begin_].result = std::move(result);
  Advance();
}

void PublishStreamCall::OnRefused(const absl::Status& status) {
  // With a producer id nothing may be stored behind a refused sequence, by the shard for what is on
  // its way there, here by not reading on.
  if (!end_ && (producer_.stream != 0 || IsUnclear(status))) end_ = status;
}

void PublishStreamCall::EndWith(absl::Status status) {
  if (!end_) end_ = std::move(status);
  Advance();
}

void PublishStreamCall::Drain() {
  EndWith(MakeDrainingError());
}

void PublishStreamCall::OnAged(bool fired) {
  if (fired) EndWith(StreamAge::Status());
}

bool PublishStreamCall::MayRead() {
  if (reading_ || half_closed_ || end_ || gone_ || waits_for_room_) return false;
  // Nothing is read ahead of the check of the target: that a queue is missing is told by the
  // stream's end, not by refusals.
  if (initialised_ && !started_) return false;
  if (in_flight_messages_ >= api_->options.stream_messages_max ||
      in_flight_bytes_ >= api_->options.stream_bytes_max) {
    return false;
  }
  waits_for_room_ = api_->budget.WaitIfFull([call = self()]() mutable {
    EventLoop& loop = call->loop();
    loop.Post([call = std::move(call)] {
      call->waits_for_room_ = false;
      call->Advance();
    });
  });
  return !waits_for_room_;
}

void PublishStreamCall::Advance() {
  if (finishing_) return;
  if (!writing_ && !gone_) {
    std::string bytes;
    if (BuildResponse(&bytes)) {
      writing_ = true;
      CountSent();
      const grpc::Slice slice(bytes);
      stream_.Write(grpc::ByteBuffer(&slice, 1),
                    write_tag_.Arm<&PublishStreamCall::OnWritten>(self()));
    }
  }
  if (MayRead()) {
    reading_ = true;
    stream_.Read(&request_, read_tag_.Arm<&PublishStreamCall::OnRead>(self()));
  }
  const bool over = end_ || half_closed_ || gone_;
  // An unclear end answers what it can; the batches behind it share its fate.
  if (!over || writing_ || (!line_.empty() && !gone_)) return;
  if (!end_ && initialised_ && !started_ && !gone_) return;  // the target is still being checked
  if (gone_ && reading_) return;
  finishing_ = true;
  writing_ = true;
  age_.Cancel();
  loop_->RemoveDrainable(this);
  const absl::Status status = end_.value_or(absl::OkStatus());
  stream_.Finish(ToGrpcStatus(status), write_tag_.Arm<&PublishStreamCall::OnFinished>(self()));
}

void PublishStreamCall::PopFront() {
  const Batch& batch = line_.front();
  in_flight_messages_ -= batch.messages;
  in_flight_bytes_ -= batch.bytes;
  api_->budget.Give(batch.bytes);
  line_.pop_front();
  ++line_begin_;
}

void PublishStreamCall::ConfirmFront(v1::PublishStreamStored* stored) {
  const Batch& batch = line_.front();
  stored->set_through_sequence(batch.last_sequence);
  for (const auto& message : **batch.result) {
    if (message.duplicate) stored->set_duplicates(stored->duplicates() + 1);
    if (!return_results_) continue;
    auto* result = stored->add_results();
    if (HasId(message)) result->set_message_id(FormatMessageId(message.id));
    result->set_duplicate(message.duplicate);
    result->set_routed_queues(message.routed_queues);
  }
  PopFront();
}

bool PublishStreamCall::BuildResponse(std::string* bytes) {
  v1::PublishStreamResponse response;
  if (started_ && !started_told_) {
    started_told_ = true;
    auto* started = response.mutable_started();
    started->set_last_sequence(producer_.last_sequence);
    started->set_max_in_flight(api_->options.stream_messages_max);
    started->set_max_bytes_in_flight(api_->options.stream_bytes_max);
    return response.SerializeToString(bytes);
  }
  // What is unclear is neither confirmed nor refused: the end of the stream tells.
  while (!line_.empty() && line_.front().result && !line_.front().result->ok() &&
         IsUnclear(line_.front().result->status())) {
    PopFront();
  }
  if (line_.empty() || !line_.front().result) return false;
  if (!line_.front().result->ok()) {
    const Batch& batch = line_.front();
    auto* refused = response.mutable_refused();
    refused->set_first_sequence(batch.first_sequence);
    refused->set_last_sequence(batch.last_sequence);
    ToItemStatus(batch.result->status(), refused->mutable_status());
    PopFront();
    return response.SerializeToString(bytes);
  }
  auto* stored = response.mutable_stored();
  while (!line_.empty() && line_.front().result && line_.front().result->ok() &&
         stored->results_size() < kResultsPerResponseMax) {
    ConfirmFront(stored);
  }
  return response.SerializeToString(bytes);
}

void PublishStreamCall::OnWritten(bool ok) {
  writing_ = false;
  if (!ok) gone_ = true;
  Advance();
}

// A client that has gone takes what waits for room with it; that it has gone is not seen otherwise
// while nothing is written.
void PublishStreamCall::OnDone(bool) {
  if (!context_.IsCancelled()) return;
  if (caller_ != 0) api_->sink->Submit(broker::AbandonPublishesCommand{caller_});
  gone_ = true;
  Advance();
}

void PublishStreamCall::OnFinished(bool ok) {
  writing_ = false;
  const int code = end_ ? static_cast<int>(end_->code()) : 0;
  End(ok ? code : static_cast<int>(grpc::StatusCode::CANCELLED));
}

}  // namespace sluice::api
