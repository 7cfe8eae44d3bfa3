#include "client/cli/publish_lines.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <iostream>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/format.h"
#include "client/cli/line_input.h"
#include "client/cli/output_file.h"
#include "client/cli/stop_on_signal.h"

namespace sluice::cli {
namespace {

// Often enough to look alive.
constexpr absl::Duration kProgressEvery = absl::Milliseconds(500);
// Between two looks at the clock: lines are far cheaper than that.
constexpr int64_t kLinesPerLook = 1000;
// Refused lines explained one by one; the rest only counts.
constexpr int kRefusalsShown = 10;

class LinePublisher {
 public:
  LinePublisher(Context& context, const PublishLinesOptions& options)
      : context_(context),
        options_(options),
        started_(absl::Now()),
        show_progress_(!options.quiet && ::isatty(STDERR_FILENO) == 1) {}

  int Run() {
    if (!options_.confirmed_path.empty()) {
      auto file = OutputFile::Create(options_.confirmed_path);
      if (!file.ok()) return context_.Fail(file.status());
      confirmed_.emplace(*std::move(file));
    }
    StopOnSignal signals;
    publisher_.emplace(context_.client(), options_.publisher);
    signals.Start([this] { input_.Stop(); });
    absl::Status status = PublishAll();
    const absl::Status flushed = FlushWhileMoving();
    if (status.ok()) status = flushed;
    publisher_->Close(absl::ZeroDuration()).IgnoreError();
    ClearProgress();
    return Report(status);
  }

 private:
  absl::Status PublishAll() {
    std::string line;
    while (input_.Next(&line)) {
      ++lines_;
      client::PublishCallback callback;
      if (confirmed_) {
        callback = [this, number = lines_, body = line](const client::PublishOutcome& outcome) {
          Settled(outcome.status, number, &body);
        };
      } else {
        callback = [this, number = lines_](const client::PublishOutcome& outcome) {
          Settled(outcome.status, number, nullptr);
        };
      }
      v1::Message message = options_.prototype;
      message.set_body(std::move(line));
      line.clear();
      const absl::Status status = publisher_->Publish(std::move(message), std::move(callback));
      if (client::ReasonOf(status) == v1::ERROR_REASON_MESSAGE_TOO_LARGE) {
        SayRefused(status, lines_);
      } else if (!status.ok()) {
        stopped_at_line_ = lines_;
        return status;
      }
      if (lines_ % kLinesPerLook == 0) ShowProgress();
    }
    if (input_.stopped() || !input_.status().ok()) stopped_at_line_ = lines_ + 1;
    return input_.status();
  }

  // From any thread.
  void SayRefused(const absl::Status& status, int64_t line) {
    if (++refusals_ > kRefusalsShown) return;
    std::cerr << absl::StrCat("sluice: line ", line, " not stored: ", context_.Explain(status), "\n")
              << std::flush;
  }

  // On the client's thread or one of the publisher's, one at a time.
  void Settled(const absl::Status& status, int64_t line, const std::string* body) {
    if (status.ok()) {
      if (body == nullptr) return;
      // Flushed line by line: the file must hold every confirmed line even if this process dies.
      absl::Status written = confirmed_->AppendLine(*body);
      written.Update(confirmed_->Flush());
      if (!written.ok() && file_status_.ok()) file_status_ = written;
    } else if (client::MaybeHappened(status)) {
      break_ = status;
    } else if (!client::IsNotSent(status)) {
      SayRefused(status, line);
    }
  }

  // Waits as long as answers keep coming, or a reopening publisher keeps trying.
  absl::Status FlushWhileMoving() {
    const absl::Duration patience =
        options_.publisher.after_break == client::AfterBreak::kStop
            ? context_.timeout
            : context_.timeout + options_.publisher.reopen_timeout;
    int64_t last_open = -1;
    absl::Time moved = absl::Now();
    while (true) {
      const absl::Status status = publisher_->Flush(kProgressEvery);
      if (!absl::IsDeadlineExceeded(status)) return status;
      const int64_t open = publisher_->counts().in_flight;
      const absl::Time now = absl::Now();
      if (open != last_open) moved = now;
      last_open = open;
      if (now - moved > patience) return status;
      ShowProgress();
    }
  }

  void ShowProgress() {
    const absl::Time now = absl::Now();
    if (!show_progress_ || now - progress_shown_ < kProgressEvery) return;
    progress_shown_ = now;
    const auto counts = publisher_->counts();
    std::cerr << "\r\033[K" << HumanCount(counts.confirmed) << " confirmed, "
              << HumanCount(counts.in_flight) << " in flight, "
              << HumanCount(static_cast<int64_t>(
                     static_cast<double>(counts.confirmed) /
                     std::max(0.001, absl::ToDoubleSeconds(now - started_))))
              << "/s" << std::flush;
  }

  void ClearProgress() const {
    if (show_progress_ && progress_shown_ != absl::InfinitePast()) std::cerr << "\r\033[K";
  }

  int Report(const absl::Status& status) {
    const auto counts = publisher_->counts();
    const absl::Duration took = absl::Now() - started_;
    if (context_.json) {
      std::cout << absl::StrCat("{\"confirmed\":", counts.confirmed,
                                ",\"duplicates\":", counts.duplicates,
                                ",\"refused\":", counts.refused,
                                ",\"not_sent\":", counts.not_sent,
                                ",\"unknown\":", counts.unknown, ",\"resent\":", counts.resent,
                                ",\"all_read\":", stopped_at_line_ == 0 ? "true" : "false",
                                ",\"seconds\":", absl::ToDoubleSeconds(took), "}")
                << std::endl;
    } else if (!options_.quiet) {
      std::string text = absl::StrCat("confirmed ", HumanCount(counts.confirmed, "message"));
      if (counts.duplicates > 0) {
        absl::StrAppend(&text, ", ", HumanCount(counts.duplicates), " of them known already");
      }
      if (counts.refused > 0) absl::StrAppend(&text, ", not stored ", HumanCount(counts.refused));
      if (counts.not_sent > 0) absl::StrAppend(&text, ", not sent ", HumanCount(counts.not_sent));
      if (counts.unknown > 0) absl::StrAppend(&text, ", unknown ", HumanCount(counts.unknown));
      if (counts.resent > 0) {
        absl::StrAppend(&text, ", sent again ", HumanCount(counts.resent), " (maybe twice stored)");
      }
      std::cout << text << " (" << HumanBytes(input_.bytes()) << " read in " << HumanDuration(took) << ")"
                << std::endl;
    }
    if (stopped_at_line_ > 0) {
      std::cerr << "sluice: stopped at line " << stopped_at_line_
                << " of the input; it and what follows it was not sent\n";
    }
    if (!file_status_.ok()) return context_.Fail(file_status_);
    if (!status.ok()) return context_.Fail(status);
    if (!break_.ok()) return context_.Fail(break_);
    return counts.refused > 0 || input_.stopped() ? kExitRefused : kExitOk;
  }

  Context& context_;
  const PublishLinesOptions& options_;
  const absl::Time started_;
  const bool show_progress_;
  absl::Time progress_shown_ = absl::InfinitePast();
  LineInput input_{STDIN_FILENO};
  int64_t lines_ = 0;
  int64_t stopped_at_line_ = 0;  // 0: the input was read to its end
  std::atomic<int> refusals_{0};

  // Of callbacks; read only after Close.
  std::optional<OutputFile> confirmed_;
  absl::Status file_status_;
  absl::Status break_;

  // Last, so that its threads end before what their callbacks use.
  std::optional<client::Publisher> publisher_;
};

}  // namespace

int PublishLines(Context& context, const PublishLinesOptions& options) {
  return LinePublisher(context, options).Run();
}

}  // namespace sluice::cli
