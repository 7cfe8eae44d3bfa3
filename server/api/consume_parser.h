// Reads what a consumer sends on a Consume stream. Acks are decoded where they lie, as in a call of
// Ack.
#ifndef SLUICE_SERVER_API_CONSUME_PARSER_H_
#define SLUICE_SERVER_API_CONSUME_PARSER_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "server/api/settle_parser.h"
#include "server/model/receipt.h"
#include "sluice/v1/consume.pb.h"

namespace sluice::api {

struct ParsedConsume {
  int64_t request_id = 0;
  std::optional<ParsedReceipts> ack;
  v1::ConsumeRequest other;  // has its request set unless `ack` is
};

// A sluice.v1.ConsumeRequest with exactly one request in it. Does not check names.
absl::StatusOr<ParsedConsume> ParseConsumeRequest(const grpc::ByteBuffer& bytes,
                                                  const ReceiptCodec& codec);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_CONSUME_PARSER_H_
