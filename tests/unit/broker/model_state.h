// The naive model of a shard: what each message is by the rules of the contract, kept message by
// message in plain maps, and the checks of everything the shard shows. It knows nothing of lanes'
// windows, pages or rows; it does know which turn made a batch and which batches are durable.
#ifndef SLUICE_TESTS_UNIT_BROKER_MODEL_STATE_H_
#define SLUICE_TESTS_UNIT_BROKER_MODEL_STATE_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "server/broker/commands.h"

namespace sluice::broker {

struct ModelConsumer;

// What a crash leaves of a message, as of one batch.
struct ModelRecord {
  bool settled = false;
  bool removed = false;        // by a purge
  int32_t attempt = 1;         // of the next grant, or of the live lease
  int64_t not_before_ms = 0;   // retry time; 0: none
  int64_t saved_lease_ms = 0;  // end of a lease saved by a clean stop; 0: none
};

struct ModelMessage {
  uint64_t id = 0;  // in the first bytes of the body
  MessagePosition at;
  uint32_t bytes = 0;
  std::optional<Lsn> publish_lsn;  // nothing: its turn is not over

  ModelRecord record;
  std::map<Lsn, ModelRecord> versions;
  bool touched = false;  // `record` belongs to the turn under way
  uint64_t settled_before_turn = 0;
  int64_t removed_ms = 0;
  Boot removed_boot = 0;

  bool leased = false;
  int64_t lease_until_ms = 0;
  ModelConsumer* holder = nullptr;
  // Not leased and not waiting for a retry time: may be granted when this is durable. Nothing: the
  // turn under way.
  std::optional<Lsn> return_lsn = Lsn{0};

  std::vector<Receipt> receipts;  // all that were shown, oldest first
  int32_t shown_attempt = 0;      // of the last one
  bool lost_in_crash = false;     // was held when the process died: has to be flagged
  // The shard may have granted, released or expired it unseen (a delivery held back for its batch
  // and dropped with its stream): its attempt and its receipt are known only when it is next shown.
  bool disturbed = false;
  int in_limbo = 0;  // settles under way whose outcome only their replies tell
  uint64_t shown_after_turn = 0;
  // A later message was granted at this time though this one was ready: it must have been granted
  // by then too (its delivery may be held back).
  int64_t granted_by_ms = std::numeric_limits<int64_t>::max();
};

struct ModelQueue {
  std::string name;
  QueueId qid = 0;
  int64_t lease_ms = 0;
  RetryPolicy retry;
  std::optional<Lsn> created_lsn;
  bool deleted = false;
  std::optional<Lsn> deleted_lsn;
  uint64_t crashes_seen = 0;
  std::map<Lane, Seq> next_seq;
  std::map<Lane, std::map<Seq, ModelMessage*>> all;
  std::map<Lane, std::map<Seq, ModelMessage*>> unsettled;
  // Lanes whose byte count is only near: a receipt of an earlier boot settled a message whose size
  // was not in memory.
  std::set<Lane> bytes_near;
};

struct ModelConsumer {
  uint64_t id = 0;
  ModelQueue* queue = nullptr;
  int64_t lease_ms = 0;
  int32_t max_in_flight = 0;
  int64_t max_bytes_in_flight = 0;
  int64_t messages_left = -1;
  bool auto_ack = false;
  bool keep_leases_on_close = false;
  bool is_receive = false;
  bool ended = false;
  bool gone = false;  // closed, or of an earlier boot: nothing may come
  std::set<uint64_t> leases;
  int64_t bytes_in_flight = 0;
  std::vector<Receipt> shown;  // a stream's, for reports of what was written
  size_t written = 0;
};

struct ModelDepth {
  int64_t total = 0;
  int64_t leased = 0;
  int64_t leased_unseen_max = 0;  // so many more may be leased unseen
  int64_t delayed = 0;
  int64_t just_due = 0;  // of them, since the last turn: a read may have found them so
  int64_t bytes = 0;
  bool bytes_near = false;
  bool in_limbo = false;
};

// No lease of a run may be shorter.
inline constexpr int64_t kModelLeaseMsMin = 3;

enum class Verdict { kOk, kExpired, kInvalid, kEither };

class NaiveModel {
 public:
  // `fail` is told of every broken rule.
  explicit NaiveModel(std::function<void(const std::string&)> fail) : fail_(std::move(fail)) {}

  // --- time, turns and batches
  int64_t now_ms = 1'700'000'000'000;
  Boot boot = 0;
  Lsn durable_lsn = 0;
  Lsn appended_lsn = 0;
  bool EverythingDurable() const { return durable_lsn == appended_lsn; }
  // Expires leases; then the shard's turn runs; then EndTurn.
  void BeginTurn();
  void EndTurn(Lsn lsn);
  // Before the shard is told.
  void Durable(Lsn lsn);
  // The process died with the store at durable_lsn; `unseen` batches of these reached the store
  // without the shard or anyone else being told.
  void Crash(bool unseen_batches);
  // Everything is durable and all leases are saved.
  void CleanStop();
  void StartBoot();

  // --- what was decided
  ModelQueue& Create(const std::string& name, int64_t lease_ms, const RetryPolicy& retry);
  void Delete(ModelQueue& queue);
  ModelQueue* Find(const std::string& name);
  ModelMessage& Publish(ModelQueue& queue, int priority, uint64_t id, uint32_t bytes);
  Verdict Judge(ModelQueue* queue, const Receipt& receipt);
  void Settle(ModelMessage& message, bool removed);
  // A settle in limbo, now known to have been done.
  void SettleIn(ModelMessage& message, uint64_t turn, Lsn lsn);
  void Return(ModelMessage& message, bool failed, int64_t delay_ms);
  void ReleaseUnwritten(const Receipt& receipt);
  void Extend(ModelMessage& message, int64_t lease_ms);
  int64_t Purge(ModelQueue& queue, bool include_leased);
  void Disturb(ModelQueue& queue);
  void DropFromHolder(ModelMessage& message);
  ModelMessage* At(const MessagePosition& at);
  ModelDepth Depth(ModelQueue& queue);
  bool MayBeGranted(const ModelMessage& message, int64_t before_turn_ms) const;
  int64_t ReadySinceMs(const ModelMessage& message) const;
  bool MayHaveFailedUnseen(const ModelMessage& message, int64_t until_ms) const;
  bool IsDisturbed(ModelQueue& queue);
  // The turn that comes next.
  uint64_t next_turn() const { return turn_ + 1; }

  // --- what was shown
  void Shown(ModelConsumer& consumer, const OutgoingDelivery& delivery);

  const std::set<std::pair<int64_t, uint64_t>>& leases() const { return leases_; }
  std::map<uint64_t, std::unique_ptr<ModelMessage>> messages;
  std::map<QueueId, std::unique_ptr<ModelQueue>> queues;
  uint64_t deliveries = 0;
  uint64_t redeliveries = 0;

 private:
  struct TurnTime {
    uint64_t number = 0;
    Lsn lsn = 0;
  };
  void Fail(const ModelMessage& message, const std::string& what);
  void Touch(ModelMessage& message);
  void Oblige(ModelMessage& message, int64_t granted_by_ms);
  void CheckOrder(ModelQueue& queue, const ModelMessage& message, bool first, int64_t grant_ms);
  void CheckGrant(const ModelMessage& message, const OutgoingDelivery& delivery, int64_t grant_ms);
  void Lease(ModelMessage& message, ModelConsumer* holder, int64_t until_ms);
  void Restore(ModelMessage& message);
  int64_t DurableAtMs(Lsn lsn) const;

  std::function<void(const std::string&)> fail_;
  std::set<uint64_t> live_;     // unsettled, or settled by a batch that is not durable
  std::set<uint64_t> touched_;
  std::set<uint64_t> obliged_;
  std::set<std::pair<int64_t, uint64_t>> leases_;  // end, message
  std::map<int64_t, TurnTime> turns_;              // of this boot, by time
  std::map<Lsn, int64_t> durable_at_ms_;           // of this boot
  uint64_t turn_ = 0;
  int64_t last_turn_ms_ = 0;
  bool in_turn_ = false;
};

}  // namespace sluice::broker

#endif  // SLUICE_TESTS_UNIT_BROKER_MODEL_STATE_H_
