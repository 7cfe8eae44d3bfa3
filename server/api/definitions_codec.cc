#include "server/api/definitions_codec.h"

#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "server/api/exchange_codec.h"
#include "server/api/field_checks.h"
#include "server/api/paging.h"
#include "server/api/queue_codec.h"
#include "server/model/error.h"

namespace sluice::api {
namespace {

std::string PathOf(const char* list, int index) {
  return absl::StrCat("definitions.", list, "[", index, "]");
}

// Names of one kind: each may come once.
class Names {
 public:
  absl::Status Take(const std::string& path, const std::string& name) {
    if (auto status = CheckNewName(path, name); !status.ok()) return status;
    if (seen_.insert(name).second) return absl::OkStatus();
    return MakeFieldError(path, absl::StrCat("'", name, "' is defined twice"));
  }

 private:
  absl::flat_hash_set<std::string> seen_;
};

// False once the limit is reached.
bool AddChanges(const std::vector<broker::DefinitionChange>& changes, bool with_unchanged,
                v1::ApplyDefinitionsResponse* out) {
  PageSize size;
  for (const broker::DefinitionChange& change : changes) {
    if (change.action == broker::DefinitionChange::Action::kNone && !with_unchanged) continue;
    v1::DefinitionChange entry;
    entry.set_resource(change.resource);
    entry.set_action(static_cast<v1::ChangeAction>(change.action));
    for (const std::string& difference : change.differences) entry.add_differences(difference);
    if (!size.Fits(entry.ByteSizeLong())) return false;
    *out->add_changes() = std::move(entry);
  }
  return true;
}

}  // namespace

absl::StatusOr<broker::Definitions> ToDefinitions(const v1::Definitions& definitions) {
  broker::Definitions out;
  Names queues;
  for (int i = 0; i < definitions.queues_size(); ++i) {
    const v1::QueueConfig& config = definitions.queues(i);
    const std::string path = PathOf("queues", i);
    auto status = queues.Take(absl::StrCat(path, ".name"), config.name());
    if (!status.ok()) return status;
    auto change = ToConfigChange(config, path);
    if (!change.ok()) return change.status();
    out.queues.push_back(*std::move(change));
  }
  Names exchanges;
  for (int i = 0; i < definitions.exchanges_size(); ++i) {
    const v1::Exchange& exchange = definitions.exchanges(i);
    const std::string path = PathOf("exchanges", i);
    auto status = exchanges.Take(absl::StrCat(path, ".name"), exchange.name());
    if (!status.ok()) return status;
    auto change = ToExchangeChange(path, exchange);
    if (!change.ok()) return change.status();
    if (!change->type) return MakeFieldError(absl::StrCat(path, ".type"), "must be set");
    out.exchanges.push_back(*std::move(change));
  }
  for (int i = 0; i < definitions.bindings_size(); ++i) {
    auto binding = ToBinding(PathOf("bindings", i), definitions.bindings(i));
    if (!binding.ok()) return binding.status();
    out.bindings.push_back(*std::move(binding));
  }
  return out;
}

void ToProto(const std::vector<broker::DefinitionChange>& changes,
             v1::ApplyDefinitionsResponse* out) {
  if (AddChanges(changes, true, out)) return;
  out->Clear();
  AddChanges(changes, false, out);
}

}  // namespace sluice::api
