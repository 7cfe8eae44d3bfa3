#include "client/cli/bench/stream_producer.h"

#include <utility>

#include "client/cli/bench/clock.h"

namespace sluice::cli::bench {
namespace {

constexpr int kBatchDefault = 1000;
// The window is told in messages; in bytes there is room for it, up to what a server may take.
constexpr size_t kWindowBytes = 64 << 20;

client::PublisherOptions OptionsFor(const Options& options, const ProducersTarget& target) {
  client::PublisherOptions publisher;
  publisher.queue = target.queue;
  publisher.exchange = target.exchange;
  publisher.mandatory = !target.exchange.empty();
  publisher.max_in_flight = options.window;
  publisher.max_bytes_in_flight = kWindowBytes;
  publisher.max_batch_messages = options.batch > 0 ? options.batch : kBatchDefault;
  return publisher;
}

}  // namespace

Producers::StreamProducer::StreamProducer(Run& run, const ProducersTarget& target, int index)
    : Producer(run, target, index),
      client_(run.NewClient()),
      random_(std::random_device{}()),
      publisher_(*client_, OptionsFor(run.options(), target)) {}

// What a stopped run leaves open has no outcome to wait for.
Producers::StreamProducer::~StreamProducer() {
  publisher_.Close(run_.stopping() ? absl::ZeroDuration() : absl::InfiniteDuration()).IgnoreError();
}

void Producers::StreamProducer::Publish(const Phase& phase, Pacer& pacer) {
  while (const std::optional<int64_t> due_ns = pacer.Next()) {
    v1::Message message;
    message.set_body(NextBody(phase, *due_ns));
    if (!target_.routing_keys.empty()) {
      message.set_routing_key(target_.routing_keys[random_() % target_.routing_keys.size()]);
    }
    const auto outcome = [this, due = *due_ns](const client::PublishOutcome& outcome) {
      if (outcome.status.ok()) {
        Confirmed(due, NowNs());
      } else if (!client::IsNotSent(outcome.status)) {  // of which the publisher tells the cause
        run_.Fail(outcome.status);
      }
    };
    const absl::Status status = publisher_.Publish(std::move(message), outcome);
    if (!status.ok()) return run_.Fail(status);
  }
  const bool moved = WaitWhileMoving(
      run_, [this] { return publisher_.counts().in_flight == 0; },
      [this] { return publisher_.counts().confirmed; });
  if (!moved && !run_.stopping()) {
    return run_.Fail(absl::FailedPreconditionError("publishes are not confirmed"));
  }
  if (!moved) return;
  // Waits for the callbacks of the last to return.
  if (const absl::Status ended = publisher_.Flush(); !ended.ok()) run_.Fail(ended);
}

}  // namespace sluice::cli::bench
