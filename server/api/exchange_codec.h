// Exchanges and bindings between the wire and the broker.
#ifndef SLUICE_SERVER_API_EXCHANGE_CODEC_H_
#define SLUICE_SERVER_API_EXCHANGE_CODEC_H_

#include <google/protobuf/field_mask.pb.h>

#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/exchange.h"
#include "sluice/v1/routing.pb.h"

namespace sluice::api {

// Checks every field and takes over those that are set. `path` is where the exchange stands in its
// request ("exchange", "definitions.exchanges[3]"): errors name the field below it. The name is
// only checked for its characters.
absl::StatusOr<ExchangeChange> ToExchangeChange(std::string_view path,
                                                const v1::Exchange& exchange);

// Keeps of `change` what the mask names; what it names and is not set gets its default. `*` sets
// `replace`. An empty mask changes nothing.
absl::Status ApplyMask(const google::protobuf::FieldMask& mask, ExchangeChange* change,
                       bool* replace);

// Whether a binding must say where it leads, or must not, as its request says it for all.
enum class Destination { kRequired, kForbidden };

absl::StatusOr<Binding> ToBinding(std::string_view path, const v1::Binding& binding,
                                  Destination destination = Destination::kRequired);

void ToProto(const Exchange& exchange, v1::Exchange* out);
void ToProto(const Binding& binding, v1::Binding* out);

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_EXCHANGE_CODEC_H_
