// gRPC's own log lines, in ours.
#ifndef SLUICE_SERVER_API_GRPC_LOG_H_
#define SLUICE_SERVER_API_GRPC_LOG_H_

namespace sluice::api {

// From now on what gRPC has to say (GRPC_VERBOSITY chooses; errors by default) becomes events
// "grpc" of server/base/log.h instead of lines of its own on stderr. For the whole process; may be
// repeated.
void RouteGrpcLog();

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_GRPC_LOG_H_
