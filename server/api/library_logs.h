// The log lines of gRPC and Protocol Buffers, in ours.
#ifndef SLUICE_SERVER_API_LIBRARY_LOGS_H_
#define SLUICE_SERVER_API_LIBRARY_LOGS_H_

namespace sluice::api {

// From now on what gRPC has to say (GRPC_VERBOSITY chooses; errors by default) becomes events "grpc"
// of server/base/log.h, and what Protocol Buffers has to say events "protobuf" of level debug, instead
// of lines of their own on stderr. For the whole process; may be repeated.
void RouteLibraryLogs();

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_LIBRARY_LOGS_H_
