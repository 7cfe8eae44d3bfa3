// Idempotent producers: what was the last message that each has stored (API.md rule 3).
#ifndef SLUICE_SERVER_BROKER_PRODUCERS_H_
#define SLUICE_SERVER_BROKER_PRODUCERS_H_

#include <compare>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "server/model/hash.h"
#include "server/storage/rows.h"

namespace sluice::broker {

// Where a producer publishes to: by its number, which no other queue or exchange ever gets. A name
// would do for whatever has it next, which has none of the messages.
struct ProducerTarget {
  bool is_exchange = false;
  uint64_t number = 0;  // a QueueId, or of the exchange's row

  friend auto operator<=>(const ProducerTarget&, const ProducerTarget&) = default;
};

// A producer is known by the hash of its target and id. At most one stream of it is current; a newer
// one fences the older, and all end when the target goes. Bounded by kProducersMax. Not thread-safe.
class Producers {
 public:
  // Once, with what refuses the stream from now on.
  using Ended = absl::AnyInvocable<void(const absl::Status&)>;

  static Hash128 HashOf(const KeyedHash& hash, const ProducerTarget& target,
                        const std::string& producer_id);

  void Load(const Hash128& producer, const storage::ProducerRow& row) { known_[producer].row = row; }

  // Makes `stream` the producer's current one and returns its last sequence; the one before it is
  // told, by the `ended` that it gave (may be null). RESOURCE_EXHAUSTED when there are too many
  // producers; `forgotten` gets those that have not published for kProducerKeptMs, or whose target
  // has gone.
  absl::StatusOr<int64_t> Open(const Hash128& producer, const ProducerTarget& target,
                               uint64_t stream, int64_t now_ms, Ended ended,
                               std::vector<Hash128>* forgotten);

  // The target has gone: the current streams to it end. Their rows can go; those of producers that
  // have not been opened since the start are not known and stay.
  struct Gone {
    Hash128 producer{};
    uint64_t stream = 0;
    Ended ended;  // may be null
    absl::Status why;
  };
  std::vector<Gone> RemoveTarget(const ProducerTarget& target);

  // How many leading messages of a batch were stored before; the rest may be stored. PRODUCER_FENCED;
  // QUEUE_DELETED or EXCHANGE_NOT_FOUND when the target has gone, whatever has its name now;
  // SEQUENCE_REFUSED for what came after a batch that was refused. `arrival` rises from batch to batch.
  absl::StatusOr<int64_t> Check(uint64_t stream, int64_t first_sequence, uint64_t arrival) const;
  // The batch that arrived then was refused: nothing after it may be stored. What came before it may
  // still wait for room. 0: no stream.
  void Break(uint64_t stream, uint64_t arrival);
  // The row to be written.
  const storage::ProducerRow& Stored(uint64_t stream, int64_t last_sequence, int64_t now_ms);
  const Hash128& ProducerOf(uint64_t stream) const { return streams_.at(stream); }

  // The current stream; 0: none.
  uint64_t StreamOf(const Hash128& producer) const {
    const auto it = known_.find(producer);
    return it == known_.end() ? 0 : it->second.stream;
  }

  size_t size() const { return known_.size(); }
  // Streams that were fenced, since the start. One that had ended counts too.
  uint64_t fenced() const { return fenced_; }

 private:
  static constexpr uint64_t kNone = std::numeric_limits<uint64_t>::max();
  struct Known {
    storage::ProducerRow row;
    uint64_t stream = 0;  // the current one; 0: none since the start
    ProducerTarget target;  // of it
    Ended ended;
    uint64_t refused_from = kNone;  // the first arrival that was
    bool gone = false;  // the target has; kept so that the stream is told why it is refused
  };
  void Forget(const Hash128& producer);

  absl::flat_hash_map<Hash128, Known> known_;
  absl::flat_hash_map<uint64_t, Hash128> streams_;  // only current ones
  absl::btree_set<std::pair<ProducerTarget, Hash128>> by_target_;  // those with a current stream
  uint64_t fenced_ = 0;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_PRODUCERS_H_
