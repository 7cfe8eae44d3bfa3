// `sluice request`, `sluice reply`
#include <sys/random.h>

#include <condition_variable>
#include <iostream>
#include <mutex>
#include <optional>
#include <thread>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/format.h"
#include "client/cli/message_options.h"
#include "client/cli/output_file.h"
#include "client/cli/shell.h"
#include "client/cli/stop_on_signal.h"
#include "client/cpp/consumer.h"
#include "client/cpp/time.h"

namespace sluice::cli {
namespace {

using Queues = v1::QueueService::StubInterface;

// ---- request

struct RequestOptions {
  std::string queue;
  v1::Message message;
  absl::Duration wait = absl::Seconds(10);
};

std::string NewCorrelationId() {
  char random[16];
  if (getrandom(random, sizeof(random), 0) != sizeof(random)) return "";
  return absl::BytesToHexString({random, sizeof(random)});
}

// Cancels a call after a while, unless it is over before.
class CancelAfter {
 public:
  CancelAfter(grpc::ClientContext& call, absl::Duration wait)
      : thread_([this, &call, wait] {
          std::unique_lock lock(mutex_);
          if (!client::WaitFor(changed_, lock, wait, [this] { return over_; })) call.TryCancel();
        }) {}
  ~CancelAfter() {
    {
      std::lock_guard lock(mutex_);
      over_ = true;
      changed_.notify_all();
    }
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;  // last: uses the above
};

// Opens a queue for the reply that lives as long as this stream, publishes, and waits for the
// answer that belongs to it.
int Request(Context& context, RequestOptions& options) {
  if (!options.message.reply_to().empty()) {
    std::cerr << "sluice: request makes a queue for its reply: leave --reply-to out\n";
    return kExitUsage;
  }
  grpc::ClientContext call;
  v1::SubscribeRequest subscribe;
  subscribe.mutable_temporary_queue();
  subscribe.set_auto_ack(true);
  auto stream = context.client().queues().Subscribe(&call, subscribe);
  v1::SubscribeResponse response;
  {
    const CancelAfter patience(call, context.timeout);
    if (!stream->Read(&response)) return context.Fail(client::FromGrpc(stream->Finish()));
  }

  if (options.message.correlation_id().empty()) {
    options.message.set_correlation_id(NewCorrelationId());
  }
  options.message.set_reply_to(response.started().queue());
  v1::PublishRequest publish;
  publish.set_queue(options.queue);
  *publish.add_messages() = options.message;
  if (const auto published = context.client().Call(&Queues::Publish, publish); !published.ok()) {
    call.TryCancel();
    stream->Finish();
    return context.Fail(published.status());
  }
  std::optional<v1::Delivery> reply;
  {
    const CancelAfter patience(call, options.wait);
    do {
      for (const v1::Delivery& delivery : response.deliveries()) {
        const bool ours = delivery.message().correlation_id() == options.message.correlation_id();
        if (ours && !reply) reply = delivery;
      }
    } while (!reply && stream->Read(&response));
  }
  call.TryCancel();
  const absl::Status status = client::FromGrpc(stream->Finish());
  if (!reply && !absl::IsCancelled(status)) return context.Fail(status);
  if (!reply) {
    std::cerr << "sluice: no reply within " << HumanDuration(options.wait) << " (--wait)\n";
    return kExitNothing;
  }
  OutputFile output;
  output.AppendLine(context.json ? ToJson(*reply, false) : reply->message().body())
      .IgnoreError();  // Flush tells
  const absl::Status written = output.Flush();
  return written.ok() ? kExitOk : context.Fail(written);
}

// ---- reply

struct ReplyOptions {
  client::ConsumerOptions consumer;
  std::string command;
  bool echo = false;
  bool quiet = false;
};

class Replier {
 public:
  Replier(Context& context, const ReplyOptions& options) : context_(context), options_(options) {}

  int Run() {
    StopOnSignal signals;
    consumer_.emplace(context_.client(), options_.consumer);
    signals.Start([this] { consumer_->Stop(); });
    const absl::Status status =
        consumer_->Run([this](const v1::Delivery& delivery) { Take(delivery); });
    if (!options_.quiet) {
      std::cerr << "replied to " << HumanCount(replied_, "message");
      if (failed_ > 0) std::cerr << ", failed " << HumanCount(failed_);
      std::cerr << "\n";
    }
    if (!status.ok()) return context_.Fail(status);
    return failed_ > 0 ? kExitRefused : kExitOk;
  }

 private:
  void Take(const v1::Delivery& delivery) {
    const v1::Message& message = delivery.message();
    const auto body = options_.echo ? absl::StatusOr<std::string>(message.body())
                                    : RunShell(options_.command, delivery);
    if (!body.ok()) return GiveBack(delivery, body.status());
    if (message.reply_to().empty()) {
      // Nobody asked for an answer; the work is done all the same.
      return Settle(delivery, {});
    }
    v1::PublishRequest reply;
    reply.set_queue(message.reply_to());
    v1::Message& answer = *reply.add_messages();
    answer.set_body(*body);
    answer.set_correlation_id(message.correlation_id());
    Settle(delivery, {reply});
  }

  // Replies and acks in one step: neither a second reply nor a lost one.
  void Settle(const v1::Delivery& delivery, const std::vector<v1::PublishRequest>& replies) {
    v1::TransactRequest request;
    v1::AckRequest& ack = *request.add_acks();
    ack.set_queue(delivery.queue());
    ack.add_receipts(delivery.receipt());
    for (const v1::PublishRequest& reply : replies) *request.add_publishes() = reply;
    const auto response = context_.client().Call(&Queues::Transact, request);
    if (response.ok()) {
      ++replied_;
    } else if (!replies.empty() &&
               client::ReasonOf(response.status()) == v1::ERROR_REASON_QUEUE_NOT_FOUND) {
      // Whoever asked has gone, and the answer has nowhere to go.
      Settle(delivery, {});
    } else {
      GiveBack(delivery, response.status());
    }
  }

  void GiveBack(const v1::Delivery& delivery, const absl::Status& status) {
    ++failed_;
    std::cerr << "sluice: " << delivery.message().id() << ": " << context_.Explain(status) << "\n";
    v1::NackItem item = RetryBecause(status);
    item.set_receipt(delivery.receipt());
    consumer_->Nack(std::move(item));
  }

  Context& context_;
  const ReplyOptions& options_;
  int64_t replied_ = 0;
  int64_t failed_ = 0;
  std::optional<client::Consumer> consumer_;
};

int Reply(Context& context, ReplyOptions& options) {
  options.consumer.reopen = options.consumer.max_messages == 0;
  return Replier(context, options).Run();
}

}  // namespace

void AddRequestCommands(CLI::App& app, Context& context) {
  auto request = std::make_shared<RequestOptions>();
  CLI::App* command = AddCommand(
      app, context, "request",
      "Publish a message and print the reply to it; exit code 4 if none comes in time",
      "  sluice request sums '2 + 3'\n"
      "  sluice request sums '2 + 3' --wait 1m --json | jq .message\n",
      [&context, request] { return Request(context, *request); });
  command->add_option("queue", request->queue, "Name of the queue")->required();
  command->add_option("body", *request->message.mutable_body(), "The message")->required();
  AddDuration(*command, "--wait", &request->wait, "Wait this long for the reply [10s]");
  AddMessageOptions(*command, &request->message);

  auto reply = std::make_shared<ReplyOptions>();
  command = AddCommand(
      app, context, "reply",
      "Answer the messages of a queue, one at a time: each body is the input of a command, and what "
      "it prints is the reply, to the queue and with the correlation id that the message names. "
      "A command that fails gives its message back. Goes on until Ctrl-C.",
      "  sluice reply sums --exec bc\n"
      "  sluice reply pings --echo --count 1\n",
      [&context, reply] { return Reply(context, *reply); });
  command->add_option("queue", reply->consumer.queue, "Name of the queue")->required();
  CLI::Option_group* how = command->add_option_group("how");
  how->add_option("--exec", reply->command,
                  kShellHelp);
  how->add_flag("--echo", reply->echo, "Reply with the body itself");
  how->require_option(1);
  command->add_option("--count,-n", reply->consumer.max_messages, "End after this many messages")
      ->check(FromOn(1));
  command->add_option("--max-in-flight", reply->consumer.max_in_flight,
                      "Messages held and not answered at most [100]")
      ->check(CLI::Range(1, 100'000));
  AddDuration(*command, "--lease", &reply->consumer.lease,
              "Time to answer each message [the queue's]");
  command->add_flag("--quiet,-q", reply->quiet, "No count at the end");
}

}  // namespace sluice::cli
