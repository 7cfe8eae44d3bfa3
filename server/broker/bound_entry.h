// A binding as the router keeps it.
#ifndef SLUICE_SERVER_BROKER_BOUND_ENTRY_H_
#define SLUICE_SERVER_BROKER_BOUND_ENTRY_H_

#include <cstdint>

#include "absl/container/inlined_vector.h"
#include "server/model/exchange.h"

namespace sluice::broker {

struct RoutedQueue;
struct RoutedExchange;

// Owned by the router; never moves. Exactly one of `queue` and `to_exchange` is set.
struct BoundEntry {
  Binding binding;
  uint64_t number = 0;  // of its row
  RoutedQueue* queue = nullptr;
  RoutedExchange* to_exchange = nullptr;
  uint32_t slot = 0;  // where it is in the one list that FileEntry put it into
};

// Entries under one key, in no order. Most keys have one, and two fit without an allocation.
using BoundEntries = absl::InlinedVector<BoundEntry*, 2>;

template <typename Entries>
void FileEntry(Entries& entries, BoundEntry* entry) {
  entry->slot = static_cast<uint32_t>(entries.size());
  entries.push_back(entry);
}
// In constant time: one list may hold every binding there is. `entry` must be in it.
template <typename Entries>
void UnfileEntry(Entries& entries, const BoundEntry* entry) {
  entries[entry->slot] = entries.back();
  entries[entry->slot]->slot = entry->slot;
  entries.pop_back();
}
template <typename Entries>
bool IsFiled(const Entries& entries, const BoundEntry* entry) {
  return entry->slot < entries.size() && entries[entry->slot] == entry;
}

}  // namespace sluice::broker

#endif  // SLUICE_SERVER_BROKER_BOUND_ENTRY_H_
