// All queues of a shard, by name and by number.
#ifndef SLUICE_SERVER_BROKER_QUEUE_TABLE_H_
#define SLUICE_SERVER_BROKER_QUEUE_TABLE_H_

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "server/base/strings.h"
#include "server/broker/queue.h"
#include "server/model/ids.h"

namespace sluice::broker {

// Owns the queues; they stay where they are until they are removed. Iterates in order of name.
// Finding one, which each message does, costs one hash. Not thread-safe.
class QueueTable {
 public:
  using InOrder = std::map<std::string, std::unique_ptr<Queue>>;

  // Null: there is none.
  Queue* Find(std::string_view name) const { return Lookup(by_name_, ToAbsl(name)); }
  Queue* Find(QueueId qid) const { return Lookup(by_qid_, qid); }

  // Its name and number, which no other may have, are its keys until it is removed.
  Queue& Add(std::unique_ptr<Queue> queue) {
    const std::string name = queue->row.config.name;
    const auto [it, added] = in_order_.emplace(name, std::move(queue));
    Queue& stored = *it->second;
    by_name_[it->first] = &stored;
    by_qid_[stored.qid] = &stored;
    return stored;
  }
  void Remove(const Queue& queue) {
    const auto it = in_order_.find(queue.row.config.name);
    by_qid_.erase(queue.qid);
    by_name_.erase(it->first);
    in_order_.erase(it);
  }

  size_t size() const { return in_order_.size(); }
  InOrder::const_iterator begin() const { return in_order_.begin(); }
  InOrder::const_iterator end() const { return in_order_.end(); }
  // The first one behind this name.
  InOrder::const_iterator After(const std::string& name) const {
    return in_order_.upper_bound(name);
  }

 private:
  template <typename Map, typename Key>
  static Queue* Lookup(const Map& map, const Key& key) {
    const auto it = map.find(key);
    return it == map.end() ? nullptr : it->second;
  }

  InOrder in_order_;
  absl::flat_hash_map<absl::string_view, Queue*> by_name_;  // keys live in in_order_
  absl::flat_hash_map<QueueId, Queue*> by_qid_;
};

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_QUEUE_TABLE_H_
