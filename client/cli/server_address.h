// What --server may be.
#ifndef SLUICE_CLIENT_CLI_SERVER_ADDRESS_H_
#define SLUICE_CLIENT_CLI_SERVER_ADDRESS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace sluice::cli {

// INVALID_ARGUMENT unless `address` is host:port, with an IPv6 host in brackets, or one of gRPC's
// dns:, ipv4:, ipv6:, unix: and unix-abstract: addresses. Pure: looks nothing up.
absl::Status CheckServerAddress(absl::string_view address);

}  // namespace sluice::cli

#endif  // SLUICE_CLIENT_CLI_SERVER_ADDRESS_H_
