// Reads transactions from the wire.
#ifndef SLUICE_SERVER_API_TRANSACT_PARSER_H_
#define SLUICE_SERVER_API_TRANSACT_PARSER_H_

#include <grpcpp/support/byte_buffer.h>

#include "absl/status/statusor.h"
#include "server/api/message_check.h"
#include "server/broker/settle_commands.h"
#include "server/model/receipt.h"

namespace sluice::api {

// A sluice.v1.TransactRequest, all but `done`. Each part is checked as its single call is; since it
// is all or nothing, a garbled receipt is an error here. The first broken rule is the error, named
// by its path ("nacks[1].items[0].receipt").
absl::StatusOr<broker::TransactCommand> ParseTransactRequest(const grpc::ByteBuffer& bytes,
                                                             const MessageRules& rules,
                                                             const ReceiptCodec& receipts);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_TRANSACT_PARSER_H_
