// The engine: one thread that owns a shard, turns commands into batches and answers when they are
// durable.
#ifndef SLUICE_SERVER_BROKER_ENGINE_H_
#define SLUICE_SERVER_BROKER_ENGINE_H_

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/clock.h"
#include "server/broker/commands.h"
#include "server/model/receipt.h"
#include "server/storage/commit_log.h"
#include "server/storage/pressure.h"
#include "server/storage/store.h"

namespace sluice::broker {

struct EngineOptions {
  ShardId shard = 0;
  // Without it a start refuses when the wall clock differs from the stored time by over 30 days.
  bool accept_clock = false;
  // Payloads of ready messages kept in memory, over all queues; the rest is paged in when its turn
  // comes. More helps bursts that are consumed at once.
  uint64_t window_bytes_max = 64 * kMiB;
  // Batches handed to the log and not yet durable. Beyond it the inbox waits: what arrives rides a
  // later batch.
  uint64_t appended_bytes_max = 64 * kMiB;
  // Holds publishes back; everything else goes on past them. Throttled ones wait, in their order;
  // refused ones, also those that were waiting, are answered STORAGE_FULL with a retry time. Null:
  // never. Must outlive the engine.
  const storage::PressureGauge* pressure = nullptr;
};

// Called on the engine thread; must be quick.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  // One turn produced a batch of this many commands, messages and bytes.
  virtual void OnBatch(uint32_t commands, uint32_t messages, size_t bytes) = 0;
};

class Engine : public CommandSink {
 public:
  // Rebuilds the shard from the store, writes the boot row and starts the engine and reader
  // threads. Blocks until the boot row is durable. `clock`, `store`, `log` and `observer` (may be
  // null) must outlive the engine. `on_fatal` runs once, on any thread, when the log or the store
  // has failed: every waiting command has been answered UNAVAILABLE and the process must exit
  // non-zero.
  static absl::StatusOr<std::unique_ptr<Engine>> Start(
      const EngineOptions& options, Clock* clock, storage::Store* store, storage::CommitLog* log,
      EngineObserver* observer, std::function<void(const absl::Status&)> on_fatal);

  // Ends the threads as a crash would, unless EndThreads has. The log must have been stopped or be
  // idle.
  ~Engine() override = default;

  // Ends the threads: nothing is appended or answered from here on, what has been appended stays
  // under way. A clean stop is a StopCommand, this, the end of the log, the end of the engine. When
  // the log has failed by now, `on_fatal` has run on return. One thread; again does nothing.
  virtual void EndThreads() = 0;

  // The keys of this store's receipts and hashes, and its name. Constant.
  virtual const ReceiptCodec& receipts() const = 0;
  virtual const KeyedHash& hash() const = 0;
  virtual const std::string& server_id() const = 0;
  virtual Boot boot() const = 0;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_ENGINE_H_
