// The one door to durability.
#ifndef SLUICE_SERVER_STORAGE_COMMIT_LOG_H_
#define SLUICE_SERVER_STORAGE_COMMIT_LOG_H_

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/storage/batch.h"

namespace sluice::storage {

// Takes batches in lsn order and makes them durable in that order. An append never blocks on the
// disk; the caller bounds how much it has under way (batches it has appended and not been told of).
class CommitLog {
 public:
  // OK: the batch is on stable storage and readable from the Store. Otherwise the term is over:
  // nothing is known about this batch and every later one fails too; the process must stop.
  using Done = absl::AnyInvocable<void(const absl::Status&)>;

  virtual ~CommitLog() = default;

  // One thread at a time (the engine's). `done` runs exactly once, in lsn order, on a thread of the
  // log (or, in MemLog, when the test says so); it must not block.
  virtual void Append(Batch batch, Done done) = 0;
};

}  // namespace sluice::storage

#endif  // SLUICE_SERVER_STORAGE_COMMIT_LOG_H_
