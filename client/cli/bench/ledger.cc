#include "client/cli/bench/ledger.h"

#include "client/cli/bench/clock.h"

namespace sluice::cli::bench {

Ledger::Ledger(uint64_t run, int producers) : run_(run) {
  for (int i = 0; i < producers; ++i) producers_.push_back(std::make_unique<Producer>());
}

std::optional<Stamp> Ledger::Deliver(const v1::Delivery& delivery) {
  std::optional<Stamp> stamp = ReadStamp(delivery.message().body());
  if (!stamp || stamp->run != run_ || stamp->producer >= producers_.size()) {
    ++foreign_;
    return std::nullopt;
  }
  if (producers_[stamp->producer]->delivered.Set(stamp->sequence)) {
    ++consumed_;
  } else if (delivery.delivery_count() > 1 || delivery.maybe_redelivered()) {
    ++redelivered_;
  } else {
    ++duplicates_;
  }
  return stamp;
}

void Ledger::Ack(uint32_t producer, uint64_t sequence) {
  if (!producers_[producer]->acked.Set(sequence)) return;
  last_ack_ns_.store(NowNs(), std::memory_order_relaxed);
  acked_.fetch_add(1, std::memory_order_release);
}

Consumed Ledger::figures() const {
  Consumed figures;
  figures.consumed = consumed_;
  figures.acked = acked_;
  figures.redelivered = redelivered_;
  figures.duplicates = duplicates_;
  figures.foreign = foreign_;
  return figures;
}

}  // namespace sluice::cli::bench
