// Items that were refused, for the answers of settling calls.
#ifndef SLUICE_SERVER_API_ITEM_FAILURES_H_
#define SLUICE_SERVER_API_ITEM_FAILURES_H_

#include <google/protobuf/repeated_ptr_field.h>

#include <vector>

#include "server/api/call.h"
#include "server/api/settle_parser.h"
#include "server/broker/settle_commands.h"
#include "sluice/v1/errors.pb.h"

namespace sluice::api {

// Failures found before the shard and in it, in order of the request. Tells the observer of each.
void AddFailures(const Call& call, const ParsedReceipts& parsed,
                 const std::vector<broker::SettleFailure>& of_shard,
                 google::protobuf::RepeatedPtrField<v1::ItemFailure>* out);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_ITEM_FAILURES_H_
