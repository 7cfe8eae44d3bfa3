#include "server/broker/producers.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::broker {
namespace {

constexpr int64_t kFullRetryMs = kMinuteMs;

}  // namespace

absl::StatusOr<int64_t> Producers::Open(const Hash128& producer, uint64_t stream, int64_t now_ms,
                                        absl::AnyInvocable<void()> fenced,
                                        std::vector<Hash128>* forgotten) {
  if (!known_.contains(producer) && known_.size() >= kProducersMax) {
    for (const auto& [other, known] : known_) {
      if (known.row.update_ms + kProducerKeptMs <= now_ms) forgotten->push_back(other);
    }
    for (const Hash128& other : *forgotten) {
      streams_.erase(known_.at(other).stream);
      known_.erase(other);
    }
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
  if (auto tell = std::exchange(known.fenced, std::move(fenced))) tell();
  streams_.erase(known.stream);
  known.stream = stream;
  known.broken = false;
  streams_[stream] = producer;
  // It counts as used, so that a producer that has just come is not the first to be dropped.
  known.row.update_ms = now_ms;
  return known.row.last_sequence;
}

absl::StatusOr<int64_t> Producers::Check(uint64_t stream, int64_t first_sequence) const {
  const auto it = streams_.find(stream);
  if (it == streams_.end()) {
    return MakeError(ErrorReason::kProducerFenced,
                     "a newer stream of the same producer has taken over");
  }
  const Known& known = known_.at(it->second);
  if (known.broken) {
    return MakeError(ErrorReason::kSequenceRefused,
                     "an earlier message of this stream was refused");
  }
  return known.row.last_sequence >= first_sequence
             ? known.row.last_sequence - first_sequence + 1
             : 0;
}

void Producers::Break(uint64_t stream) {
  const auto it = streams_.find(stream);
  if (it != streams_.end()) known_.at(it->second).broken = true;
}

const storage::ProducerRow& Producers::Stored(uint64_t stream, int64_t last_sequence,
                                              int64_t now_ms) {
  Known& known = known_.at(streams_.at(stream));
  known.row = {std::max(known.row.last_sequence, last_sequence), now_ms};
  return known.row;
}

}  // namespace sluice::broker
