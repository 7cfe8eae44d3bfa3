// `sluice work`
#include <iostream>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/format.h"
#include "client/cli/output_file.h"
#include "client/cli/shell.h"
#include "client/cli/stop_on_signal.h"
#include "client/cpp/worker.h"

namespace sluice::cli {
namespace {

struct WorkOptions {
  client::WorkerOptions worker;
  std::string command;
  bool quiet = false;
};

class QueueWork {
 public:
  QueueWork(Context& context, const WorkOptions& options) : context_(context), options_(options) {}

  int Run() {
    StopOnSignal signals;
    client::WorkerOptions worker_options = options_.worker;
    worker_options.on_settled = [this](const v1::Delivery& delivery, const absl::Status& status) {
      Settled(delivery, status);
    };
    worker_options.on_reopen = [this](const absl::Status& status) {
      Say(absl::StrCat(context_.Explain(status), "; trying again"));
    };
    worker_.emplace(context_.client(), std::move(worker_options));
    signals.Start([this] { worker_->Stop(); });
    const absl::Status status =
        worker_->Run([this](const v1::Delivery& delivery) { return Work(delivery); });
    return Report(status);
  }

 private:
  // Of a message that is not acked.
  enum class Outcome { kFailed, kGivenBack };

  client::Worker::Verdict Work(const v1::Delivery& delivery) {
    {
      std::lock_guard lock(mutex_);
      if (!output_status_.ok()) return GiveBack(delivery);
    }
    const auto output = RunShell(options_.command, delivery);
    std::lock_guard lock(mutex_);
    if (!output.ok()) {
      outcomes_[delivery.receipt()] = Outcome::kFailed;
      Complain(delivery, output.status());
      return RetryBecause(output.status());
    }
    if (output->empty() || Print(*output)) return std::nullopt;
    worker_->Stop();
    return GiveBack(delivery);
  }

  // Whether it has left this process, to the end.
  bool Print(const std::string& output) {
    output_status_ = output_.Append(output);
    if (output_status_.ok()) output_status_ = output_.Flush();
    return output_status_.ok();
  }

  // It is not the message's fault: no attempt of it is used up.
  client::Worker::Verdict GiveBack(const v1::Delivery& delivery) {
    outcomes_[delivery.receipt()] = Outcome::kGivenBack;
    v1::NackItem nack;
    nack.set_action(v1::NACK_ACTION_RELEASE);
    return nack;
  }

  void Settled(const v1::Delivery& delivery, const absl::Status& status) {
    std::lock_guard lock(mutex_);
    std::optional<Outcome> outcome;
    if (const auto known = outcomes_.extract(delivery.receipt())) outcome = known.mapped();
    if (!status.ok()) {
      Complain(delivery, status);
      if (!outcome) outcome = Outcome::kFailed;
    }
    ++(outcome == Outcome::kGivenBack ? given_back_ : worked_on_);
    if (outcome == Outcome::kFailed) ++failed_;
  }

  int Report(const absl::Status& status) {
    std::lock_guard lock(mutex_);
    if (!options_.quiet) {
      std::cerr << "worked on " << HumanCount(worked_on_, "message");
      if (failed_ > 0) std::cerr << ", failed " << HumanCount(failed_);
      if (given_back_ > 0) std::cerr << ", gave back " << HumanCount(given_back_);
      std::cerr << "\n";
    }
    // `sluice work q --exec cat | head` is no failure.
    if (!output_status_.ok() && !output_.broken_pipe()) return context_.Fail(output_status_);
    if (!status.ok()) return context_.Fail(status);
    return failed_ > 0 ? kExitRefused : kExitOk;
  }

  void Complain(const v1::Delivery& delivery, const absl::Status& status) const {
    Say(absl::StrCat(delivery.message().id(), ": ", context_.Explain(status)));
  }
  static void Say(const std::string& text) {
    std::cerr << absl::StrCat("sluice: ", text, "\n") << std::flush;
  }

  Context& context_;
  const WorkOptions& options_;
  std::mutex mutex_;
  // Guarded by mutex_, which also keeps outputs whole:
  OutputFile output_;
  absl::Status output_status_;
  std::map<std::string, Outcome> outcomes_;  // by receipt, until it is settled
  int64_t worked_on_ = 0;
  int64_t failed_ = 0;
  int64_t given_back_ = 0;

  // Last: its threads use the above.
  std::optional<client::Worker> worker_;
};

}  // namespace

void AddWorkCommand(CLI::App& app, Context& context) {
  auto options = std::make_shared<WorkOptions>();
  client::WorkerOptions& worker = options->worker;
  CLI::App* command = AddCommand(
      app, context, "work",
      "Run a command for each message of a queue, with the body as its input: exit code 0 acks the "
      "message, any other gives it back for a retry. Leases are extended while it runs. Goes on "
      "until Ctrl-C, which lets what runs finish.",
      "  sluice work thumbnails --exec './make-thumbnail.sh' --jobs 4\n"
      "  sluice work mail --exec 'sendmail -t' --idle-timeout 1m\n",
      [&context, options] { return QueueWork(context, *options).Run(); });
  command->add_option("queue", worker.queue, "Name of the queue")->required();
  command
      ->add_option("--exec", options->command,
                   absl::StrCat(kShellHelp,
                                ". What it prints is printed; where that cannot be, the message "
                                "goes back as it was, with no attempt used up, and the work ends"))
      ->required();
  command->add_option("--jobs,-j", worker.threads, "Messages worked on at the same time")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--count,-n", worker.max_messages, "End after this many messages")
      ->check(FromOn(1));
  AddDuration(*command, "--idle-timeout", &worker.idle_timeout,
              "End when nothing was there for this long");
  AddDuration(*command, "--lease", &worker.lease,
              "How soon a message is tried again when this process dies [the queue's]");
  command->add_option("--consumer", worker.consumer, "A name for people and metrics");
  command->add_option("--priority", worker.consumer_priority,
                      "Consumers of a higher number are served first");
  command->add_flag("--quiet,-q", options->quiet, "No count at the end");
}

}  // namespace sluice::cli
