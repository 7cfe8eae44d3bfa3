#include "tests/unit/broker/model_routing.h"

#include <algorithm>
#include <deque>

namespace sluice::broker {
namespace {

std::vector<std::string> WordsOf(const std::string& key) {
  std::vector<std::string> words;
  if (key.empty()) return words;
  size_t from = 0;
  while (true) {
    const size_t dot = key.find('.', from);
    words.push_back(key.substr(from, dot == std::string::npos ? dot : dot - from));
    if (dot == std::string::npos) return words;
    from = dot + 1;
  }
}

// `*` stands for one word, `#` for any number of them.
bool TopicMatches(const std::vector<std::string>& pattern, size_t p,
                  const std::vector<std::string>& words, size_t w) {
  if (p == pattern.size()) return w == words.size();
  if (pattern[p] == "#") {
    for (size_t next = w; next <= words.size(); ++next) {
      if (TopicMatches(pattern, p + 1, words, next)) return true;
    }
    return false;
  }
  if (w == words.size() || (pattern[p] != "*" && pattern[p] != words[w])) return false;
  return TopicMatches(pattern, p + 1, words, w + 1);
}

bool HeadersMatch(const Binding& binding, const ModelRoute& route) {
  const auto has = [&](const auto& header) {
    return std::any_of(route.attributes.begin(), route.attributes.end(), [&](const auto& own) {
      return own.first == header.first && own.second == header.second;
    });
  };
  return binding.header_match == HeaderMatch::kAny
             ? std::any_of(binding.headers.begin(), binding.headers.end(), has)
             : std::all_of(binding.headers.begin(), binding.headers.end(), has);
}

bool Matches(ExchangeType type, const Binding& binding, const ModelRoute& route) {
  switch (type) {
    case ExchangeType::kDirect: return binding.binding_key == route.routing_key;
    case ExchangeType::kFanout: return true;
    case ExchangeType::kTopic:
      return TopicMatches(WordsOf(binding.binding_key), 0, WordsOf(route.routing_key), 0);
    case ExchangeType::kHeaders: return HeadersMatch(binding, route);
    case ExchangeType::kUnspecified: break;
  }
  return false;
}

}  // namespace

std::optional<std::set<std::string>> ModelRouting::Route(const ModelRoute& route) const {
  if (!exchanges.contains(route.exchange)) return std::nullopt;
  std::set<std::string> queues;
  std::set<std::string> seen;
  std::deque<std::string> to_do = {route.exchange};
  while (!to_do.empty()) {
    const std::string name = std::move(to_do.front());
    to_do.pop_front();
    const auto exchange = exchanges.find(name);
    if (exchange == exchanges.end() || !seen.insert(name).second) continue;
    bool chose = false;
    for (const Binding& binding : bindings) {
      if (binding.exchange != name || !Matches(exchange->second.type, binding, route)) continue;
      chose = true;
      if (binding.queue.empty()) {
        to_do.push_back(binding.to_exchange);
      } else {
        queues.insert(binding.queue);
      }
    }
    if (!chose) to_do.push_back(exchange->second.alternate_exchange);
  }
  return queues;
}

void ModelRouting::RemoveQueue(const std::string& name) {
  std::erase_if(bindings, [&](const Binding& binding) { return binding.queue == name; });
}

void ModelRouting::RemoveExchange(const std::string& name) {
  exchanges.erase(name);
  std::erase_if(bindings, [&](const Binding& binding) {
    return binding.exchange == name || binding.to_exchange == name;
  });
}

bool ModelRouting::IsAlternate(const std::string& name) const {
  return std::any_of(exchanges.begin(), exchanges.end(), [&](const auto& entry) {
    return entry.second.alternate_exchange == name;
  });
}

bool ModelRouting::IsBound(const std::string& name) const {
  return std::any_of(bindings.begin(), bindings.end(), [&](const Binding& binding) {
    return binding.exchange == name || binding.to_exchange == name;
  });
}

}  // namespace sluice::broker
