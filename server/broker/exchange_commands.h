// Exchanges and bindings. What holds for every command: commands.h.
#ifndef SLUICE_SERVER_BROKER_EXCHANGE_COMMANDS_H_
#define SLUICE_SERVER_BROKER_EXCHANGE_COMMANDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/exchange.h"
#include "server/model/limits.h"

namespace sluice::broker {

struct CreateExchangeCommand {
  struct Outcome {
    Exchange exchange;
    bool created = false;
  };
  using Done = absl::AnyInvocable<void(absl::StatusOr<Outcome>)>;
  ExchangeChange exchange;
  Done done;
};
struct GetExchangeCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<Exchange>)>;
  std::string exchange;
  Done done;
};
struct ListExchangesCommand {
  struct Outcome {
    std::vector<Exchange> exchanges;  // in order of name
    bool more = false;
  };
  using Done = absl::AnyInvocable<void(absl::StatusOr<Outcome>)>;
  std::string name_glob;
  std::string after_name;
  int32_t limit = kPageSizeDefault;
  Done done;
};
struct UpdateExchangeCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<Exchange>)>;
  ExchangeChange exchange;
  bool replace = false;
  Done done;
};
struct DeleteExchangeCommand {
  using Done = absl::AnyInvocable<void(absl::Status)>;
  std::string exchange;
  bool if_unused = false;  // refuse while it has bindings, or one leads to it
  Done done;
};
struct CreateBindingCommand {
  using Done = absl::AnyInvocable<void(absl::StatusOr<bool>)>;  // false: it was there
  Binding binding;
  Done done;
};
struct DeleteBindingCommand {
  using Done = absl::AnyInvocable<void(absl::Status)>;
  Binding binding;
  Done done;
};
struct ListBindingsCommand {
  struct Outcome {
    std::vector<Binding> bindings;  // in order of their identity
    std::string next_cursor;        // empty: these were the last
  };
  using Done = absl::AnyInvocable<void(absl::StatusOr<Outcome>)>;
  std::string exchange;  // empty: any
  std::string queue;     // empty: any
  std::string cursor;
  int32_t limit = kPageSizeDefault;
  Done done;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_EXCHANGE_COMMANDS_H_
