// A shard with its surroundings in memory, moved by hand: batches wait until they are committed,
// reads until they are served, time until it is advanced.
#ifndef SLUICE_TESTS_UNIT_BROKER_MODEL_WORLD_H_
#define SLUICE_TESTS_UNIT_BROKER_MODEL_WORLD_H_

#include <deque>
#include <memory>

#include "server/broker/shard.h"
#include "server/storage/mem_log.h"

namespace sluice::broker {

class ModelWorld : public ShardPort {
 public:
  void Append(storage::Batch batch) override { batches.push_back(std::move(batch)); }
  void StartRead(ReadRequest request) override { reads.push_back(std::move(request)); }

  // The process is gone: what was not durable is lost.
  void Die() {
    shard.reset();
    batches.clear();
    reads.clear();
  }
  absl::Status Start(uint64_t window_bytes_max,
                     size_t retries_in_memory_max = kRetriesInMemoryMax) {
    ShardOptions options;
    options.window_bytes_max = window_bytes_max;
    options.retries_in_memory_max = retries_in_memory_max;
    shard = std::make_unique<Shard>(options, this);
    return shard->Load(store);
  }
  // The oldest batch reaches the store; the shard is not told.
  Lsn Persist() {
    const Lsn lsn = batches.front().header().lsn;
    const absl::Status status = store.Apply(batches.front().record());
    SLUICE_CHECK(status.ok());
    batches.pop_front();
    return lsn;
  }
  absl::Status ServeRead(Now now) {
    const ReadRequest request = std::move(reads.front());
    reads.pop_front();
    auto result = Read(store, request);
    if (!result.ok()) return result.status();
    return shard->OnRead(request.ticket, *std::move(result), now);
  }

  storage::MemStore store;
  std::deque<storage::Batch> batches;
  std::deque<ReadRequest> reads;
  std::unique_ptr<Shard> shard;
};

}  // namespace sluice::broker

#endif  // SLUICE_TESTS_UNIT_BROKER_MODEL_WORLD_H_
