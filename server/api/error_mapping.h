// The one place where errors of the server become errors on the wire.
#ifndef SLUICE_SERVER_API_ERROR_MAPPING_H_
#define SLUICE_SERVER_API_ERROR_MAPPING_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "sluice/v1/errors.pb.h"

namespace sluice::api {

// The most that a status may carry in details: clients limit metadata to 8 KiB in all.
inline constexpr size_t kErrorDetailsBytesMax = 4096;

// For the end of a call. Details hold a google.rpc.Status with ErrorInfo (where there is a reason),
// BadRequest (where there is a field) and RetryInfo (where waiting helps).
grpc::Status ToGrpcStatus(const absl::Status& status);

// For one item of a call that itself is OK.
void ToItemStatus(const absl::Status& status, v1::ItemStatus* out);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_ERROR_MAPPING_H_
