// Commands whose feature is not there yet: each is refused by name. A line goes when its feature
// comes.
#include "server/broker/shard.h"

namespace sluice::broker {

// Both belong to Consume streams, of which none can be opened yet: there is nobody to tell.
void Shard::Do(SetCreditCommand&, Now) {}
void Shard::Do(DrainSubscriptionCommand&, Now) {}

void Shard::Do(TransactCommand& command, Now) {
  command.done(MakeNotBuiltError("Transact"));
}
void Shard::Do(OpenProducerCommand& command, Now) {
  command.done(MakeNotBuiltError("producer_id"));
}
void Shard::Do(PauseQueueCommand& command, Now) {
  command.done(MakeNotBuiltError("PauseQueue"));
}
void Shard::Do(CreateExchangeCommand& command, Now) {
  command.done(MakeNotBuiltError("CreateExchange"));
}
void Shard::Do(GetExchangeCommand& command, Now) {
  command.done(MakeNotBuiltError("GetExchange"));
}
void Shard::Do(ListExchangesCommand& command, Now) {
  command.done(MakeNotBuiltError("ListExchanges"));
}
void Shard::Do(UpdateExchangeCommand& command, Now) {
  command.done(MakeNotBuiltError("UpdateExchange"));
}
void Shard::Do(DeleteExchangeCommand& command, Now) {
  command.done(MakeNotBuiltError("DeleteExchange"));
}
void Shard::Do(CreateBindingCommand& command, Now) {
  command.done(MakeNotBuiltError("CreateBinding"));
}
void Shard::Do(DeleteBindingCommand& command, Now) {
  command.done(MakeNotBuiltError("DeleteBinding"));
}
void Shard::Do(ListBindingsCommand& command, Now) {
  command.done(MakeNotBuiltError("ListBindings"));
}
void Shard::Do(ListMessagesCommand& command, Now) {
  command.done(MakeNotBuiltError("ListMessages"));
}
void Shard::Do(GetMessageCommand& command, Now) {
  command.done(MakeNotBuiltError("GetMessage"));
}
void Shard::Do(EditMessagesCommand& command, Now) {
  command.done(MakeNotBuiltError("changing messages"));
}
void Shard::Do(ListConsumersCommand& command, Now) {
  command.done(MakeNotBuiltError("ListConsumers"));
}
void Shard::Do(CloseConsumerCommand& command, Now) {
  command.done(MakeNotBuiltError("CloseConsumer"));
}
void Shard::Do(ApplyDefinitionsCommand& command, Now) {
  command.done(MakeNotBuiltError("ApplyDefinitions"));
}

}  // namespace sluice::broker
