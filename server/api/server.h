// The gRPC server: QueueService, AdminService, health and reflection.
#ifndef SLUICE_SERVER_API_SERVER_H_
#define SLUICE_SERVER_API_SERVER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "server/api/options.h"
#include "server/api/rpc_method.h"
#include "server/base/clock.h"
#include "server/broker/commands.h"
#include "server/model/hash.h"
#include "server/model/receipt.h"

namespace sluice::api {

class Server {
 public:
  // Binds and serves; health is SERVING for "", QueueService and AdminService. `sink`, `clock` and
  // `observer` (may be null) must outlive the last call into them: see Shutdown.
  // UNAVAILABLE if the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options,
                                                       broker::CommandSink* sink,
                                                       const ReceiptCodec& receipts,
                                                       const KeyedHash& hash, Clock* clock,
                                                       RpcObserver* observer);

  // Calls Shutdown. Callbacks of the shard reach into this object: destroy the shard first.
  virtual ~Server() = default;

  virtual int port() const = 0;

  // From now on health is NOT_SERVING, calls that bring new work are refused DRAINING and
  // PublishStreams end so once what they sent is answered. Settling goes on. Subscriptions and
  // waiting receives are ended by the shard (DrainCommand). Any thread.
  virtual void BeginDrain() = 0;

  // Stops accepting, waits up to `grace_ms` for calls to end and cuts the rest. Afterwards nothing
  // is submitted to the shard any more, and answers of the shard are dropped. To stop cleanly:
  // BeginDrain, DrainCommand, StopCommand after its `done`, Shutdown, then destroy the shard, then
  // this. Any thread but the polling ones; once.
  virtual void Shutdown(int64_t grace_ms) = 0;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_SERVER_H_
