#include "server/storage/page_builder.h"

#include <utility>

#include "server/base/strings.h"
#include "server/model/error.h"
#include "server/storage/rows.h"

namespace sluice::storage {
namespace {

absl::StatusOr<MessageValue> Parse(std::string_view value) {
  auto parsed = ParseMessageValue(value);
  // In the middle of the data an unknown version is damage as well: the boot row was readable.
  if (!parsed.ok()) {
    return MakeError(ErrorReason::kDataDamaged, ToStd(parsed.status().message()));
  }
  return parsed;
}

}  // namespace

absl::StatusOr<StoredMessage> ToStored(Seq seq, std::string_view value) {
  auto parsed = Parse(value);
  if (!parsed.ok()) return parsed.status();
  return StoredMessage{seq, std::move(parsed->info), Payload::CopyOf(parsed->wire)};
}

absl::Status PageBuilder::Add(Seq seq, std::string_view value) {
  auto parsed = Parse(value);
  if (!parsed.ok()) return parsed.status();
  StoredMessage& message = messages_.emplace_back();
  message.seq = seq;
  message.info = std::move(parsed->info);
  const uint64_t group = message.info.group_hash;
  if (group == 0 || !range_.skip_groups || !range_.skip_groups->contains(group)) {
    message.payload = Payload::CopyOf(parsed->wire);
  }
  size_.Count(message);
  return absl::OkStatus();
}

}  // namespace sluice::storage
