#include "server/broker/producers.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::broker {
namespace {

constexpr int64_t kFullRetryMs = kMinuteMs;

absl::Status Fenced() {
  return MakeError(ErrorReason::kProducerFenced,
                   "a newer stream of the same producer has taken over");
}

absl::Status TargetGone(const ProducerTarget& target) {
  return target.is_exchange
             ? MakeError(ErrorReason::kExchangeNotFound,
                         "the exchange that the stream publishes to was deleted")
             : MakeError(ErrorReason::kQueueDeleted,
                         "the queue that the stream publishes to was deleted");
}

}  // namespace

// One text for each target and id. None begins like those of earlier versions, which had the name
// where the number is ("q\n" and "e\n"): a queue may have a number for its name.
Hash128 Producers::HashOf(const KeyedHash& hash, const ProducerTarget& target,
                          const std::string& producer_id) {
  return hash.Wide(absl::StrCat(target.is_exchange ? "exchange\n" : "queue\n", target.number, "\n",
                                producer_id));
}

void Producers::Forget(const Hash128& producer) {
  const Known& known = known_.at(producer);
  streams_.erase(known.stream);
  by_target_.erase({known.target, producer});
  known_.erase(producer);
}

absl::StatusOr<int64_t> Producers::Open(const Hash128& producer, const ProducerTarget& target,
                                        uint64_t stream, int64_t now_ms, Ended ended,
                                        std::vector<Hash128>* forgotten) {
  if (!known_.contains(producer) && known_.size() >= kProducersMax) {
    for (const auto& [other, known] : known_) {
      if (known.gone || known.row.update_ms + kProducerKeptMs <= now_ms) forgotten->push_back(other);
    }
    for (const Hash128& other : *forgotten) Forget(other);
    if (known_.size() >= kProducersMax) {
      return WithRetryAfter(
          MakeError(ErrorReason::kMemoryFull,
                    absl::StrCat("this server remembers ", kProducersMax,
                                 " producers, which is its limit")),
          kFullRetryMs);
    }
  }
  Known& known = known_[producer];
  // What has not been used for so long counts as forgotten, whether or not it has been dropped.
  if (known.row.update_ms > 0 && known.row.update_ms + kProducerKeptMs <= now_ms) known.row = {};
  if (known.stream != 0) ++fenced_;
  if (auto tell = std::exchange(known.ended, std::move(ended))) tell(Fenced());
  streams_.erase(known.stream);
  known.stream = stream;
  known.target = target;
  by_target_.insert({target, producer});
  known.refused_from = kNone;
  streams_[stream] = producer;
  // It counts as used, so that a producer that has just come is not the first to be dropped.
  known.row.update_ms = now_ms;
  return known.row.last_sequence;
}

std::vector<Producers::Gone> Producers::RemoveTarget(const ProducerTarget& target) {
  std::vector<Gone> removed;
  auto it = by_target_.lower_bound({target, Hash128{}});
  while (it != by_target_.end() && it->first == target) {
    Known& known = known_.at(it->second);
    known.gone = true;
    removed.push_back(
        {it->second, known.stream, std::exchange(known.ended, nullptr), TargetGone(target)});
    it = by_target_.erase(it);
  }
  return removed;
}

absl::StatusOr<int64_t> Producers::Check(uint64_t stream, int64_t first_sequence,
                                         uint64_t arrival) const {
  const auto it = streams_.find(stream);
  if (it == streams_.end()) return Fenced();
  const Known& known = known_.at(it->second);
  if (known.gone) return TargetGone(known.target);
  if (arrival >= known.refused_from) {
    return MakeError(ErrorReason::kSequenceRefused,
                     "an earlier message of this stream was refused");
  }
  return known.row.last_sequence >= first_sequence
             ? known.row.last_sequence - first_sequence + 1
             : 0;
}

void Producers::Break(uint64_t stream, uint64_t arrival) {
  const auto it = streams_.find(stream);
  if (it == streams_.end()) return;
  uint64_t& refused_from = known_.at(it->second).refused_from;
  refused_from = std::min(refused_from, arrival);
}

const storage::ProducerRow& Producers::Stored(uint64_t stream, int64_t last_sequence,
                                              int64_t now_ms) {
  Known& known = known_.at(streams_.at(stream));
  known.row = {std::max(known.row.last_sequence, last_sequence), now_ms};
  return known.row;
}

}  // namespace sluice::broker
