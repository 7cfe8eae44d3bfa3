#include "server/api/stored_message.h"

#include "absl/strings/str_cat.h"
#include "server/api/death_codec.h"
#include "server/api/field_checks.h"
#include "server/model/error.h"

namespace sluice::api {
absl::Status CheckMaxBodyBytes(int32_t max_body_bytes) {
  if (max_body_bytes >= kWholeBody) return absl::OkStatus();
  return MakeFieldError("max_body_bytes", "must be -1 (all), 0 (none) or a number of bytes");
}

absl::Status ToProto(const broker::ListedMessage& message, int32_t max_body_bytes,
                     v1::StoredMessage* out) {
  const std::string_view bytes = message.payload.view();
  if (!out->mutable_message()->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return MakeError(ErrorReason::kDataDamaged, "a stored message cannot be read");
  }
  if (max_body_bytes != kWholeBody) {
    std::string& body = *out->mutable_message()->mutable_body();
    if (body.size() > static_cast<size_t>(max_body_bytes)) {
      body.resize(static_cast<size_t>(max_body_bytes));
    }
  }
  out->set_state(static_cast<v1::MessageState>(message.state));
  out->set_attempt(message.attempt);
  out->set_delivery_count(message.delivery_count);
  out->set_waiting(static_cast<v1::WaitReason>(message.waiting));
  if (message.blocked_by) out->set_blocked_by_id(FormatMessageId(*message.blocked_by));
  if (message.until_ms > 0) SetTimestamp(message.until_ms, out->mutable_until());
  out->set_leased_by(message.leased_by);
  if (message.deaths) ToProto(*message.deaths, out->mutable_deaths());
  out->set_size_bytes(static_cast<int64_t>(bytes.size()));
  return absl::OkStatus();
}

}  // namespace sluice::api
