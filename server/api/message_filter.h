// Which messages of a queue a call is about.
#ifndef SLUICE_SERVER_API_MESSAGE_FILTER_H_
#define SLUICE_SERVER_API_MESSAGE_FILTER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/broker/message_commands.h"
#include "sluice/v1/message_admin.pb.h"

namespace sluice::api {

// A checked sluice.v1.MessageFilter: all fields that are set must agree, and of a list one entry.
// Immutable: any thread.
class MessageFilter {
 public:
  // Entries of one list. Ids are looked up one by one, the others compared with every message.
  static constexpr int kEntriesMax = 1000;

  // `path` is where it stands in its request, for errors.
  static absl::StatusOr<MessageFilter> Parse(std::string_view path,
                                             const v1::MessageFilter& filter);

  // Nothing is set: it selects all.
  bool empty() const { return empty_; }
  // In the order given, each once. If there are any, no other message is selected.
  const std::vector<MessagePosition>& ids() const { return ids_; }

  // Whether all fields but the ids agree with the message, as of `now_ms` (milliseconds since
  // 1970). Reads its bytes only where a field is about them.
  bool Matches(const broker::ListedMessage& message, int64_t now_ms) const;

 private:
  bool MatchesBytes(std::string_view message) const;

  bool empty_ = true;
  std::vector<MessagePosition> ids_;
  std::set<MessageState> states_;
  std::set<std::string, std::less<>> groups_;
  std::map<std::string, std::string, std::less<>> attributes_;
  std::optional<int64_t> min_age_ms_;
  std::optional<int64_t> max_age_ms_;
  std::set<DeathReason> death_reasons_;
  std::string death_queue_;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_MESSAGE_FILTER_H_
