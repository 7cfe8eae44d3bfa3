// Commands whose feature is not there yet: each is refused by name. A line goes when its feature
// comes.
#include "server/broker/shard.h"

namespace sluice::broker {

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
void Shard::Do(ApplyDefinitionsCommand& command, Now) {
  command.done(MakeNotBuiltError("ApplyDefinitions"));
}

}  // namespace sluice::broker
