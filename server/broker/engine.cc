#include "server/broker/engine.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "server/base/check.h"
#include "server/base/thread_name.h"
#include "server/broker/shard.h"

namespace sluice::broker {
namespace {

// One turn takes at most this much, so that a batch stays small enough to be synced soon.
constexpr size_t kTurnCommandsMax = 8192;
constexpr size_t kTurnBytesMax = 4 * kMiB;
// Batches handed to the log and not yet durable, see EngineOptions::appended_bytes_max.
constexpr Lsn kBatchesInFlightMax = 64;
// Wall clock and stored time further apart than this need --accept-clock.
constexpr int64_t kClockDifferenceMsMax = 30 * kDayMs;
// How often the gauge is asked whether waiting publishes may go on.
constexpr absl::Duration kPressureCheckPeriod = absl::Milliseconds(5);
// Space comes back as consumers settle and files are dropped: that takes seconds.
constexpr int64_t kStorageFullRetryMs = 2 * kSecondMs;

std::string NewServerId() {
  // Any random 128 bits will do; a fresh receipt key is just that.
  const ReceiptCodec::Key random = ReceiptCodec::NewKey();
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(random.data()), random.size()));
}

struct FinishedRead {
  uint64_t ticket = 0;
  absl::StatusOr<ReadResult> result{ReadResult()};
};

class EngineImpl : public Engine, private ShardPort {
 public:
  EngineImpl(const EngineOptions& options, Clock* clock, storage::Store* store,
             storage::CommitLog* log, EngineObserver* observer,
             std::function<void(const absl::Status&)> on_fatal)
      : clock_(clock),
        store_(store),
        log_(log),
        observer_(observer),
        on_fatal_(std::move(on_fatal)),
        accept_clock_(options.accept_clock),
        appended_bytes_max_(options.appended_bytes_max),
        pressure_(options.pressure),
        shard_({options.shard, options.window_bytes_max}, this) {}

  ~EngineImpl() override { EndThreads(); }

  void EndThreads() override {
    {
      absl::MutexLock lock(&mutex_);
      closing_ = true;
    }
    {
      absl::MutexLock lock(&reads_mutex_);
      reads_closing_ = true;
    }
    if (engine_thread_.joinable()) engine_thread_.join();
    if (reader_thread_.joinable()) reader_thread_.join();
  }

  absl::Status Open() {
    if (absl::Status status = shard_.Load(*store_); !status.ok()) return status;
    const storage::BootRow& row = shard_.boot_row();
    const int64_t difference_ms = clock_->WallMs() - row.engine_ms;
    if (row.boot > 0 && !accept_clock_ && std::abs(difference_ms) > kClockDifferenceMsMax) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the clock of this machine and the time in the store differ by ",
          std::abs(difference_ms) / kDayMs,
          " days; set the clock, or start once with --accept-clock if it is right"));
    }
    if (row.boot == 0) {
      shard_.NameNewStore(NewServerId(), ReceiptCodec::NewKey(), KeyedHash::NewKey());
    }
    engine_clock_.emplace(clock_, accept_clock_ ? 0 : row.engine_ms);
    {
      absl::MutexLock lock(&mutex_);
      durable_lsn_ = seen_durable_lsn_ = shard_.last_lsn();
    }
    shard_.Begin(engine_clock_->Read());
    receipts_.emplace(shard_.boot_row().receipt_key);
    hash_.emplace(shard_.boot_row().hash_key);
    server_id_ = shard_.boot_row().server_id;
    boot_ = shard_.boot_row().boot;
    engine_thread_ = std::thread([this] { RunEngine(); });
    reader_thread_ = std::thread([this] { RunReader(); });
    first_batch_durable_.WaitForNotification();
    absl::MutexLock lock(&mutex_);
    return failure_;
  }

  void Submit(Command command) override {
    absl::MutexLock lock(&mutex_);
    inbox_.push_back(std::move(command));
  }
  void SubmitAll(std::vector<Command>* commands) override {
    {
      absl::MutexLock lock(&mutex_);
      std::move(commands->begin(), commands->end(), std::back_inserter(inbox_));
    }
    commands->clear();
  }

  const ReceiptCodec& receipts() const override { return *receipts_; }
  const KeyedHash& hash() const override { return *hash_; }
  const std::string& server_id() const override { return server_id_; }
  Boot boot() const override { return boot_; }

 private:
  // ---- ShardPort, on the engine thread (or on the opening one, before the threads start)
  void Append(storage::Batch batch) override {
    const Lsn lsn = batch.header().lsn;
    const uint64_t bytes = batch.bytes();
    if (observer_) observer_->OnBatch(turn_commands_, batch.messages(), bytes);
    bytes_in_flight_.fetch_add(bytes, std::memory_order_relaxed);
    log_->Append(std::move(batch), [this, lsn, bytes](const absl::Status& status) {
      bytes_in_flight_.fetch_sub(bytes, std::memory_order_relaxed);
      absl::MutexLock lock(&mutex_);
      if (status.ok()) {
        durable_lsn_ = lsn;
      } else if (failure_.ok()) {
        failure_ = status;
      }
      if (!first_batch_durable_.HasBeenNotified()) first_batch_durable_.Notify();
    });
  }

  void StartRead(ReadRequest request) override {
    absl::MutexLock lock(&reads_mutex_);
    reads_.push_back(std::move(request));
  }

  // ---- engine thread
  bool LogIsFull() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return shard_.last_lsn() >= durable_lsn_ + kBatchesInFlightMax ||
           bytes_in_flight_.load(std::memory_order_relaxed) >= appended_bytes_max_;
  }
  bool HasInput() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return closing_ || !failure_.ok() || !finished_reads_.empty() || durable_lsn_ > seen_durable_lsn_ ||
           (!inbox_.empty() && !log_is_full_) || has_leftovers_;
  }

  void RunEngine() {
    NameThread("engine");
    std::deque<Command> commands;
    std::deque<FinishedRead> finished_reads;
    // What falls due after the stop belongs to the next boot.
    while (!shard_.stopped()) {
      const Now before = engine_clock_->Read();
      const auto due_ns = shard_.NextDueNs(before);
      absl::Duration wait = absl::InfiniteDuration();
      if (shard_.HasWork()) {
        wait = absl::ZeroDuration();
      } else if (due_ns) {
        wait = absl::Nanoseconds(std::max<int64_t>(0, *due_ns - before.mono_ns));
      }
      if (!publishes_.empty()) wait = std::min(wait, kPressureCheckPeriod);
      const bool publishes_go = !publishes_.empty() && ReadPressure() == storage::Pressure::kNone;
      absl::Status failure;
      Lsn durable_lsn = 0;
      bool log_is_full = false;
      {
        absl::MutexLock lock(&mutex_);
        log_is_full_ = LogIsFull();
        has_leftovers_ = (!commands.empty() || publishes_go) && !log_is_full_;
        mutex_.AwaitWithTimeout(absl::Condition(this, &EngineImpl::HasInput), wait);
        failure = failure_;
        if (closing_ && failure.ok()) return;
        durable_lsn = seen_durable_lsn_ = durable_lsn_;
        log_is_full = LogIsFull();
        if (commands.empty() && !log_is_full) commands.swap(inbox_);
        finished_reads.swap(finished_reads_);
      }
      if (!failure.ok()) return Fail(failure);

      const Now now = engine_clock_->Read();
      shard_.OnDurable(durable_lsn, now);
      if (shard_.stopped()) return;
      for (FinishedRead& read : finished_reads) {
        absl::Status status = read.result.status();
        if (status.ok()) status = shard_.OnRead(read.ticket, *std::move(read.result), now);
        if (!status.ok()) return FailRead(status);
      }
      finished_reads.clear();
      turn_commands_ = 0;
      if (!log_is_full) TakeCommands(commands, now);
      if (ReadPressure() == storage::Pressure::kRefuse) RefuseWaitingPublishes();
      shard_.RunTurn(now);
    }
  }

  // None once draining: then the shard refuses publishes itself, and none may be left waiting.
  storage::Pressure ReadPressure() const {
    return pressure_ && !draining_ ? pressure_->Read() : storage::Pressure::kNone;
  }

  // Hands the shard as much as one turn may take. Publishes keep their order among themselves; under
  // pressure they step aside for everything else.
  void TakeCommands(std::deque<Command>& commands, Now now) {
    while (turn_commands_ < kTurnCommandsMax && shard_.batch_bytes() < kTurnBytesMax) {
      const storage::Pressure pressure = ReadPressure();
      if (commands.empty()) {
        if (publishes_.empty() || pressure != storage::Pressure::kNone) return;
        Command publish = std::move(publishes_.front());
        publishes_.pop_front();
        shard_.Apply(std::move(publish), now);
      } else {
        Command command = std::move(commands.front());
        commands.pop_front();
        if (auto* publish = std::get_if<PublishCommand>(&command)) {
          if (!publishes_.empty() || pressure != storage::Pressure::kNone) {
            publishes_.push_back(std::move(*publish));
            continue;
          }
        }
        if (const auto* gone = std::get_if<AbandonPublishesCommand>(&command)) {
          AbandonWaitingPublishes(gone->caller);
        }
        draining_ = draining_ || std::holds_alternative<DrainCommand>(command) ||
                    std::holds_alternative<StopCommand>(command);
        shard_.Apply(std::move(command), now);
      }
      ++turn_commands_;
    }
  }

  void RefuseWaitingPublishes() {
    AnswerWaitingPublishes(WithRetryAfter(
        MakeError(ErrorReason::kStorageFull,
                  "the server's disk is nearly full; publish again once messages have been "
                  "consumed or purged, or space has been made"),
        kStorageFullRetryMs));
  }

  void AbandonWaitingPublishes(uint64_t caller) {
    std::erase_if(publishes_, [&](PublishCommand& publish) {
      if (publish.caller != caller) return false;
      publish.done(absl::CancelledError("the caller has gone"));
      return true;
    });
  }

  void AnswerWaitingPublishes(const absl::Status& status) {
    for (PublishCommand& publish : publishes_) publish.done(status);
    publishes_.clear();
  }

  // The log works still: what has been decided is made durable and answered, so that whoever is left
  // (consumers) may hear what is wrong. A refusal such as DATA_LOSS would say that it did not happen.
  void FailRead(const absl::Status& cause) {
    if (ReasonOf(cause) != ErrorReason::kDataDamaged) return Fail(cause);
    absl::Status failure;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &EngineImpl::HasSettledDown));
      failure = failure_;
    }
    if (!failure.ok()) return Fail(failure);
    shard_.OnDurable(shard_.last_lsn(), engine_clock_->Read());
    Fail(cause, MakeError(ErrorReason::kDataDamaged,
                          "stored data is damaged and the server is stopping; its log says where, "
                          "and what an operator can do"));
  }
  bool HasSettledDown() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return !failure_.ok() || durable_lsn_ >= shard_.last_lsn();
  }

  // The term is over: nobody may be told anything but that the outcome is unknown.
  void Fail(const absl::Status& cause) {
    Fail(cause, MakeError(ErrorReason::kStoreFailed,
                          "the store has failed and the server is stopping; what was under way may "
                          "or may not have happened"));
  }
  void Fail(const absl::Status& cause, const absl::Status& status) {
    shard_.FailAll(status);
    AnswerWaitingPublishes(status);
    if (on_fatal_) on_fatal_(cause);
    // From here on commands are answered only by the end of their calls: the process exits.
  }

  // ---- reader thread
  bool HasReads() const ABSL_SHARED_LOCKS_REQUIRED(reads_mutex_) {
    return reads_closing_ || !reads_.empty();
  }

  void RunReader() {
    NameThread("reader");
    while (true) {
      ReadRequest request;
      {
        absl::MutexLock lock(&reads_mutex_);
        reads_mutex_.Await(absl::Condition(this, &EngineImpl::HasReads));
        if (reads_closing_) return;
        request = std::move(reads_.front());
        reads_.pop_front();
      }
      FinishedRead finished;
      finished.ticket = request.ticket;
      finished.result = Read(*store_, request);
      absl::MutexLock lock(&mutex_);
      finished_reads_.push_back(std::move(finished));
    }
  }

  Clock* const clock_;
  storage::Store* const store_;
  storage::CommitLog* const log_;
  EngineObserver* const observer_;
  const std::function<void(const absl::Status&)> on_fatal_;
  const bool accept_clock_;
  const uint64_t appended_bytes_max_;
  const storage::PressureGauge* const pressure_;

  // Engine thread.
  Shard shard_;
  std::optional<EngineClock> engine_clock_;
  uint32_t turn_commands_ = 0;
  bool draining_ = false;
  std::deque<PublishCommand> publishes_;  // held back by the pressure

  // Constant after Open.
  std::optional<ReceiptCodec> receipts_;
  std::optional<KeyedHash> hash_;
  std::string server_id_;
  Boot boot_ = 0;

  std::atomic<uint64_t> bytes_in_flight_{0};
  absl::Notification first_batch_durable_;

  absl::Mutex mutex_;
  std::deque<Command> inbox_ ABSL_GUARDED_BY(mutex_);
  std::deque<FinishedRead> finished_reads_ ABSL_GUARDED_BY(mutex_);
  Lsn durable_lsn_ ABSL_GUARDED_BY(mutex_) = 0;
  Lsn seen_durable_lsn_ ABSL_GUARDED_BY(mutex_) = 0;
  bool log_is_full_ ABSL_GUARDED_BY(mutex_) = false;
  bool has_leftovers_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;

  absl::Mutex reads_mutex_;
  std::deque<ReadRequest> reads_ ABSL_GUARDED_BY(reads_mutex_);
  bool reads_closing_ ABSL_GUARDED_BY(reads_mutex_) = false;

  std::thread engine_thread_;
  std::thread reader_thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Start(
    const EngineOptions& options, Clock* clock, storage::Store* store, storage::CommitLog* log,
    EngineObserver* observer, std::function<void(const absl::Status&)> on_fatal) {
  auto engine = std::make_unique<EngineImpl>(options, clock, store, log, observer,
                                             std::move(on_fatal));
  if (absl::Status status = engine->Open(); !status.ok()) return status;
  return std::unique_ptr<Engine>(std::move(engine));
}

}  // namespace sluice::broker
