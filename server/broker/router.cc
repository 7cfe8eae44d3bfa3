#include "server/broker/router.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/base/glob.h"
#include "server/base/strings.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::broker {

struct RoutedQueue {
  std::string name;
  Router::EntriesInOrder bindings;  // to it; never empty
  uint64_t message = 0;             // the last that reached it
};

struct RoutedExchange {
  Router::StoredExchange stored;
  Router::EntriesInOrder incoming;  // bindings to it
  size_t outgoing = 0;              // bindings from it
  uint64_t message = 0;             // the last that reached it

  // Only the one of its type is used.
  absl::flat_hash_map<std::string, BoundEntries> direct;
  std::vector<BoundEntry*> fanout;
  TopicIndex topic;
  HeaderIndex headers;

  void File(BoundEntry* entry) {
    ++outgoing;
    switch (stored.exchange.type) {
      case ExchangeType::kDirect: return FileEntry(direct[entry->binding.binding_key], entry);
      case ExchangeType::kTopic: return topic.Add(entry);
      case ExchangeType::kHeaders: return headers.Add(entry);
      case ExchangeType::kFanout:
      case ExchangeType::kUnspecified: return FileEntry(fanout, entry);
    }
  }

  void Unfile(const BoundEntry* entry) {
    --outgoing;
    switch (stored.exchange.type) {
      case ExchangeType::kDirect: {
        const auto filed = direct.find(entry->binding.binding_key);
        UnfileEntry(filed->second, entry);
        if (filed->second.empty()) direct.erase(filed);
        return;
      }
      case ExchangeType::kTopic: return topic.Remove(entry);
      case ExchangeType::kHeaders: return headers.Remove(entry);
      case ExchangeType::kFanout:
      case ExchangeType::kUnspecified: return UnfileEntry(fanout, entry);
    }
  }
};

namespace {

absl::Status ExchangeNotFound(std::string_view name) {
  return MakeError(ErrorReason::kExchangeNotFound,
                   absl::StrCat("exchange '", ToAbsl(name), "' does not exist"));
}

absl::Status TooMany(size_t limit, std::string_view what) {
  return MakeError(
      ErrorReason::kLimitReached,
      absl::StrCat("this server holds at most ", limit, " ", ToAbsl(what)));
}

// The first field of `wanted` that is set and differs; empty: none.
std::string_view Difference(const Exchange& exchange, const ExchangeChange& wanted) {
  if (wanted.type && *wanted.type != exchange.type) return "type";
  if (wanted.alternate_exchange && *wanted.alternate_exchange != exchange.alternate_exchange) {
    return "alternate_exchange";
  }
  if (wanted.labels && *wanted.labels != exchange.labels) return "labels";
  return {};
}

// What it takes in a page, roughly: the texts, and their tags and lengths.
constexpr size_t kFieldOverheadBytes = 8;
size_t SizeOf(const std::map<std::string, std::string>& pairs) {
  size_t bytes = 0;
  for (const auto& [key, value] : pairs) {
    bytes += key.size() + value.size() + 2 * kFieldOverheadBytes;
  }
  return bytes;
}
size_t SizeOf(const Exchange& exchange) {
  return exchange.name.size() + exchange.alternate_exchange.size() + 4 * kFieldOverheadBytes +
         SizeOf(exchange.labels);
}
size_t SizeOf(const Binding& binding) {
  return binding.exchange.size() + binding.queue.size() + binding.to_exchange.size() +
         binding.binding_key.size() + 6 * kFieldOverheadBytes + SizeOf(binding.headers);
}

// Takes the next item into a page, unless the page is full; false: it is, and `more` is set.
template <typename Item>
class PageFiller {
 public:
  PageFiller(std::vector<Item>* items, bool* more, int32_t limit)
      : items_(items), more_(more), limit_(static_cast<size_t>(std::max<int32_t>(limit, 1))) {}

  bool Take(const Item& item) {
    bytes_ += SizeOf(item);
    if (items_->size() == limit_ || (bytes_ > kRoutingPageBytesMax && !items_->empty())) {
      *more_ = true;
      return false;
    }
    items_->push_back(item);
    return true;
  }

 private:
  std::vector<Item>* items_;
  bool* more_;
  const size_t limit_;
  size_t bytes_ = 0;
};

// A wildcard that is only a part of its word: it would stand for itself, which nobody means.
bool HasHalfWildcard(std::string_view pattern) {
  for (const absl::string_view word : absl::StrSplit(ToAbsl(pattern), '.')) {
    if (word.size() > 1 && word.find_first_of("*#") != absl::string_view::npos) return true;
  }
  return false;
}

}  // namespace

absl::Status CheckBinding(const Binding& binding, ExchangeType from) {
  if (binding.queue.empty() == binding.to_exchange.empty()) {
    return MakeFieldError("binding.destination", "set exactly one of queue and to_exchange");
  }
  if (binding.to_exchange == binding.exchange) {
    return MakeFieldError("binding.to_exchange", "an exchange cannot be bound to itself");
  }
  if (binding.binding_key.size() > kShortStringBytesMax) {
    return MakeFieldError("binding.binding_key",
                          absl::StrCat("must be at most ", kShortStringBytesMax, " bytes"));
  }
  if (from == ExchangeType::kTopic && HasHalfWildcard(binding.binding_key)) {
    return MakeFieldError("binding.binding_key", "a wildcard must stand alone between dots");
  }
  if (binding.headers.size() > static_cast<size_t>(kBindingHeadersMax)) {
    return MakeFieldError("binding.headers", absl::StrCat("at most ", kBindingHeadersMax));
  }
  size_t header_bytes = 0;
  for (const auto& [name, value] : binding.headers) header_bytes += name.size() + value.size();
  if (header_bytes > static_cast<size_t>(kAttributesBytesMax)) {
    return MakeFieldError("binding.headers", absl::StrCat("names and values together at most ",
                                                          kAttributesBytesMax, " bytes"));
  }
  if (from == ExchangeType::kHeaders && binding.headers.empty() &&
      binding.header_match == HeaderMatch::kAny) {
    return MakeFieldError("binding.headers", "any of no headers never agrees: name at least one");
  }
  return absl::OkStatus();
}

Binding NormalBinding(Binding binding) {
  if (binding.header_match == HeaderMatch::kUnspecified) binding.header_match = HeaderMatch::kAll;
  return binding;
}

size_t TopicWords(std::string_view binding_key) {
  return static_cast<size_t>(std::count(binding_key.begin(), binding_key.end(), '.')) + 1;
}

Router::Router(const RouterOptions& options) : options_(options) {}
Router::~Router() = default;

RoutedExchange* Router::Find(std::string_view name) const {
  const auto it = by_name_.find(ToAbsl(name));
  return it == by_name_.end() ? nullptr : it->second;
}

const Router::StoredExchange* Router::FindExchange(std::string_view name) const {
  const RoutedExchange* exchange = Find(name);
  return exchange ? &exchange->stored : nullptr;
}

absl::Status Router::CheckExchange(std::string_view name) const {
  return Find(name) ? absl::OkStatus() : ExchangeNotFound(name);
}

absl::Status Router::CheckAlternate(const ExchangeChange& wanted) const {
  if (!wanted.alternate_exchange || wanted.alternate_exchange->empty()) return absl::OkStatus();
  if (*wanted.alternate_exchange == wanted.name) {
    return MakeFieldError("exchange.alternate_exchange", "an exchange cannot be its own");
  }
  if (!Find(*wanted.alternate_exchange)) {
    return MakeFieldError("exchange.alternate_exchange",
                          absl::StrCat("exchange '", *wanted.alternate_exchange,
                                       "' does not exist"),
                          ErrorReason::kExchangeNotFound);
  }
  return absl::OkStatus();
}

RoutedExchange& Router::AddExchange(Exchange exchange, uint64_t number) {
  auto made = std::make_unique<RoutedExchange>();
  made->stored = {std::move(exchange), number};
  RoutedExchange& added = *made;
  by_name_[ToAbsl(added.stored.exchange.name)] = &added;
  exchanges_[added.stored.exchange.name] = std::move(made);
  return added;
}

absl::StatusOr<bool> Router::CreateExchange(const ExchangeChange& wanted, uint64_t number) {
  if (!wanted.type || *wanted.type == ExchangeType::kUnspecified) {
    return MakeFieldError("exchange.type", "must be set");
  }
  if (const RoutedExchange* existing = Find(wanted.name)) {
    const std::string_view field = Difference(existing->stored.exchange, wanted);
    if (field.empty()) return false;
    return MakeError(ErrorReason::kConfigConflict,
                     absl::StrCat("exchange '", wanted.name, "' exists with another ",
                                  ToAbsl(field)));
  }
  if (absl::Status status = CheckAlternate(wanted); !status.ok()) return status;
  absl::Status room = CheckRoom(exchanges_.size() + 1, bindings_.size(), 0);
  if (!room.ok()) return room;
  Exchange exchange{wanted.name, *wanted.type, wanted.alternate_exchange.value_or(""), {}};
  if (wanted.labels) exchange.labels = *wanted.labels;
  AddExchange(std::move(exchange), number);
  return true;
}

absl::Status Router::RestoreExchange(Exchange exchange, uint64_t number) {
  if (Find(exchange.name)) {
    return MakeError(ErrorReason::kDataDamaged,
                     absl::StrCat("the store has two exchanges '", exchange.name, "'"));
  }
  AddExchange(std::move(exchange), number);
  return absl::OkStatus();
}

absl::StatusOr<bool> Router::UpdateExchange(const ExchangeChange& wanted, bool replace) {
  RoutedExchange* exchange = Find(wanted.name);
  if (!exchange) return ExchangeNotFound(wanted.name);
  Exchange& current = exchange->stored.exchange;
  if (wanted.type && *wanted.type != ExchangeType::kUnspecified && *wanted.type != current.type) {
    return MakeFieldError("exchange.type", "cannot change; delete the exchange and make it again");
  }
  if (absl::Status status = CheckAlternate(wanted); !status.ok()) return status;
  Exchange changed = current;
  if (replace) changed = {current.name, current.type, {}, {}};
  if (wanted.alternate_exchange) changed.alternate_exchange = *wanted.alternate_exchange;
  if (wanted.labels) changed.labels = *wanted.labels;
  if (changed == current) return false;
  // The name stays where it is: by_name_ points to it.
  current.alternate_exchange = std::move(changed.alternate_exchange);
  current.labels = std::move(changed.labels);
  return true;
}

absl::StatusOr<Router::Removed> Router::DeleteExchange(const std::string& name, bool if_unused) {
  RoutedExchange* exchange = Find(name);
  if (!exchange) return ExchangeNotFound(name);
  if (if_unused && (exchange->outgoing > 0 || !exchange->incoming.empty())) {
    return MakeError(ErrorReason::kInUse, absl::StrCat("exchange '", name, "' has bindings"));
  }
  for (const auto& [other_name, other] : exchanges_) {
    if (other->stored.exchange.alternate_exchange == name) {
      return MakeError(ErrorReason::kInUse,
                       absl::StrCat("exchange '", name, "' is the alternate_exchange of '",
                                    other_name, "'"));
    }
  }
  std::vector<BoundEntry*> gone(exchange->incoming.begin(), exchange->incoming.end());
  Binding first;
  first.exchange = name;
  first.header_match = HeaderMatch::kUnspecified;
  for (auto it = bindings_.lower_bound(first);
       it != bindings_.end() && (*it)->binding.exchange == name; ++it) {
    gone.push_back(it->get());
  }
  Removed removed;
  removed.exchange = exchange->stored.number;
  for (BoundEntry* entry : gone) {
    removed.bindings.push_back(entry->number);
    RemoveEntry(entry);
  }
  by_name_.erase(ToAbsl(name));
  exchanges_.erase(exchanges_.find(name));
  return removed;
}

Router::ExchangePage Router::ListExchanges(std::string_view name_glob, const std::string& after,
                                           int32_t limit) const {
  ExchangePage page;
  PageFiller<Exchange> filler(&page.exchanges, &page.more, limit);
  for (auto it = exchanges_.upper_bound(after); it != exchanges_.end(); ++it) {
    if (!name_glob.empty() && !GlobMatches(name_glob, it->first)) continue;
    if (!filler.Take(it->second->stored.exchange)) break;
  }
  return page;
}

void Router::ForEachExchange(absl::FunctionRef<void(const Exchange&)> visit) const {
  for (const auto& [name, exchange] : exchanges_) visit(exchange->stored.exchange);
}

absl::StatusOr<bool> Router::CreateBinding(Binding binding, uint64_t number) {
  const RoutedExchange* from = Find(binding.exchange);
  if (from && !HasBinding(binding)) {
    const absl::Status status = CheckBinding(binding, from->stored.exchange.type);
    if (!status.ok()) return status;
  }
  return RestoreBinding(std::move(binding), number);
}

absl::StatusOr<bool> Router::RestoreBinding(Binding binding, uint64_t number) {
  binding = NormalBinding(std::move(binding));
  RoutedExchange* from = Find(binding.exchange);
  if (!from) return ExchangeNotFound(binding.exchange);
  const ExchangeType type = from->stored.exchange.type;
  RoutedExchange* to = nullptr;
  if (!binding.to_exchange.empty()) {
    to = Find(binding.to_exchange);
    if (!to) return ExchangeNotFound(binding.to_exchange);
  }
  if (bindings_.contains(binding)) return false;
  absl::Status room =
      CheckRoom(exchanges_.size(), bindings_.size() + 1,
                type == ExchangeType::kTopic ? TopicWords(binding.binding_key) : 0);
  if (!room.ok()) return room;
  auto made = std::make_unique<BoundEntry>();
  BoundEntry* entry = made.get();
  entry->binding = std::move(binding);
  entry->number = number;
  entry->to_exchange = to;
  if (to) {
    to->incoming.insert(entry);
  } else {
    auto& queue = queues_[entry->binding.queue];
    if (!queue) queue = std::make_unique<RoutedQueue>(RoutedQueue{entry->binding.queue, {}, 0});
    entry->queue = queue.get();
    queue->bindings.insert(entry);
  }
  topic_nodes_ -= from->topic.nodes();
  from->File(entry);
  topic_nodes_ += from->topic.nodes();
  bindings_.insert(std::move(made));
  return true;
}

void Router::RemoveEntry(BoundEntry* entry) {
  RoutedExchange* from = Find(entry->binding.exchange);
  topic_nodes_ -= from->topic.nodes();
  from->Unfile(entry);
  topic_nodes_ += from->topic.nodes();
  if (entry->to_exchange) {
    entry->to_exchange->incoming.erase(entry);
  } else {
    entry->queue->bindings.erase(entry);
    if (entry->queue->bindings.empty()) queues_.erase(entry->binding.queue);
  }
  bindings_.erase(bindings_.find(entry));
}

absl::StatusOr<uint64_t> Router::DeleteBinding(const Binding& binding) {
  const auto it = bindings_.find(NormalBinding(binding));
  if (it == bindings_.end()) {
    if (!Find(binding.exchange)) return ExchangeNotFound(binding.exchange);
    return MakeError(ErrorReason::kBindingNotFound,
                     absl::StrCat("exchange '", binding.exchange, "' has no such binding to '",
                                  binding.queue, binding.to_exchange, "'"));
  }
  BoundEntry* entry = it->get();
  const uint64_t number = entry->number;
  RemoveEntry(entry);
  return number;
}

std::vector<uint64_t> Router::RemoveBindingsTo(const std::string& queue) {
  std::vector<uint64_t> numbers;
  const auto it = queues_.find(queue);
  if (it == queues_.end()) return numbers;
  const std::vector<BoundEntry*> gone(it->second->bindings.begin(), it->second->bindings.end());
  for (BoundEntry* entry : gone) {
    numbers.push_back(entry->number);
    RemoveEntry(entry);
  }
  return numbers;
}

bool Router::HasBinding(const Binding& binding) const {
  return bindings_.contains(NormalBinding(binding));
}

Router::BindingPage Router::ListBindings(const BindingSelection& selection) const {
  BindingPage page;
  PageFiller<Binding> filler(&page.bindings, &page.more, selection.limit);
  Binding start;
  start.exchange = selection.exchange;
  start.header_match = HeaderMatch::kUnspecified;
  if (selection.after && *selection.after > start) start = *selection.after;
  const auto list = [&](const auto& entries) {
    for (auto it = entries.lower_bound(start); it != entries.end(); ++it) {
      const Binding& binding = (*it)->binding;
      if (selection.after && binding == *selection.after) continue;
      if (!selection.exchange.empty() && binding.exchange != selection.exchange) break;
      if (!filler.Take(binding)) break;
    }
  };
  if (selection.queue.empty()) {
    list(bindings_);
  } else if (const auto it = queues_.find(selection.queue); it != queues_.end()) {
    list(it->second->bindings);
  }
  return page;
}

void Router::ForEachBinding(absl::FunctionRef<void(const Binding&)> visit) const {
  for (const auto& entry : bindings_) visit(entry->binding);
}

absl::Status Router::CheckRoom(size_t exchanges, size_t bindings, size_t more_topic_words) const {
  if (exchanges > options_.exchanges_max) return TooMany(options_.exchanges_max, "exchanges");
  if (bindings > options_.bindings_max) return TooMany(options_.bindings_max, "bindings");
  if (topic_nodes_ + more_topic_words > options_.topic_nodes_max) {
    return MakeError(
        ErrorReason::kLimitReached,
        absl::StrCat("the patterns of this server's topic exchanges have ", topic_nodes_,
                     " different beginnings, and may have ", options_.topic_nodes_max));
  }
  return absl::OkStatus();
}

bool Router::Match(RoutedExchange& exchange, std::string_view routing_key,
                   const Attributes& attributes, int64_t* steps_left,
                   absl::Span<BoundEntry* const>* matched) {
  *matched = {};
  switch (exchange.stored.exchange.type) {
    case ExchangeType::kDirect: {
      const auto filed = exchange.direct.find(ToAbsl(routing_key));
      if (filed != exchange.direct.end()) *matched = filed->second;
      *steps_left -= static_cast<int64_t>(matched->size());
      return *steps_left >= 0;
    }
    case ExchangeType::kFanout:
    case ExchangeType::kUnspecified:
      *matched = exchange.fanout;
      *steps_left -= static_cast<int64_t>(matched->size());
      return *steps_left >= 0;
    case ExchangeType::kTopic:
      matched_.clear();
      if (!exchange.topic.Match(routing_key, steps_left, &matched_)) return false;
      *matched = matched_;
      return true;
    case ExchangeType::kHeaders:
      matched_.clear();
      if (!exchange.headers.Match(attributes, steps_left, &matched_)) return false;
      *matched = matched_;
      return true;
  }
  return true;
}

void Router::Enter(RoutedExchange* exchange) {
  if (exchange->message == message_) return;
  exchange->message = message_;
  next_level_.push_back(exchange);
}

absl::Status Router::HandOn(absl::Span<BoundEntry* const> matched,
                            std::vector<const std::string*>* queues) {
  for (const BoundEntry* entry : matched) {
    if (entry->to_exchange) {
      Enter(entry->to_exchange);
      continue;
    }
    if (entry->queue->message == message_) continue;
    entry->queue->message = message_;
    if (queues->size() == static_cast<size_t>(kRoutedQueuesMax)) {
      return MakeError(ErrorReason::kRouteTooLarge,
                       absl::StrCat("the message would go to more than ", kRoutedQueuesMax,
                                    " queues, which is the limit"));
    }
    queues->push_back(&entry->queue->name);
  }
  return absl::OkStatus();
}

absl::Status Router::Route(std::string_view exchange, std::string_view routing_key,
                           const Attributes& attributes,
                           std::vector<const std::string*>* queues, int64_t* steps_left) {
  queues->clear();
  RoutedExchange* first = Find(exchange);
  if (!first) return ExchangeNotFound(exchange);
  ++message_;
  next_level_.clear();
  Enter(first);
  // Nearest first, so that what is reached on a short way is not counted on a long one.
  for (int hops = 1; !next_level_.empty(); ++hops) {
    if (hops > kExchangeHopsMax) {
      return MakeError(
          ErrorReason::kRouteTooLarge,
          absl::StrCat("the message would pass more than ", kExchangeHopsMax,
                       " exchanges in a row, which is the limit: see what exchange '",
                       next_level_.front()->stored.exchange.name, "' is bound to"));
    }
    level_.swap(next_level_);
    next_level_.clear();
    for (RoutedExchange* at : level_) {
      absl::Span<BoundEntry* const> matched;
      if (!Match(*at, routing_key, attributes, steps_left, &matched)) {
        return MakeError(
            ErrorReason::kRouteTooLarge,
            absl::StrCat("exchange '", at->stored.exchange.name,
                         "' has too many bindings that come into question for this publish; split "
                         "it, or use simpler patterns"));
      }
      if (absl::Status status = HandOn(matched, queues); !status.ok()) return status;
      if (!matched.empty()) continue;
      const std::string& alternate = at->stored.exchange.alternate_exchange;
      if (alternate.empty()) continue;
      if (RoutedExchange* next = Find(alternate)) Enter(next);
    }
  }
  std::sort(queues->begin(), queues->end(),
            [](const std::string* a, const std::string* b) { return *a < *b; });
  return absl::OkStatus();
}

}  // namespace sluice::broker
