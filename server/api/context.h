// What all calls of one server share.
#ifndef SLUICE_SERVER_API_CONTEXT_H_
#define SLUICE_SERVER_API_CONTEXT_H_

#include <atomic>
#include <cstdint>

#include "server/api/in_flight_budget.h"
#include "server/api/message_check.h"
#include "server/api/options.h"
#include "server/api/page_token.h"
#include "server/api/rpc_method.h"
#include "server/base/clock.h"
#include "server/broker/commands.h"
#include "server/model/hash.h"
#include "server/model/receipt.h"

namespace sluice::api {

struct ApiContext {
  ApiContext(const ServerOptions& options, broker::CommandSink* sink, const ReceiptCodec& receipts,
             const KeyedHash& hash, Clock* clock, RpcObserver* observer)
      : options(options),
        sink(sink),
        receipts(receipts),
        hash(hash),
        rules{options.body_bytes_max, &this->hash, clock},
        page_tokens(receipts),
        clock(clock),
        observer(observer),
        start_wall_ms(clock->WallMs()),
        budget(options.server_bytes_max) {}

  const ServerOptions options;
  broker::CommandSink* const sink;
  const ReceiptCodec receipts;
  const KeyedHash hash;
  const MessageRules rules;
  const PageTokenCodec page_tokens;
  Clock* const clock;
  RpcObserver* const observer;  // may be null
  const int64_t start_wall_ms;

  InFlightBudget budget;
  std::atomic<int> streams{0};  // open Subscribe, Consume and PublishStream calls
  std::atomic<int> receives{0};           // open Receive calls
  std::atomic<int> health_watches{0};     // open Watch calls
  std::atomic<int64_t> receive_bytes{0};  // in their answers, not yet written
  std::atomic<bool> draining{false};
  std::atomic<uint64_t> next_receive_id{1};
  std::atomic<uint64_t> next_publish_caller{1};  // PublishCommand::caller
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_CONTEXT_H_
