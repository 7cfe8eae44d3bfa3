// Looks for messages of a queue, in bounded steps: the shard answers a few at a time, and this
// keeps those that a filter selects.
#ifndef SLUICE_SERVER_API_MESSAGE_SCAN_H_
#define SLUICE_SERVER_API_MESSAGE_SCAN_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "server/api/event_loop.h"
#include "server/api/message_filter.h"
#include "server/broker/commands.h"
#include "server/model/limits.h"

namespace sluice::api {

// Where a scan goes on: a place in the queue, or among the ids of its filter.
struct ScanCursor {
  broker::ListCursor place;
  size_t next_id = 0;

  // For page tokens.
  std::string Encode() const;
  static ScanCursor Decode(std::string_view bytes);  // of Encode, or empty: the start
};

struct ScanStep {
  // Those that the filter selects. By id in the order of the ids, otherwise in order of the queue.
  std::vector<broker::ListedMessage> matches;
  // Where the scan goes on after matches[i]: to stop in the middle of a step.
  std::vector<ScanCursor> after;
  int64_t looked_at = 0;  // messages, or ids
  int64_t bytes = 0;      // of the messages looked at
  bool end = false;       // nothing is left behind this step
  ScanCursor next;        // otherwise
};

// Loop thread only; its callbacks come there too.
class MessageScan : public std::enable_shared_from_this<MessageScan> {
 public:
  MessageScan(broker::CommandSink* sink, EventLoop* loop, std::string queue, MessageFilter filter)
      : sink_(sink), loop_(loop), queue_(std::move(queue)), filter_(std::move(filter)) {}

  using Done = absl::AnyInvocable<void(absl::StatusOr<ScanStep>)>;
  // Looks at up to `looks_max` messages from `cursor` on; ages are as of `now_ms`. One step at a
  // time. By id, messages that the queue does not hold are passed over.
  void Step(const ScanCursor& cursor, int32_t looks_max, int64_t now_ms, Done done);

  const MessageFilter& filter() const { return filter_; }

 private:
  struct ById;
  void StepById(std::shared_ptr<ById> state);
  void StepByPlace(const ScanCursor& cursor, int32_t looks_max, int64_t now_ms, Done done);
  void Look(broker::ListedMessage message, const ScanCursor& after, int64_t now_ms,
            ScanStep* step) const;

  broker::CommandSink* const sink_;
  EventLoop* const loop_;
  const std::string queue_;
  const MessageFilter filter_;
};

// What one call looks at before it answers and leaves the rest to the next: API.md rule 14, and
// bytes, so that large messages do not hold it up.
inline constexpr int64_t kScanMessagesMax = 10'000;
inline constexpr int64_t kScanBytesMax = 64 * kMiB;
// Messages looked at in one turn of the shard.
inline constexpr int32_t kScanStepMessages = 1000;

// Steps over a scan for one call. Loop thread only; lives until `end` was called.
class BoundedScan : public std::enable_shared_from_this<BoundedScan> {
 public:
  // Sees the matches of each step; may take them. A cursor stops the scan there.
  using OnStep = absl::AnyInvocable<std::optional<ScanCursor>(ScanStep& step)>;
  // Where the next call goes on; nothing: the end is reached.
  using OnEnd = absl::AnyInvocable<void(absl::StatusOr<std::optional<ScanCursor>>)>;

  BoundedScan(std::shared_ptr<MessageScan> scan, int64_t now_ms, OnStep step, OnEnd end)
      : scan_(std::move(scan)), now_ms_(now_ms), step_(std::move(step)), end_(std::move(end)) {}
  void Run(const ScanCursor& from);

 private:
  const std::shared_ptr<MessageScan> scan_;
  const int64_t now_ms_;
  OnStep step_;
  OnEnd end_;
  int64_t messages_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace sluice::api

#endif  // SLUICE_SERVER_API_MESSAGE_SCAN_H_
