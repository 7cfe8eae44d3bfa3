// Exchanges and bindings: how a publish finds its queues.
#ifndef SLUICE_SERVER_MODEL_EXCHANGE_H_
#define SLUICE_SERVER_MODEL_EXCHANGE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace sluice {

// The values of sluice.v1.ExchangeType, same numbers (persisted).
enum class ExchangeType : uint8_t { kUnspecified = 0, kDirect, kFanout, kTopic, kHeaders };

// The values of sluice.v1.HeaderMatch, same numbers (persisted).
enum class HeaderMatch : uint8_t { kUnspecified = 0, kAll, kAny };

struct Exchange {
  std::string name;
  ExchangeType type = ExchangeType::kDirect;
  std::string alternate_exchange;  // takes what finds no route here; empty: none
  std::map<std::string, std::string> labels;

  friend bool operator==(const Exchange&, const Exchange&) = default;
};

// Only the fields that the client set.
struct ExchangeChange {
  std::string name;
  std::optional<ExchangeType> type;
  std::optional<std::string> alternate_exchange;
  std::optional<std::map<std::string, std::string>> labels;
};

// The whole of it is its identity. Exactly one of `queue` and `to_exchange` is set.
struct Binding {
  std::string exchange;
  std::string queue;
  std::string to_exchange;
  std::string binding_key;                     // direct: equal; topic: pattern with `*` and `#`
  std::map<std::string, std::string> headers;  // headers exchanges
  HeaderMatch header_match = HeaderMatch::kAll;

  friend auto operator<=>(const Binding&, const Binding&) = default;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_EXCHANGE_H_
