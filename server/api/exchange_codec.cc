#include "server/api/exchange_codec.h"

#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/field_checks.h"
#include "server/base/strings.h"
#include "server/model/error.h"
#include "server/model/limits.h"

namespace sluice::api {
namespace {

using StringMap = google::protobuf::Map<std::string, std::string>;

std::string Below(std::string_view path, std::string_view field) {
  return absl::StrCat(ToAbsl(path), ".", ToAbsl(field));
}

absl::Status CheckMap(const std::string& field, const StringMap& map, size_t entries_max,
                      size_t bytes_max) {
  if (map.size() > entries_max) return MakeFieldError(field, absl::StrCat("more than ", entries_max));
  size_t bytes = 0;
  for (const auto& [key, value] : map) bytes += key.size() + value.size();
  if (bytes > bytes_max) {
    return MakeFieldError(field, absl::StrCat("together over ", bytes_max, " bytes"));
  }
  return absl::OkStatus();
}

std::map<std::string, std::string> ToMap(const StringMap& map) { return {map.begin(), map.end()}; }

absl::Status TakeDestination(std::string_view path, const v1::Binding& binding, Binding* out) {
  switch (binding.destination_case()) {
    case v1::Binding::kQueue:
      out->queue = binding.queue();
      return CheckName(Below(path, "queue"), binding.queue());
    case v1::Binding::kToExchange:
      out->to_exchange = binding.to_exchange();
      return CheckName(Below(path, "to_exchange"), binding.to_exchange());
    case v1::Binding::DESTINATION_NOT_SET: break;
  }
  return MakeFieldError(Below(path, "queue"), "one of queue and to_exchange must be set");
}

absl::StatusOr<HeaderMatch> ToHeaderMatch(std::string_view path, v1::HeaderMatch match) {
  switch (match) {
    case v1::HEADER_MATCH_UNSPECIFIED:
    case v1::HEADER_MATCH_ALL: return HeaderMatch::kAll;
    case v1::HEADER_MATCH_ANY: return HeaderMatch::kAny;
    case v1::HeaderMatch_INT_MIN_SENTINEL_DO_NOT_USE_:
    case v1::HeaderMatch_INT_MAX_SENTINEL_DO_NOT_USE_: break;
  }
  return MakeFieldError(Below(path, "header_match"), "not a known way to match");
}

}  // namespace

absl::StatusOr<ExchangeChange> ToExchangeChange(std::string_view path,
                                                const v1::Exchange& exchange) {
  if (auto status = CheckName(Below(path, "name"), exchange.name()); !status.ok()) return status;
  if (!v1::ExchangeType_IsValid(exchange.type())) {
    return MakeFieldError(Below(path, "type"), "not a known type");
  }
  ExchangeChange change;
  change.name = exchange.name();
  if (exchange.type() != v1::EXCHANGE_TYPE_UNSPECIFIED) {
    change.type = static_cast<ExchangeType>(exchange.type());
  }
  if (!exchange.alternate_exchange().empty()) {
    auto status = CheckName(Below(path, "alternate_exchange"), exchange.alternate_exchange());
    if (!status.ok()) return status;
    change.alternate_exchange = exchange.alternate_exchange();
  }
  if (!exchange.labels().empty()) {
    auto status = CheckMap(Below(path, "labels"), exchange.labels(), kLabelsMax, kLabelsBytesMax);
    if (!status.ok()) return status;
    change.labels = ToMap(exchange.labels());
  }
  return change;
}

absl::Status ApplyMask(const google::protobuf::FieldMask& mask, ExchangeChange* change,
                       bool* replace) {
  *replace = false;
  if (mask.paths().empty()) return absl::OkStatus();
  if (mask.paths_size() == 1 && mask.paths(0) == "*") {
    *replace = true;
    return absl::OkStatus();
  }
  const ExchangeChange given = *change;
  *change = {};
  change->name = given.name;
  for (const std::string& path : mask.paths()) {
    if (path == "alternate_exchange") {
      change->alternate_exchange = given.alternate_exchange.value_or("");
    } else if (path == "labels") {
      change->labels = given.labels.value_or(std::map<std::string, std::string>());
    } else {
      return MakeFieldError("update_mask", absl::StrCat("no field '", path, "' to change"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Binding> ToBinding(std::string_view path, const v1::Binding& binding,
                                  Destination destination) {
  if (auto status = CheckName(Below(path, "exchange"), binding.exchange()); !status.ok()) {
    return status;
  }
  Binding out;
  out.exchange = binding.exchange();
  if (destination == Destination::kRequired) {
    if (auto status = TakeDestination(path, binding, &out); !status.ok()) return status;
  } else if (binding.destination_case() != v1::Binding::DESTINATION_NOT_SET) {
    return MakeFieldError(Below(path, "destination"), "must be empty here");
  }
  if (auto status = CheckShortString(Below(path, "binding_key"), binding.binding_key());
      !status.ok()) {
    return status;
  }
  out.binding_key = binding.binding_key();
  if (auto status = CheckMap(Below(path, "headers"), binding.headers(), kBindingHeadersMax,
                             kAttributesBytesMax);
      !status.ok()) {
    return status;
  }
  out.headers = ToMap(binding.headers());
  const auto match = ToHeaderMatch(path, binding.header_match());
  if (!match.ok()) return match.status();
  out.header_match = *match;
  return out;
}

void ToProto(const Exchange& exchange, v1::Exchange* out) {
  out->set_name(exchange.name);
  out->set_type(static_cast<v1::ExchangeType>(exchange.type));
  out->set_alternate_exchange(exchange.alternate_exchange);
  for (const auto& [key, value] : exchange.labels) (*out->mutable_labels())[key] = value;
}

void ToProto(const Binding& binding, v1::Binding* out) {
  out->set_exchange(binding.exchange);
  if (!binding.queue.empty()) out->set_queue(binding.queue);
  if (!binding.to_exchange.empty()) out->set_to_exchange(binding.to_exchange);
  out->set_binding_key(binding.binding_key);
  for (const auto& [key, value] : binding.headers) (*out->mutable_headers())[key] = value;
  // Without headers it says nothing, and the binding should read as it was written.
  if (!binding.headers.empty()) {
    out->set_header_match(static_cast<v1::HeaderMatch>(binding.header_match));
  }
}

}  // namespace sluice::api
