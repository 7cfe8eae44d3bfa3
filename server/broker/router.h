// The exchanges and bindings of a shard, in memory: which queues does a message go to?
//
// Pure: no storage and no clock. Names of queues are taken as they are; that a queue exists, and
// that its bindings go when it goes, is the caller's care. Each exchange and binding carries the
// number of its row, given by the caller, unique among both. One thread.
//
// Errors carry a reason; one that is answered has changed nothing.
#ifndef SLUICE_SERVER_BROKER_ROUTER_H_
#define SLUICE_SERVER_BROKER_ROUTER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/broker/bound_entry.h"
#include "server/broker/header_index.h"
#include "server/broker/topic_index.h"
#include "server/model/exchange.h"
#include "server/model/limits.h"

namespace sluice::broker {

// For a binding from an exchange of this type. INVALID_FIELD: no destination or two, a key or
// headers beyond their limits, a binding to itself, any of no headers.
absl::Status CheckBinding(const Binding& binding, ExchangeType from);
// The same binding however it was written.
Binding NormalBinding(Binding binding);
// How many pattern nodes a topic binding takes at most.
size_t TopicWords(std::string_view binding_key);

// Limits, which a test may lower.
struct RouterOptions {
  size_t exchanges_max = kExchangesMax;
  size_t bindings_max = kBindingsMax;
  size_t topic_nodes_max = kTopicNodesMax;
  int64_t routing_steps_max = kRoutingStepsMax;
};

class Router {
 public:
  explicit Router(const RouterOptions& options = {});
  ~Router();
  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;

  // ---- exchanges
  struct StoredExchange {
    Exchange exchange;
    uint64_t number = 0;
  };
  // Null: there is none. Valid until the exchange is changed or deleted.
  const StoredExchange* FindExchange(std::string_view name) const;
  // OK, or EXCHANGE_NOT_FOUND.
  absl::Status CheckExchange(std::string_view name) const;

  // False: it was there and agrees with every field that is set. CONFIG_CONFLICT: it does not
  // agree. INVALID_FIELD: no type, or it is its own alternate. EXCHANGE_NOT_FOUND: its
  // alternate_exchange does not exist. RESOURCE_EXHAUSTED: too many.
  absl::StatusOr<bool> CreateExchange(const ExchangeChange& wanted, uint64_t number);
  // From the store. The alternate need not be there yet. DATA_DAMAGED: there is one of that name.
  absl::Status RestoreExchange(Exchange exchange, uint64_t number);
  // False: nothing to change. `replace`: fields not set go back to their defaults, except for the
  // type, which cannot change (INVALID_FIELD).
  absl::StatusOr<bool> UpdateExchange(const ExchangeChange& wanted, bool replace);

  // The bindings from it and to it go with it. IN_USE while it is another one's
  // alternate_exchange: what finds no route there would be lost in silence. With `if_unused` IN_USE
  // also while it has bindings.
  struct Removed {
    uint64_t exchange = 0;           // numbers
    std::vector<uint64_t> bindings;
  };
  absl::StatusOr<Removed> DeleteExchange(const std::string& name, bool if_unused);

  struct ExchangePage {
    std::vector<Exchange> exchanges;  // in order of name
    bool more = false;
  };
  // After the name `after` (empty: from the start). A page ends early rather than grow over
  // kRoutingPageBytesMax.
  ExchangePage ListExchanges(std::string_view name_glob, const std::string& after,
                             int32_t limit) const;

  // In order of name. `visit` must not change the router.
  void ForEachExchange(absl::FunctionRef<void(const Exchange&)> visit) const;

  // ---- bindings
  // False: the same was there. EXCHANGE_NOT_FOUND for either end; errors of CheckBinding, which
  // judges only what is new. RESOURCE_EXHAUSTED: too many, or their patterns together take too much
  // memory.
  absl::StatusOr<bool> CreateBinding(Binding binding, uint64_t number);
  // The same of one that is stored: what was good when it was made stays.
  absl::StatusOr<bool> RestoreBinding(Binding binding, uint64_t number);
  // Its number. BINDING_NOT_FOUND, EXCHANGE_NOT_FOUND.
  absl::StatusOr<uint64_t> DeleteBinding(const Binding& binding);
  // Of a queue that goes; their numbers.
  std::vector<uint64_t> RemoveBindingsTo(const std::string& queue);
  bool HasBinding(const Binding& binding) const;

  struct BindingSelection {
    std::string exchange;            // that they lead from; empty: any
    std::string queue;               // that they lead to; empty: any
    const Binding* after = nullptr;  // exclusive; it need not exist
    int32_t limit = kPageSizeDefault;
  };
  struct BindingPage {
    std::vector<Binding> bindings;  // in order of their identity
    bool more = false;
  };
  BindingPage ListBindings(const BindingSelection& selection) const;

  // In order of identity. `visit` must not change the router.
  void ForEachBinding(absl::FunctionRef<void(const Binding&)> visit) const;

  // ---- messages
  // The names of the queues that a message published to `exchange` goes to, sorted, each once;
  // none: no route. They point into the router and are valid until it is changed.
  //
  // An exchange that chose another exchange hands the message on; each exchange sees it once. One
  // that chose nothing at all hands it to its alternate_exchange. EXCHANGE_NOT_FOUND.
  // FAILED_PRECONDITION, with a sentence that says which: more than kRoutedQueuesMax queues, more
  // than kExchangeHopsMax exchanges in a row, more than kRoutingStepsMax bindings to look at.
  //
  // Allocates nothing but `queues` once its own buffers have grown.
  absl::Status Route(std::string_view exchange, std::string_view routing_key,
                     const Attributes& attributes, std::vector<const std::string*>* queues) {
    int64_t steps_left = options_.routing_steps_max;
    return Route(exchange, routing_key, attributes, queues, &steps_left);
  }
  // The same for one of several messages, which share the bindings that may be looked at.
  absl::Status Route(std::string_view exchange, std::string_view routing_key,
                     const Attributes& attributes, std::vector<const std::string*>* queues,
                     int64_t* steps_left);

  // Whether there may be so many exchanges and bindings, and so many more words in the patterns of
  // topic bindings. RESOURCE_EXHAUSTED.
  absl::Status CheckRoom(size_t exchanges, size_t bindings, size_t more_topic_words) const;

  size_t exchanges() const { return exchanges_.size(); }
  size_t bindings() const { return bindings_.size(); }

 private:
  struct ByIdentity {
    using is_transparent = void;
    static const Binding& Of(const Binding& binding) { return binding; }
    static const Binding& Of(const BoundEntry* entry) { return entry->binding; }
    static const Binding& Of(const std::unique_ptr<BoundEntry>& entry) { return entry->binding; }
    template <typename A, typename B>
    bool operator()(const A& a, const B& b) const {
      return Of(a) < Of(b);
    }
  };
  friend struct RoutedQueue;
  friend struct RoutedExchange;
  using EntriesInOrder = absl::btree_set<BoundEntry*, ByIdentity>;

  RoutedExchange* Find(std::string_view name) const;
  absl::Status CheckAlternate(const ExchangeChange& wanted) const;
  RoutedExchange& AddExchange(Exchange exchange, uint64_t number);
  void RemoveEntry(BoundEntry* entry);
  bool Match(RoutedExchange& exchange, std::string_view routing_key, const Attributes& attributes,
             int64_t* steps_left, absl::Span<BoundEntry* const>* matched);
  void Enter(RoutedExchange* exchange);
  absl::Status HandOn(absl::Span<BoundEntry* const> matched,
                      std::vector<const std::string*>* queues);

  const RouterOptions options_;
  std::map<std::string, std::unique_ptr<RoutedExchange>> exchanges_;
  absl::flat_hash_map<absl::string_view, RoutedExchange*> by_name_;  // keys live in the exchanges
  // Declared after what the entries point to.
  absl::flat_hash_map<std::string, std::unique_ptr<RoutedQueue>> queues_;  // with bindings
  absl::btree_set<std::unique_ptr<BoundEntry>, ByIdentity> bindings_;
  size_t topic_nodes_ = 0;

  // Of the message being routed. The number marks exchanges and queues that it has reached.
  uint64_t message_ = 0;
  std::vector<RoutedExchange*> level_;
  std::vector<RoutedExchange*> next_level_;
  std::vector<BoundEntry*> matched_;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_ROUTER_H_
