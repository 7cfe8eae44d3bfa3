// Asks a gRPC server the way a client would: is it serving?
#ifndef SLUICE_SERVER_HTTP_GRPC_HEALTH_PROBE_H_
#define SLUICE_SERVER_HTTP_GRPC_HEALTH_PROBE_H_

#include <string>

#include "absl/status/status.h"

namespace sluice::http {

// A probe that takes longer than this says not ready.
inline constexpr int64_t kHealthProbeMsMax = 2000;

// Calls grpc.health.v1.Health/Check at `address` over a new connection: one that is open already
// would still work when the server has stopped accepting. UNAVAILABLE if it is not SERVING. Blocks
// for up to kHealthProbeMsMax. Thread-safe.
absl::Status ProbeGrpcHealth(const std::string& address);

}  // namespace sluice::http

#endif  // SLUICE_SERVER_HTTP_GRPC_HEALTH_PROBE_H_
