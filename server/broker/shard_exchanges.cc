// Bindings of queues that come and go.
#include "absl/strings/str_cat.h"
#include "server/broker/shard.h"
#include "server/storage/rows.h"

namespace sluice::broker {

absl::Status Shard::CheckExchangeExists(const std::string& name) const {
  if (router_.FindExchange(name)) return absl::OkStatus();
  return MakeError(ErrorReason::kExchangeNotFound,
                   absl::StrCat("exchange '", name, "' does not exist"));
}

absl::Status Shard::AddBinding(const Binding& binding) {
  const uint64_t number = boot_row_.next_number;
  const auto created = router_.CreateBinding(binding, number);
  if (!created.ok()) return created.status();
  if (!*created) return absl::OkStatus();
  ++boot_row_.next_number;
  batch_.Put(storage::Family::kMeta, storage::BindingKey(options_.shard, number),
             storage::EncodeBinding(binding));
  return absl::OkStatus();
}

void Shard::RemoveBindingsOf(const Queue& queue) {
  for (const uint64_t number : router_.RemoveBindingsTo(queue.row.config.name)) {
    batch_.Delete(storage::Family::kMeta, storage::BindingKey(options_.shard, number));
  }
}

}  // namespace sluice::broker
