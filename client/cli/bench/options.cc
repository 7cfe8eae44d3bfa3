#include "client/cli/bench/options.h"

#include "client/cli/bench/body.h"
#include "client/cli/context.h"

namespace sluice::cli::bench {
namespace {

// What a server may be configured to take at most.
constexpr int64_t kBodyBytesMax = 15 << 20;
// A ledger's: see AtomicBits.
constexpr int64_t kCountMax = int64_t{1} << 32;
constexpr int kProducersMax = 1000;
constexpr int kConsumersMax = 1000;
constexpr int kWindowMax = 1'000'000;
constexpr int kBatchMax = 1000;
constexpr int kInFlightMax = 100'000;
constexpr int kCreditMax = 100'000;
constexpr int kAckBatchMax = 10'000;

}  // namespace

void AddLoadOptions(CLI::App& app, Options* options) {
  app.add_option("--count,-n", options->count, "Messages in all [1000000, or as --seconds allows]")
      ->check(CLI::Range(int64_t{1}, kCountMax));
  AddBytes(
      app, "--size,-s",
      [options](int64_t bytes) {
        if (bytes < static_cast<int64_t>(kStampBytes) || bytes > kBodyBytesMax) {
          throw CLI::ValidationError("--size", "from 32 bytes to 15MiB");
        }
        options->size = bytes;
      },
      "Size of each body, of random bytes; at least 32 bytes [1KiB]");
  AddDuration(app, "--warmup", &options->warmup,
              "First do the same uncounted for this long, or for a tenth of --count [1s]");
  app.add_option("--queue", options->queue,
                 "Name of the queue to make, which must not exist [bench. and a random number]");
  app.add_flag("--keep", options->keep, "Do not delete what was made");
}

void AddSecondsOption(CLI::App& app, Options* options) {
  AddDuration(app, "--seconds,-t", &options->seconds, "End after this long [when --count is done]");
}

void AddRateOption(CLI::App& app, Options* options) {
  AddRate(
      app, "--rate,-r", [options](double per_second) { options->rate = per_second; },
      "Messages per second of all producers, for example 2000/s; latencies then count from when "
      "each was due [as fast as it goes]");
}

void AddProducerOptions(CLI::App& app, Options* options) {
  app.add_option("--producers,-p", options->producers, "Producers, each on a connection of its own")
      ->check(CLI::Range(1, kProducersMax))
      ->capture_default_str();
  app.add_option("--window,-w", options->window, "Messages of each producer unconfirmed at a time")
      ->check(CLI::Range(1, kWindowMax))
      ->capture_default_str();
  app.add_option("--batch", options->batch, "Messages of one request at most [1000; unary 1]")
      ->check(CLI::Range(1, kBatchMax));
}

void AddConsumerOptions(CLI::App& app, Options* options) {
  app.add_option("--consumers,-c", options->consumers,
                 "Consumers, each on a connection of its own")
      ->check(CLI::Range(1, kConsumersMax))
      ->capture_default_str();
  AddCreditOptions(app, options);
}

void AddCreditOptions(CLI::App& app, Options* options) {
  app.add_option("--credit", options->credit, "Messages that each consumer holds unsettled at most")
      ->check(CLI::Range(1, kCreditMax))
      ->capture_default_str();
  app.add_option("--ack-batch", options->ack_batch,
                 "Acks of one call at most; they gather while the call before is under way")
      ->check(CLI::Range(1, kAckBatchMax))
      ->capture_default_str();
}

void DefaultToCount(int64_t count, Options* options) {
  if (options->count == 0 && options->seconds == absl::InfiniteDuration()) options->count = count;
}

}  // namespace sluice::cli::bench
