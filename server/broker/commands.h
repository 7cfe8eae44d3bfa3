// What the rest of the server can ask of a shard, and how it answers.
//
// A command is moved into the shard's inbox from any thread and decided on its engine thread. Every
// `done` runs exactly once, on the engine thread, after what it reports is durable; it must be quick
// and must not block. An error handed to `done` is an explicit refusal unless its code is
// UNAVAILABLE. Times are milliseconds; limits are checked by whoever builds the command
// (server/api), names and state by the shard.
#ifndef SLUICE_SERVER_BROKER_COMMANDS_H_
#define SLUICE_SERVER_BROKER_COMMANDS_H_

#include <utility>
#include <variant>
#include <vector>

#include "server/broker/consumer_commands.h"
#include "server/broker/definitions_commands.h"
#include "server/broker/exchange_commands.h"
#include "server/broker/message_commands.h"
#include "server/broker/publish_commands.h"
#include "server/broker/queue_commands.h"
#include "server/broker/settle_commands.h"
#include "server/broker/shard_commands.h"

namespace sluice::broker {

using Command =
    std::variant<PublishCommand, AbandonPublishesCommand, SettleCommand, WrittenCommand, ReceiveCommand,
                 ReceiveWrittenCommand, CancelReceiveCommand, SubscribeCommand, SetCreditCommand,
                 DrainSubscriptionCommand, CloseSubscriptionCommand, ExtendLeaseCommand,
                 TransactCommand, OpenProducerCommand, CreateQueueCommand, GetQueueCommand,
                 ListQueuesCommand, UpdateQueueCommand, DeleteQueueCommand, PurgeQueueCommand,
                 PauseQueueCommand, CreateExchangeCommand, GetExchangeCommand, ListExchangesCommand,
                 UpdateExchangeCommand, DeleteExchangeCommand, CreateBindingCommand,
                 DeleteBindingCommand, ListBindingsCommand, ListMessagesCommand, GetMessageCommand,
                 EditMessagesCommand, ListConsumersCommand, CloseConsumerCommand,
                 ApplyDefinitionsCommand, ExportDefinitionsCommand, InspectCommand, DrainCommand,
                 StopCommand>;

// Where commands go in. Thread-safe; never blocks.
class CommandSink {
 public:
  virtual ~CommandSink() = default;
  virtual void Submit(Command command) = 0;
  // The same for each, in order and for less. Leaves `commands` empty.
  virtual void SubmitAll(std::vector<Command>* commands) {
    for (Command& command : *commands) Submit(std::move(command));
    commands->clear();
  }
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_COMMANDS_H_
