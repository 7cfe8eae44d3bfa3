// What has been consumed: finds what was lost, handed out twice, or is not ours.
#ifndef SLUICE_CLIENT_CLI_BENCH_LEDGER_H_
#define SLUICE_CLIENT_CLI_BENCH_LEDGER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "client/cli/bench/atomic_bits.h"
#include "client/cli/bench/body.h"
#include "sluice/v1/delivery.pb.h"

namespace sluice::cli::bench {

// The figures of a ledger, and what they say.
struct Consumed {
  int64_t published = 0;    // confirmed
  int64_t consumed = 0;     // different messages delivered
  int64_t acked = 0;        // different messages whose ack was confirmed
  int64_t redelivered = 0;  // deliveries of a message seen before, marked so: at least once
  int64_t duplicates = 0;   // the same without saying so
  int64_t foreign = 0;      // bodies that this run never published
};

// Thread-safe; figures lag behind the calls by no more than what is under way.
class Ledger {
 public:
  // For messages stamped with `run`, whose producers are numbered below `producers`.
  Ledger(uint64_t run, int producers);

  // Notes a delivery. Its stamp, if it is this run's.
  std::optional<Stamp> Deliver(const v1::Delivery& delivery);
  // The ack of such a delivery was confirmed.
  void Ack(uint32_t producer, uint64_t sequence);

  int64_t acked() const { return acked_.load(std::memory_order_acquire); }
  // When the newest ack was confirmed, in steady nanoseconds.
  int64_t last_ack_ns() const { return last_ack_ns_.load(std::memory_order_relaxed); }
  // `published` is filled in by whoever knows.
  Consumed figures() const;

 private:
  struct Producer {
    AtomicBits delivered;
    AtomicBits acked;
  };

  const uint64_t run_;
  std::vector<std::unique_ptr<Producer>> producers_;
  std::atomic<int64_t> consumed_{0};
  std::atomic<int64_t> acked_{0};
  std::atomic<int64_t> last_ack_ns_{0};
  std::atomic<int64_t> redelivered_{0};
  std::atomic<int64_t> duplicates_{0};
  std::atomic<int64_t> foreign_{0};
};

}  // namespace sluice::cli::bench

#endif  // SLUICE_CLIENT_CLI_BENCH_LEDGER_H_
