// `sluice subscribe`
#include <iostream>
#include <mutex>
#include <optional>

#include "client/cli/commands.h"
#include "client/cli/format.h"
#include "client/cli/output_file.h"
#include "client/cli/stop_on_signal.h"
#include "client/cpp/consumer.h"

namespace sluice::cli {
namespace {

struct SubscribeOptions {
  client::ConsumerOptions consumer;
  absl::Duration idle_timeout = absl::Seconds(2);
  bool ack = false;
  std::string acked_path;
};

class Subscription {
 public:
  Subscription(Context& context, const SubscribeOptions& options)
      : context_(context), options_(options) {}

  int Run() {
    if (!options_.acked_path.empty()) {
      auto file = OutputFile::Create(options_.acked_path);
      if (!file.ok()) return context_.Fail(file.status());
      acked_file_.emplace(*std::move(file));
    }
    StopOnSignal signals;
    client::ConsumerOptions consumer_options = options_.consumer;
    consumer_options.after_batch = [this] { EndBatch(); };
    consumer_options.on_reopen = [this](const absl::Status& status) {
      if (!said_away_) std::cerr << "sluice: " << context_.Explain(status) << "; trying again\n";
      said_away_ = true;
    };
    consumer_options.on_lease_lost = [](const v1::LeaseLost& lost) {
      std::cerr << "sluice: lost the " << (lost.receipts_size() == 1 ? "lease" : "leases") << " of "
                << HumanCount(lost.receipts_size(), "message") << "\n";
    };
    consumer_.emplace(context_.client(), std::move(consumer_options));
    signals.Start([this] { consumer_->Stop(); });
    const absl::Status status =
        consumer_->Run([this](const v1::Delivery& delivery) { Take(delivery); });
    return Report(status);
  }

 private:
  struct Written {
    std::string receipt;
    std::string body;  // only for the acked file
  };

  void Take(const v1::Delivery& delivery) {
    said_away_ = false;
    if (!output_status_.ok()) return;
    output_status_ = output_.AppendLine(context_.json ? ToJson(delivery, false)
                                                      : delivery.message().body());
    if (options_.ack) {
      batch_.push_back({delivery.receipt(), acked_file_ ? delivery.message().body() : ""});
    }
  }

  // Acks only what has left this process: a message that nobody saw must come again.
  void EndBatch() {
    if (output_status_.ok()) output_status_ = output_.Flush();
    if (!output_status_.ok()) {
      batch_.clear();
      consumer_->Stop();
      return;
    }
    for (Written& written : batch_) {
      consumer_->Ack(written.receipt,
                     [this, body = std::move(written.body)](const absl::Status& status) {
                       Acked(status, body);
                     });
    }
    batch_.clear();
  }

  // On the thread of the client.
  void Acked(const absl::Status& status, const std::string& body) {
    std::lock_guard lock(mutex_);
    if (!status.ok()) {
      ++ack_failures_;
      ack_status_ = status;
      return;
    }
    if (!acked_file_) return;
    absl::Status written = acked_file_->AppendLine(body);
    written.Update(acked_file_->Flush());
    if (!written.ok()) ack_status_ = written;
  }

  int Report(const absl::Status& status) {
    std::lock_guard lock(mutex_);
    if (!output_status_.ok()) {
      // `sluice subscribe q | head` is no failure.
      return output_.broken_pipe() ? kExitOk : context_.Fail(output_status_);
    }
    if (ack_failures_ > 0) {
      std::cerr << "sluice: " << HumanCount(ack_failures_, "ack") << " failed; "
                << (ack_failures_ == 1 ? "its message" : "their messages") << " may come again\n";
    }
    if (!status.ok()) return context_.Fail(status);
    if (!ack_status_.ok()) return context_.Fail(ack_status_);
    return kExitOk;
  }

  Context& context_;
  const SubscribeOptions& options_;
  // Of the thread that runs the consumer:
  OutputFile output_;
  absl::Status output_status_;
  std::vector<Written> batch_;
  bool said_away_ = false;

  std::mutex mutex_;
  // Guarded by mutex_ once the consumer runs:
  std::optional<OutputFile> acked_file_;
  int64_t ack_failures_ = 0;
  absl::Status ack_status_;

  // Last: its threads use the above.
  std::optional<client::Consumer> consumer_;
};

int Subscribe(Context& context, SubscribeOptions& options) {
  if (!options.acked_path.empty() && !options.ack) {
    std::cerr << "sluice: --acked-file needs --ack\n";
    return kExitUsage;
  }
  if (!options.consumer.reopen) options.consumer.idle_timeout = options.idle_timeout;
  return Subscription(context, options).Run();
}

}  // namespace

void AddSubscribeCommand(CLI::App& app, Context& context) {
  auto options = std::make_shared<SubscribeOptions>();
  client::ConsumerOptions& consumer = options->consumer;
  CLI::App* command = AddCommand(
      app, context, "subscribe",
      "Print messages as they come: bodies one a line, or with --json whole deliveries.\n"
      "Ends when the queue was idle for a while; with --follow only on Ctrl-C. Without --ack or "
      "--auto-ack nothing is settled: the messages come again.",
      "  sluice subscribe orders --ack\n"
      "  sluice subscribe orders --ack --follow | while read -r line; do echo \"$line\"; done\n"
      "  sluice subscribe orders --count 3 --json | jq -r .receipt\n"
      "  sluice subscribe orders --ack --follow --rate 10/s --exclusive\n",
      [&context, options] { return Subscribe(context, *options); });
  command->add_option("queue", consumer.queue, "Name of the queue")->required();
  CLI::Option* ack = command->add_flag("--ack", options->ack,
                                       "Ack each message once it has been written out");
  command
      ->add_flag("--auto-ack", consumer.auto_ack,
                 "The server acks as it hands out: fast, but what gets lost on the way is lost")
      ->excludes(ack);
  command->add_option("--count,-n", consumer.max_messages, "End after this many messages")
      ->check(FromOn(1));
  command->add_flag("--follow,-f", consumer.reopen,
                    "Go on for ever, and subscribe again when the server goes away or the stream breaks");
  AddDuration(*command, "--idle-timeout", &options->idle_timeout,
              "Without --follow: end when nothing came for this long; 0 is never [2s]");
  command->add_option("--max-in-flight", consumer.max_in_flight,
                      "Messages held and not settled at most [100]")
      ->check(CLI::Range(1, 100'000));
  AddBytes(
      *command, "--max-bytes-in-flight",
      [options](int64_t bytes) { options->consumer.max_bytes_in_flight = bytes; },
      "Bytes of messages held and not settled at most [2MiB]");
  AddLease(*command, &consumer.lease, "Time to ack each message [the queue's]");
  command->add_option("--consumer", consumer.consumer, "A name for this consumer, for people");
  command->add_option("--priority", consumer.consumer_priority,
                      "Consumers of a higher number are served first [0]");
  command->add_flag("--exclusive", consumer.exclusive,
                    "Be the queue's only consumer, or be refused");
  AddRate(
      *command, "--rate",
      [options](double per_second) { options->consumer.rate_per_second = per_second; },
      "Pace of deliveries, for example 10/s or 600/m [no limit]");
  command->add_flag("--keep-leases", consumer.keep_leases_on_close,
                    "When the stream breaks, keep what it holds until the leases end");
  command->add_option("--acked-file", options->acked_path,
                      "With --ack: write each body here once its ack is confirmed");
}

}  // namespace sluice::cli
