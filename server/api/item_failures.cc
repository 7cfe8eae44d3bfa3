#include "server/api/item_failures.h"

#include <algorithm>
#include <utility>

#include "server/api/error_mapping.h"
#include "server/model/error.h"

namespace sluice::api {

void AddFailures(const Call& call, const ParsedReceipts& parsed,
                 const std::vector<broker::SettleFailure>& of_shard,
                 google::protobuf::RepeatedPtrField<v1::ItemFailure>* out) {
  std::vector<std::pair<int32_t, const absl::Status*>> all;
  for (const auto& failure : parsed.failures) all.emplace_back(failure.index, &failure.status);
  for (const auto& failure : of_shard) {
    all.emplace_back(parsed.IndexOf(failure.index), &failure.status);
  }
  std::sort(all.begin(), all.end());
  for (const auto& [index, status] : all) {
    auto* failure = out->Add();
    failure->set_index(index);
    ToItemStatus(*status, failure->mutable_status());
    if (RpcObserver* observer = call.api().observer) {
      observer->OnSettleFailure(call.method(), parsed.queue, ReasonOf(*status));
    }
  }
}

}  // namespace sluice::api
