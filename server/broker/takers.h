// Whose turn it is among the consumers of a queue that have credit.
#ifndef SLUICE_SERVER_BROKER_TAKERS_H_
#define SLUICE_SERVER_BROKER_TAKERS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <iterator>
#include <map>

#include "server/broker/consumer_commands.h"

namespace sluice::broker {

// Higher consumer priorities first, equal ones in turns. Not thread-safe.
class Takers {
 public:
  bool empty() const { return by_priority_.empty(); }

  void Add(int32_t priority, SubscriptionId id) { by_priority_[priority].push_back(id); }
  void Remove(int32_t priority, SubscriptionId id) {
    const auto level = by_priority_.find(priority);
    if (level == by_priority_.end()) return;
    auto& ids = level->second;
    const auto it = std::find(ids.begin(), ids.end(), id);
    if (it != ids.end()) ids.erase(it);
    if (ids.empty()) by_priority_.erase(level);
  }

  enum class Verdict {
    kTakes,   // and goes behind the others
    kStays,   // where it is; not this time
    kLeaves,  // is not among them any more
  };
  // Asks one after the other until one takes; 0: none does. A priority is only asked when none of a
  // higher one takes.
  template <typename Ask>
  SubscriptionId Next(Ask ask) {
    for (auto level = by_priority_.begin(); level != by_priority_.end();) {
      auto& ids = level->second;
      for (size_t i = 0; i < ids.size();) {
        const SubscriptionId id = ids[i];
        const Verdict verdict = ask(id);
        if (verdict == Verdict::kStays) {
          ++i;
          continue;
        }
        ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(i));
        if (verdict != Verdict::kTakes) continue;
        ids.push_back(id);
        return id;
      }
      level = ids.empty() ? by_priority_.erase(level) : std::next(level);
    }
    return 0;
  }

 private:
  std::map<int32_t, std::deque<SubscriptionId>, std::greater<>> by_priority_;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_TAKERS_H_
