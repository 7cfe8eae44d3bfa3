#include "client/cpp/publisher.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cpp/client.h"
#include "client/cpp/loop.h"
#include "client/cpp/reconnect.h"
#include "client/cpp/time.h"

namespace sluice::client {
namespace {

// API rule: messages per stream message.
constexpr int kBatchMessagesMax = 1000;
// API rule: bytes of a request, less what surrounds one message (a name of 255 bytes, tags, sizes)
// and what surrounds a thousand (tags and sizes).
constexpr size_t kRequestBytesMax = 16 << 20;
constexpr size_t kMessageBytesMax = kRequestBytesMax - 1024;
constexpr size_t kBatchBytesMax = kRequestBytesMax - 16 * 1024;
// Message objects are used again for batch after batch, which saves making and freeing one for each
// message, unless one grew beyond this: a thousand of them are kept.
constexpr size_t kKeptMessageBytesMax = 8 * 1024;

absl::Status CheckSize(size_t bytes) {
  if (bytes <= kMessageBytesMax) return absl::OkStatus();
  v1::ItemStatus refusal;
  refusal.set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
  refusal.set_reason(v1::ERROR_REASON_MESSAGE_TOO_LARGE);
  refusal.set_message(absl::StrCat("the message has ", bytes, " bytes, over the ", kMessageBytesMax,
                                   " that a request can carry; it was not sent"));
  return FromItem(refusal);
}

}  // namespace

absl::Status CheckMessageSize(const v1::Message& message) {
  return CheckSize(message.ByteSizeLong());
}

// A stream is moved along by whoever gives it cause, callers of Publish and the client's loop: they
// write what waits when nothing is being written. The loop turns answers into outcomes. A thread of
// the publisher's own opens streams and sees them end, and reports outcomes only then, when the loop
// has done with the stream: so callbacks never run at the same time.
class Publisher::Impl {
 public:
  Impl(Client& client, PublisherOptions options) : client_(client), options_(std::move(options)) {
    options_.max_batch_messages = std::clamp(options_.max_batch_messages, 1, kBatchMessagesMax);
    if (idempotent() && options_.after_break == AfterBreak::kReopen) {
      options_.after_break = AfterBreak::kResend;
    }
    options_.max_batch_bytes = std::min(options_.max_batch_bytes, kBatchBytesMax);
    window_messages_ = std::max(options_.max_in_flight, 1);
    window_bytes_ = options_.max_bytes_in_flight;
    opener_ = std::thread([this] {
      RunStreams();
      std::lock_guard lock(mutex_);
      opener_ended_ = true;
      changed_.notify_all();
    });
  }
  ~Impl() { Close(absl::InfiniteDuration()).IgnoreError(); }

  absl::Status Publish(v1::Message message, PublishCallback callback) {
    const size_t bytes = message.ByteSizeLong();
    std::unique_lock lock(mutex_);
    const auto goes = [&] {
      return !ended_.ok() || closing_ || bytes > kMessageBytesMax || HasRoom(bytes);
    };
    if (!goes()) {
      if (client_.loop().IsCurrent()) return InCallback();
      ++waiting_for_room_;
      room_.wait(lock, goes);
      --waiting_for_room_;
    }
    if (!ended_.ok()) return ended_;
    if (closing_) return absl::FailedPreconditionError("the publisher is closed");
    if (absl::Status size = CheckSize(bytes); !size.ok()) {
      ++counts_.refused;
      return size;
    }
    unsettled_bytes_ += bytes;
    unsettled_.push_back({std::move(message), std::move(callback), bytes});
    if (live_) {
      WriteWaiting(lock);
    } else if (unsettled_.size() == written_ + 1) {
      changed_.notify_all();
    }
    return absl::OkStatus();
  }

  absl::Status Flush(absl::Duration timeout) {
    std::unique_lock lock(mutex_);
    if (!AllSettled() && client_.loop().IsCurrent()) return InCallback();
    const bool done =
        WaitFor(changed_, lock, timeout, [&] { return AllSettled(); });
    if (!done) return absl::DeadlineExceededError("messages are still without an outcome");
    return ended_;
  }

  absl::Status Close(absl::Duration timeout) {
    if (client_.loop().IsCurrent()) return InCallback();
    const absl::Time end = absl::Now() + timeout;
    absl::Status flushed = Flush(timeout);
    std::lock_guard close_lock(close_mutex_);
    {
      std::unique_lock lock(mutex_);
      closing_ = true;
      NotifyAll();
      if (!flushed.ok()) GiveUp();
      if (live_) WriteWaiting(lock);
      // Whether the server ends the stream as well is up to it.
      if (!WaitFor(changed_, lock, end - absl::Now(), [&] { return opener_ended_; })) GiveUp();
    }
    if (opener_.joinable()) opener_.join();
    return flushed;
  }

  Counts counts() const {
    std::lock_guard lock(mutex_);
    Counts counts = counts_;
    counts.in_flight = static_cast<int64_t>(unsettled_.size());
    return counts;
  }

 private:
  using Stream = grpc::ClientAsyncReaderWriterInterface<v1::PublishStreamRequest,
                                                        v1::PublishStreamResponse>;
  struct Entry {
    v1::Message message;
    PublishCallback callback;
    size_t bytes;
    bool settled = false;  // refused already, and still in its place among the others
  };
  struct Report {
    PublishCallback callback;
    PublishOutcome outcome;
  };

  static absl::Status InCallback() {
    return absl::FailedPreconditionError("a callback of the client must not wait for another");
  }
  void GiveUp() {
    give_up_ = true;
    if (context_ != nullptr) context_->TryCancel();
    NotifyAll();
  }
  bool idempotent() const { return !options_.producer_id.empty(); }
  bool HasRoom(size_t bytes) const {
    return unsettled_.empty() || (unsettled_.size() < static_cast<size_t>(window_messages_) &&
                                  unsettled_bytes_ + bytes <= window_bytes_);
  }
  bool HasWaiting() const { return unsettled_.size() > written_; }

  void RunStreams() {
    absl::Time away_since = absl::InfiniteFuture();
    absl::Duration pause = kFirstPause;
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return HasWaiting() || closing_; });
      if (!HasWaiting()) return;
      opened_ = false;
      progressed_ = false;
      lock.unlock();
      const absl::Status status = RunStream();
      lock.lock();
      if (progressed_) {
        away_since = absl::InfiniteFuture();
        pause = kFirstPause;
      }
      if (status.ok()) continue;
      away_since = std::min(away_since, absl::Now());
      const bool aged = ReasonOf(status) == v1::ERROR_REASON_STREAM_AGED;
      const bool again =
          !give_up_ && (aged || (options_.after_break != AfterBreak::kStop && ReopenHelps(status) &&
                                 absl::Now() - away_since < options_.reopen_timeout));
      HandleBreak(status, again, lock);
      if (!again) return;
      if (!HasWaiting()) away_since = absl::InfiniteFuture();  // no one is kept waiting
      if (aged && opened_) continue;
      PauseBeforeRetry(client_, changed_, lock, pause, [&] { return give_up_; });
      pause = std::min(pause * 2, kLongestPause);
    }
  }

  // One stream from opening to its end. OK: we closed it and everything was answered.
  absl::Status RunStream() {
    grpc::ClientContext context;
    std::unique_lock lock(mutex_);
    if (give_up_) return absl::CancelledError("the publisher was closed");
    context_ = &context;
    // A producer's sequences go on over all its streams.
    if (!idempotent()) front_sequence_ = 1;
    reader_done_ = broken_ = half_closed_ = finished_ = false;
    write_parts_ = kWritePartsOfLoop;
    stream_ = client_.queues().PrepareAsyncPublishStream(&context, client_.loop().queue());
    stream_->StartCall(started_.name());
    changed_.wait(lock, [&] { return finished_; });
    stream_ = nullptr;
    context_ = nullptr;
    if (!end_.ok()) return FromGrpc(end_);
    if (written_ > 0) return absl::UnavailableError("the server ended the stream early");
    return absl::OkStatus();
  }

  v1::PublishStreamRequest InitRequest() const {
    v1::PublishStreamRequest request;
    v1::PublishStreamInit& init = *request.mutable_init();
    if (!options_.queue.empty()) init.set_queue(options_.queue);
    if (!options_.exchange.empty()) init.set_exchange(options_.exchange);
    init.set_producer_id(options_.producer_id);
    init.set_mandatory(options_.mandatory);
    init.set_return_results(options_.return_results);
    if (options_.wait_when_full > absl::ZeroDuration()) {
      *init.mutable_wait_when_full() = ToProto(options_.wait_when_full);
    }
    return request;
  }

  // ---- on the loop

  void OnStarted(bool ok) {
    std::unique_lock lock(mutex_);
    live_ = true;
    if (ok) {
      stream_->Write(InitRequest(), wrote_.name());
      stream_->Read(&response_, read_.name());
      return;
    }
    write_parts_ = 0;
    reader_done_ = true;
    WriteWaiting(lock);
  }

  void OnWritten(bool ok) {
    std::unique_lock lock(mutex_);
    if (!ok) broken_ = true;
    if (--write_parts_ == 0) WriteWaiting(lock);
  }

  void OnRead(bool ok) {
    std::unique_lock lock(mutex_);
    if (!ok) {
      reader_done_ = true;
      return WriteWaiting(lock);
    }
    std::vector<Report> reports;
    opened_ = true;
    progressed_ |= !response_.has_started();
    if (response_.has_started()) {
      ApplyServerWindow(response_.started());
    } else if (response_.has_stored()) {
      TakeStored(response_.mutable_stored(), &reports);
    } else if (response_.has_refused()) {
      TakeRefused(response_.refused(), &reports);
    }
    Deliver(std::move(reports), lock);
    lock.unlock();
    stream_->Read(&response_, read_.name());
  }

  void OnFinished() {
    std::lock_guard lock(mutex_);
    finished_ = true;
    changed_.notify_all();
  }

  // ---- on whatever thread

  // Takes the live stream's next step, if it is time for one: writes what waits, or closes or ends
  // it. Lets go of the lock to write.
  void WriteWaiting(std::unique_lock<std::mutex>& lock) {
    while (live_ && write_parts_ == 0 && !reader_done_ && !broken_ && HasWaiting()) {
      write_parts_ = kWritePartsOfLoop + 1;
      const size_t largest = TakeNextBatch();
      lock.unlock();
      stream_->Write(request_, wrote_.name());
      lock.lock();
      TakeBack(request_.mutable_batch());
      if (largest > kKeptMessageBytesMax) request_.Clear();
      // Who comes last goes on: we, or the loop when it is written.
      if (--write_parts_ > 0) return;
    }
    if (!live_ || write_parts_ > 0) return;
    if (reader_done_) {
      live_ = false;
      stream_->Finish(&end_, over_.name());
    } else if (closing_ && !broken_ && !half_closed_) {
      half_closed_ = true;
      write_parts_ = kWritePartsOfLoop;
      stream_->WritesDone(wrote_.name());
    }
  }

  // Fills request_. The size of the largest message.
  size_t TakeNextBatch() {
    v1::PublishStreamBatch& batch = *request_.mutable_batch();
    batch.clear_messages();
    batch.set_first_sequence(front_sequence_ + static_cast<int64_t>(written_));
    size_t bytes = 0;
    size_t largest = 0;
    while (HasWaiting() && batch.messages_size() < options_.max_batch_messages) {
      Entry& entry = unsettled_[written_];
      if (batch.messages_size() > 0 && bytes + entry.bytes > options_.max_batch_bytes) break;
      bytes += entry.bytes;
      largest = std::max(largest, entry.bytes);
      batch.add_messages()->Swap(&entry.message);
      ++written_;
    }
    return largest;
  }

  // Keeps what has no outcome yet: the stream may end without one, and another send it again.
  void TakeBack(v1::PublishStreamBatch* batch) {
    const int64_t answered = front_sequence_ - batch->first_sequence();
    for (int64_t i = std::max<int64_t>(answered, 0); i < batch->messages_size(); ++i) {
      Entry& entry = unsettled_[static_cast<size_t>(i - answered)];
      entry.message.Swap(batch->mutable_messages(static_cast<int>(i)));
    }
  }

  void ApplyServerWindow(const v1::PublishStreamStarted& started) {
    if (started.max_in_flight() > 0) {
      window_messages_ = std::min(window_messages_, started.max_in_flight());
    }
    if (started.max_bytes_in_flight() > 0) {
      window_bytes_ = std::min(window_bytes_, static_cast<size_t>(started.max_bytes_in_flight()));
    }
  }

  void TakeStored(v1::PublishStreamStored* stored, std::vector<Report>* reports) {
    int next_result = 0;
    counts_.duplicates += stored->duplicates();
    while (written_ > 0 && front_sequence_ <= stored->through_sequence()) {
      Entry& entry = unsettled_.front();
      if (!entry.settled) {
        PublishOutcome outcome;
        if (next_result < stored->results_size()) {
          v1::PublishResult& result = *stored->mutable_results(next_result++);
          outcome.message_id = std::move(*result.mutable_message_id());
          outcome.duplicate = result.duplicate();
        }
        ++counts_.confirmed;
        reports->push_back({std::move(entry.callback), std::move(outcome)});
      }
      PopFront();
    }
  }

  void TakeRefused(const v1::PublishStreamRefused& refused, std::vector<Report>* reports) {
    const absl::Status status = FromItem(refused.status());
    const int64_t last =
        std::min(refused.last_sequence(), front_sequence_ + static_cast<int64_t>(written_) - 1);
    for (int64_t seq = std::max(refused.first_sequence(), front_sequence_); seq <= last; ++seq) {
      Entry& entry = unsettled_[static_cast<size_t>(seq - front_sequence_)];
      if (entry.settled) continue;
      entry.settled = true;
      ++counts_.refused;
      reports->push_back({std::move(entry.callback), {status, "", false}});
    }
    while (written_ > 0 && unsettled_.front().settled) PopFront();
  }

  void PopFront() {
    unsettled_bytes_ -= unsettled_.front().bytes;
    unsettled_.pop_front();
    --written_;
    ++front_sequence_;
  }

  // After the end of a stream that left something open.
  void HandleBreak(const absl::Status& status, bool again, std::unique_lock<std::mutex>& lock) {
    std::vector<Report> reports;
    const bool maybe = MaybeHappened(status);
    if (again && (options_.after_break == AfterBreak::kResend || !maybe)) {
      Rewind(maybe);
    } else {
      FailWritten(status, maybe, &reports);
    }
    if (!again) {
      FailWaiting(NotSent(status), &reports);
      ended_ = status;
      NotifyAll();
    }
    Deliver(std::move(reports), lock);
  }

  // All that was written and has no outcome waits again.
  void Rewind(bool maybe_stored) {
    // Refused ones in the middle must not be sent again.
    size_t kept = 0;
    for (size_t i = 0; i < written_; ++i) {
      if (unsettled_[i].settled) {
        unsettled_bytes_ -= unsettled_[i].bytes;
      } else {
        if (kept != i) unsettled_[kept] = std::move(unsettled_[i]);
        ++kept;
      }
    }
    unsettled_.erase(unsettled_.begin() + static_cast<std::ptrdiff_t>(kept),
                     unsettled_.begin() + static_cast<std::ptrdiff_t>(written_));
    // What a producer sends again is stored once.
    if (maybe_stored && !idempotent()) counts_.resent += static_cast<int64_t>(kept);
    written_ = 0;
  }

  void FailWritten(const absl::Status& status, bool maybe_stored, std::vector<Report>* reports) {
    const bool never_left = NotConnected(status);
    const absl::Status outcome = never_left ? NotSent(status) : status;
    while (written_ > 0) {
      Entry& entry = unsettled_.front();
      if (!entry.settled) {
        ++(never_left ? counts_.not_sent : maybe_stored ? counts_.unknown : counts_.refused);
        reports->push_back({std::move(entry.callback), {outcome, "", false}});
      }
      PopFront();
    }
  }

  void FailWaiting(const absl::Status& not_sent, std::vector<Report>* reports) {
    counts_.not_sent += static_cast<int64_t>(unsettled_.size());
    for (Entry& entry : unsettled_) {
      reports->push_back({std::move(entry.callback), {not_sent, "", false}});
    }
    unsettled_.clear();
    unsettled_bytes_ = 0;
  }

  // Runs callbacks without the lock, so that they may ask for counts.
  void Deliver(std::vector<Report> reports, std::unique_lock<std::mutex>& lock) {
    reporting_ += reports.size();
    if (waiting_for_room_ > 0) room_.notify_all();
    lock.unlock();
    for (Report& report : reports) {
      if (report.callback) report.callback(report.outcome);
    }
    lock.lock();
    reporting_ -= reports.size();
    if (AllSettled()) changed_.notify_all();
  }

  bool AllSettled() const { return unsettled_.empty() && reporting_ == 0; }
  void NotifyAll() {
    changed_.notify_all();
    room_.notify_all();
  }

  Client& client_;
  PublisherOptions options_;
  std::thread opener_;
  std::mutex close_mutex_;  // taken before mutex_; one Close joins

  mutable std::mutex mutex_;
  std::condition_variable changed_;  // for the opener, Flush and pauses
  std::condition_variable room_;     // for Publish
  // Guarded by mutex_. Entries [0, written_) were written on the live stream with the sequences
  // from front_sequence_ on; the rest waits.
  std::deque<Entry> unsettled_;
  size_t unsettled_bytes_ = 0;
  size_t written_ = 0;
  int64_t front_sequence_ = 1;
  int window_messages_;
  size_t window_bytes_;
  size_t reporting_ = 0;
  int waiting_for_room_ = 0;
  Counts counts_;
  bool closing_ = false;
  bool give_up_ = false;
  bool opener_ended_ = false;
  bool opened_ = false;      // the live stream was answered at all
  bool progressed_ = false;  // and messages on it got an outcome
  absl::Status ended_;

  // The stream, guarded by mutex_ but for request_, which is the writer's.
  grpc::ClientContext* context_ = nullptr;  // to cancel it
  std::unique_ptr<Stream> stream_;
  bool live_ = false;         // it has started, and not been finished
  bool reader_done_ = false;  // nothing more is answered
  bool broken_ = false;       // nothing more can be written
  bool half_closed_ = false;  // nothing more will be
  bool finished_ = false;     // the loop has done with it
  grpc::Status end_;
  // What is left of a write: until the loop says that it was written, and until who wrote it has
  // taken back what it wrote.
  static constexpr int kWritePartsOfLoop = 1;
  int write_parts_ = 0;
  v1::PublishStreamRequest request_;    // used for one batch after the other
  v1::PublishStreamResponse response_;  // the loop's
  Loop::Tag started_{[this](bool ok) { OnStarted(ok); }};
  Loop::Tag wrote_{[this](bool ok) { OnWritten(ok); }};
  Loop::Tag read_{[this](bool ok) { OnRead(ok); }};
  Loop::Tag over_{[this](bool) { OnFinished(); }};
};

Publisher::Publisher(Client& client, PublisherOptions options)
    : impl_(std::make_unique<Impl>(client, std::move(options))) {}
Publisher::~Publisher() = default;
absl::Status Publisher::Publish(v1::Message message, PublishCallback callback) {
  return impl_->Publish(std::move(message), std::move(callback));
}
absl::Status Publisher::Flush(absl::Duration timeout) { return impl_->Flush(timeout); }
absl::Status Publisher::Close(absl::Duration timeout) { return impl_->Close(timeout); }
Publisher::Counts Publisher::counts() const { return impl_->counts(); }

}  // namespace sluice::client
