#include "server/api/death_codec.h"

#include "server/api/field_checks.h"

namespace sluice::api {

void ToProto(const Deaths& deaths, google::protobuf::RepeatedPtrField<v1::Death>* out) {
  for (const Death& death : deaths) {
    v1::Death* const added = out->Add();
    added->set_queue(death.queue);
    added->set_reason(static_cast<v1::DeathReason>(death.reason));
    added->set_count(death.count);
    added->set_attempts(death.attempts);
    SetTimestamp(death.first_ms, added->mutable_first_time());
    SetTimestamp(death.last_ms, added->mutable_last_time());
    added->set_detail(death.detail);
  }
}

}  // namespace sluice::api
